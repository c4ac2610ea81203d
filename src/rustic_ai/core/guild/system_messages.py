"""Messages that guilds and agents exchange about themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _SystemMessage(BaseModel):
    model_config = ConfigDict(frozen=True)


class GuildStarted(_SystemMessage):
    """All agents of the guild are up; sent to every agent, so that one of them can begin."""

    guild_id: str
    agents: dict[str, str] = Field(description="Agent id -> name, in the order of their start.")


class ProgressReport(_SystemMessage):
    """How far the guild's work is."""

    done: float
    total: float | None = Field(default=None, description="None where it is not known yet.")
    note: str = ""


class GuildFinished(_SystemMessage):
    """The guild's work is done."""

    success: bool = True
    result: dict[str, Any] = Field(default_factory=dict)


class ErrorMessage(_SystemMessage):
    """A handler failed; the agent lives on."""

    agent_id: str
    agent_name: str
    error_type: str = Field(description="Class name of the exception.")
    message: str = Field(description="Its text.")
    traceback: str = ""
    processor: str = Field(default="", description="Method that failed, where it got that far.")
    failed_format: str = Field(description="Format of the message in hand.")
    failed_message_id: int
