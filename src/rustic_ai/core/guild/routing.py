"""Which topics a message goes to that answers another."""

from __future__ import annotations

from collections.abc import Sequence

from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.message import Message


def result_topics(cause: Message, own_inbox: str) -> Sequence[str]:
    """Say where results of handling `cause` go.

    Normally to the topics of the cause. Two of them would lead astray: from an agent's own inbox
    the result would come back to itself, so it goes to the sender's; on the system topic it would
    wake every agent, so it goes to the default topic.
    """
    topics: dict[str, None] = {}
    for topic in cause.topics:
        if topic == own_inbox:
            if cause.sender.id is not None:
                topics[GuildTopics.get_agent_inbox(cause.sender.id)] = None
        elif topic == GuildTopics.SYSTEM_TOPIC:
            topics.update(dict.fromkeys(GuildTopics.DEFAULT_TOPICS))
        else:
            topics[topic] = None
    return list(topics) or GuildTopics.DEFAULT_TOPICS
