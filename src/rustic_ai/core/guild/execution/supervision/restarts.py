"""Whether an agent that has ended is started again: a pure function of policy, past and now."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rustic_ai.core.guild.supervision import Restart, RestartPolicy


@dataclass(frozen=True, slots=True)
class RestartHistory:
    """What counts of an agent's past: moments of its restarts, and how many in a row."""

    restarts: tuple[float, ...] = ()
    streak: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now; `delay` in seconds, None where it is not started again."""

    delay: float | None
    gives_up: bool
    history: RestartHistory


def decide(
    policy: RestartPolicy,
    history: RestartHistory,
    *,
    normal: bool,
    lived: float,
    now: float,
    chance: float = 0.5,
) -> Decision:
    """Decide after an end that nobody asked for.

    As OTP's supervisor: more than `intensity` restarts within `period` give up. The waits double
    as those of supervisord and systemd (RestartSteps), up to `backoff_max`.

    Args:
        policy: what is wanted.
        history: the past, as the last decision left it.
        normal: whether it ended with exit code 0.
        lived: seconds from ready to its end.
        now: seconds on any clock that does not step.
        chance: a random number in [0, 1) for the jitter; 0.5 means none.
    """
    if policy.restart is Restart.TEMPORARY or (policy.restart is Restart.TRANSIENT and normal):
        return Decision(None, gives_up=False, history=history)
    streak = 0 if lived >= policy.stable_after else history.streak
    recent = tuple(at for at in history.restarts if now - at <= policy.period)
    if len(recent) >= policy.intensity:
        return Decision(None, gives_up=True, history=RestartHistory())
    delay = min(policy.backoff_max, math.ldexp(policy.backoff, min(streak, 64)))
    delay *= 1 + policy.jitter * (2 * chance - 1)
    return Decision(delay, gives_up=False, history=RestartHistory((*recent, now), streak + 1))
