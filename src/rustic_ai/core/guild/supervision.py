"""How agents are kept alive and in bounds, as specs say it in the words of OTP and systemd."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Restart(StrEnum):
    """After which ends an agent is started again (OTP)."""

    PERMANENT = "permanent"
    """After every end."""
    TRANSIENT = "transient"
    """After every end but a normal one (exit code 0)."""
    TEMPORARY = "temporary"
    """Never: whoever watches decides."""


class Strategy(StrEnum):
    """Which agents of an engine are started again when one is (OTP)."""

    ONE_FOR_ONE = "one_for_one"
    """Only that one."""
    ONE_FOR_ALL = "one_for_all"
    """All: the others are stopped first."""
    REST_FOR_ONE = "rest_for_one"
    """That one and those that were launched after it."""


class RestartPolicy(BaseModel):
    """When an agent that has ended is started again, and when that is given up.

    Ends that were asked for, and a first start that fails, never count. In a spec file the name
    alone will do: ``restart_policy: permanent``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    restart: Restart = Field(
        default=Restart.TRANSIENT, description="'permanent', 'transient' or 'temporary'."
    )
    intensity: Annotated[int, Field(ge=0)] = Field(
        default=3, description="More restarts than this within `period`: give up."
    )
    period: Seconds = Field(default=60.0, description="Seconds in which restarts are counted.")
    backoff: Seconds = Field(
        default=0.1, description="Seconds before the first restart; doubles with each."
    )
    backoff_max: Seconds = Field(default=30.0, description="Longest wait, in seconds.")
    jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.2, description="Share by which waits vary, so that not all return at once."
    )
    stable_after: Seconds = Field(
        default=10.0, description="An agent that ran this many seconds starts over with `backoff`."
    )
    on_give_up: Literal["quarantine", "escalate"] = Field(
        default="quarantine",
        description="'quarantine': it stays FATAL; 'escalate': all agents of its engine end, too.",
    )
    quarantine: Seconds = Field(
        default=0.0, description="Seconds after which a FATAL agent gets one more try; 0: never."
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"restart": value} if isinstance(value, str) else value

    @classmethod
    def of(cls, value: RestartPolicy | str | dict[str, Any]) -> RestartPolicy:
        """Take a policy, the name of a restart, or a dict of its fields."""
        return cls.model_validate(value)


TEMPORARY = RestartPolicy(restart=Restart.TEMPORARY)


class ResourceLimits(BaseModel):
    """What an agent's process may use. Memory is in bytes, time in seconds.

    An agent that reaches `max_messages` or `max_age` is replaced between two messages; that is
    no failure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory: Annotated[int, Field(gt=0)] | None = Field(
        default=None,
        description="Resident bytes above which it is killed; looked at four times a second.",
    )
    address_space: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="RLIMIT_AS: allocating more raises MemoryError in the agent."
    )
    cpu_seconds: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="RLIMIT_CPU: SIGXCPU after this much CPU time."
    )
    open_files: Annotated[int, Field(gt=16)] | None = Field(
        default=None, description="RLIMIT_NOFILE."
    )
    nice: Annotated[int, Field(ge=-20, le=19)] | None = Field(
        default=None, description="Niceness; below 0 needs privileges."
    )
    cpu_affinity: frozenset[int] | None = Field(
        default=None, min_length=1, description="CPUs it may run on."
    )
    oom_score_adj: Annotated[int, Field(ge=-1000, le=1000)] = Field(
        default=500,
        description="How gladly the kernel's memory killer takes it before the program.",
    )
    max_messages: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="Messages after which a fresh process takes over."
    )
    max_age: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Seconds after which a fresh process takes over."
    )

    @property
    def recycles(self) -> bool:
        """Whether processes are replaced by fresh ones."""
        return self.max_messages is not None or self.max_age is not None


NO_LIMITS = ResourceLimits()
