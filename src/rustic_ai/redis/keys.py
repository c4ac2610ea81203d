"""What this backend calls things in a Redis database."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of keys, all behind one prefix."""

    prefix: str

    def stream(self, topic: str) -> str:
        """Return the stream with the messages of a topic."""
        return f"{self.prefix}:stream:{topic}"

    def topic_of(self, stream: str) -> str:
        """Return the topic of a stream."""
        return stream.removeprefix(f"{self.prefix}:stream:")

    def holders(self, topic: str) -> str:
        """Return the hash that says of each durable subscriber of a topic who holds its place.

        Fields: ``group:NAME`` its consumer group, ``owner:NAME`` the token of its holder (behind a
        minus: who has left it cleanly), ``crash:NAME`` the message at which holders crashed.
        """
        return f"{self.prefix}:holders:{topic}"

    def held(self, subscriber: str) -> str:
        """Return the set of topics in which a subscriber has a place."""
        return f"{self.prefix}:held:{subscriber}"

    def topics(self, namespace: str) -> str:
        """Return the set of topics of a namespace."""
        return f"{self.prefix}:topics:{namespace}"

    def unit(self, client: str, lane: str) -> str:
        """Return the number of the last unit that a client has stored."""
        return f"{self.prefix}:unit:{client}:{lane}"

    @property
    def present(self) -> str:
        """The hash of subscriptions whose clients may be connected."""
        return f"{self.prefix}:present"

    @property
    def store(self) -> str:
        """A number of this database; another one: it has lost what it had."""
        return f"{self.prefix}:store"
