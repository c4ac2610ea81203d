"""Payloads on their way: composed, encoded, decoded."""

from __future__ import annotations

from typing import Any

from rustic_ai.core.guild.agent.outbox import Outbox
from rustic_ai.core.messaging import AgentTag, Client, Message
from rustic_ai.core.messaging.core.codec import decode_message, encode_message


class Post(Client):
    """Keeps what is published."""

    def __init__(self, *, trusted: bool = True) -> None:
        self.tag = AgentTag("a", "A")
        self.sent: list[Message] = []
        self._trusted = trusted

    @property
    def trusted(self) -> bool:
        """As told."""
        return self._trusted

    def publish(self, message: Message, *, now: bool = False) -> None:
        """Keep it."""
        self.sent.append(message)

    def bury(self, message: Message, reason: str, attempts: int) -> None:
        """Refuse."""
        raise NotImplementedError

    def subscribe(self, topic: str, *, from_start: bool = False) -> None:
        """Do nothing."""

    def unsubscribe(self, topic: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def outgoing(payload: Any, **options: Any) -> Message:
    """Compose a message."""
    return Outbox(Post()).compose(payload, "t", **options)


def passed(payload: Any, *, shift: int = 0, **options: Any) -> Message:
    """Compose a message, and read it from its bytes, which begin `shift` bytes into a buffer."""
    body = encode_message(outgoing(payload, **options))
    return decode_message(memoryview(bytes(shift) + body)[shift:], "t")
