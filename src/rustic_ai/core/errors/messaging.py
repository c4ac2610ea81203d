"""Errors of messages and of what carries them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rustic_ai.core.errors.guild import GuildError


@dataclass(eq=False, kw_only=True, repr=False)
class MessagingError(GuildError, RuntimeError):
    """Messaging cannot do what it was asked."""

    code: ClassVar[str] = "messaging"


@dataclass(eq=False, kw_only=True, repr=False)
class MessagingConfigError(MessagingError, ValueError):
    """A messaging configuration is wrong."""

    code: ClassVar[str] = "messaging-config"


@dataclass(eq=False, kw_only=True, repr=False)
class BackendClosedError(MessagingError):
    """The backend was cleaned up and takes no more calls."""

    code: ClassVar[str] = "backend-closed"
    summary: str = "this messaging backend was cleaned up"


@dataclass(eq=False, kw_only=True, repr=False)
class BackendUnavailableError(MessagingError, ConnectionError):
    """The message server cannot be reached, or is gone."""

    code: ClassVar[str] = "backend-unavailable"
    address: str
    reason: str

    def describe(self) -> str:
        """Name the address and the reason."""
        return f"no message server at {self.address}: {self.reason}"


@dataclass(eq=False, kw_only=True, repr=False)
class PortTakenError(MessagingError, OSError):
    """The port of the message server is held by something that is not one."""

    code: ClassVar[str] = "port-taken"
    address: str
    hint: str = "stop that program, or choose another port in the messaging configuration"

    def describe(self) -> str:
        """Name the address."""
        return f"{self.address} is held by a program that is not a Rustic message server"


@dataclass(eq=False, kw_only=True, repr=False)
class AccessError(MessagingError):
    """A file that says who may connect is not its user's alone, or not what it should be."""

    code: ClassVar[str] = "access"
    path: str = ""


@dataclass(eq=False, kw_only=True, repr=False)
class BackPressureError(MessagingError):
    """Subscribers do not keep up, and a message was not stored."""

    code: ClassVar[str] = "back-pressure"
    reason: str
    hint: str = "publish less, remove the slow subscriber, or configure overflow='drop_oldest'"

    def describe(self) -> str:
        """Say who is behind."""
        return f"the message was not stored: {self.reason}"


@dataclass(eq=False, kw_only=True, repr=False)
class JournalError(MessagingError):
    """The journal of a message server cannot be read or written; -1 where there is no offset."""

    code: ClassVar[str] = "journal"
    path: str
    reason: str
    offset: int = -1

    def describe(self) -> str:
        """Name the file, the place in it and the reason."""
        where = f" at byte {self.offset:,}" if self.offset >= 0 else ""
        return f"journal {self.path}{where}: {self.reason}"


@dataclass(eq=False, kw_only=True, repr=False)
class PayloadError(MessagingError, ValueError):
    """A payload is not what the format of its message says."""

    code: ClassVar[str] = "payload"
    format: str
    reason: str

    def describe(self) -> str:
        """Name the format and what is wrong."""
        return f"the payload is not a valid {self.format}: {self.reason}"


@dataclass(eq=False, kw_only=True, repr=False)
class PayloadGoneError(PayloadError):
    """A large part of a payload is not to be had any more."""

    code: ClassVar[str] = "payload-gone"
    hint: str = "send it with store=True where it must be readable later than by its subscribers"

    def describe(self) -> str:
        """Name the format and the reason."""
        return f"the payload of a {self.format} is gone: {self.reason}"


@dataclass(eq=False, kw_only=True, repr=False)
class PickleRefusedError(PayloadError):
    """A pickle is neither sent nor opened here."""

    code: ClassVar[str] = "pickle-refused"
    hint: str = "ask for it: @processor(TheClass, pickle=True), or guild.unpickle(message)"

    def describe(self) -> str:
        """Name the format and the reason."""
        return f"a pickled {self.format} is refused: {self.reason}"


@dataclass(eq=False, kw_only=True, repr=False)
class ProtocolError(MessagingError):
    """The other side of a connection broke the wire protocol."""

    code: ClassVar[str] = "protocol"


@dataclass(eq=False, kw_only=True, repr=False)
class MessageTooLargeError(MessagingError, ValueError):
    """A message is larger than the server takes; sizes in bytes."""

    code: ClassVar[str] = "message-too-large"
    size: int
    limit: int
    hint: str = (
        "send it as several messages, or what is large in it as bytes or arrays; or raise "
        "max_frame where the server is started"
    )

    def describe(self) -> str:
        """Name size and limit."""
        return f"a message of {self.size:,} bytes is over the server's limit of {self.limit:,}"
