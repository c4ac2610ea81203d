"""Memory that a guild's processes share: large parts of messages stay there, and are not copied.

A producer owns segments, memory files without a name, and cuts them into slots. It sends the
descriptor of a segment to the server once, on a connection of its own (`channel`), and then, in
each message, only where a part lies. Whoever receives such a message gets the descriptor from the
server and maps the segment, to read. The server counts who needs a slot (`book`): the messages that
are not acknowledged yet, and receivers that hold on to what they got. Then its owner may use it
again: pages that were touched once are ten times as fast as new ones.
"""
