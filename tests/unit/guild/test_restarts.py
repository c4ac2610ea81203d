"""The decision after a death, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rustic_ai.core.guild.execution.supervision.restarts import RestartHistory, decide
from rustic_ai.core.guild.spec import AgentSpec, GuildProperties
from rustic_ai.core.guild.supervision import ResourceLimits, Restart, RestartPolicy

PLAIN = RestartPolicy(
    restart="permanent", intensity=3, period=60, backoff=1, backoff_max=5, jitter=0, stable_after=10
)
BURNT = RestartHistory((90.0, 95.0, 99.0), 3)


@pytest.mark.parametrize(
    ("restart", "normal", "again"),
    [
        ("permanent", True, True),
        ("permanent", False, True),
        ("transient", True, False),
        ("transient", False, True),
        ("temporary", True, False),
        ("temporary", False, False),
    ],
)
def test_who_is_started_again(restart: str, normal: bool, again: bool) -> None:
    """OTP's three words."""
    policy = RestartPolicy(restart=restart)
    decision = decide(policy, RestartHistory(), normal=normal, lived=1, now=100)
    assert (decision.delay is not None) is again
    assert not decision.gives_up


@pytest.mark.parametrize(
    ("history", "lived", "delay"),
    [
        (RestartHistory(), 0, 1),
        (RestartHistory((99.0,), 1), 0, 2),
        (RestartHistory((98.0, 99.0), 2), 0, 4),
        (RestartHistory((), 3), 0, 5),
        (RestartHistory((), 5000), 0, 5),
        (RestartHistory((99.0,), 1), 10, 1),
        (BURNT, 0, None),
        (BURNT, 10, None),
        (RestartHistory((30.0, 35.0, 39.0), 3), 0, 5),
        (RestartHistory((30.0, 95.0, 99.0), 3), 0, 5),
        (RestartHistory((40.0, 95.0, 99.0), 3), 0, None),
    ],
    ids=[
        "first wait",
        "doubles",
        "doubles again",
        "at most backoff_max",
        "never overflows",
        "a stable run starts over",
        "intensity reached",
        "a stable run does not forgive intensity",
        "old restarts are forgotten",
        "only those in the period count",
        "the edge of the period counts",
    ],
)
def test_when_it_is_started_again(
    history: RestartHistory, lived: float, delay: float | None
) -> None:
    """Waits double; more than `intensity` restarts within `period` give up."""
    decision = decide(PLAIN, history, normal=False, lived=lived, now=100)
    assert decision.delay == delay
    assert decision.gives_up is (delay is None)


def test_after_giving_up_the_past_is_forgotten() -> None:
    """A quarantined agent that gets one more try has all of them."""
    assert decide(PLAIN, BURNT, normal=False, lived=0, now=100).history == RestartHistory()


def test_no_intensity_gives_up_at_once() -> None:
    """`intensity` 0 allows no restart."""
    never = RestartPolicy(restart="permanent", intensity=0)
    assert decide(never, RestartHistory(), normal=False, lived=0, now=0).gives_up


@given(
    chance=st.floats(0, 1, exclude_max=True),
    streak=st.integers(0, 10_000),
    jitter=st.floats(0, 1),
    backoff=st.floats(0, 100),
)
def test_waits_stay_in_bounds(chance: float, streak: int, jitter: float, backoff: float) -> None:
    """Whatever the past: the wait is within the jitter around at most `backoff_max`."""
    policy = RestartPolicy(backoff=backoff, backoff_max=30, jitter=jitter)
    history = RestartHistory((), streak)
    decision = decide(policy, history, normal=False, lived=0, now=0, chance=chance)
    assert decision.delay is not None
    assert 0 <= decision.delay <= 30 * (1 + jitter)


def test_policies_in_specs() -> None:
    """The name of a restart alone is a policy; unknown words are refused."""
    assert GuildProperties(restart_policy="permanent").restart_policy.restart is Restart.PERMANENT
    spec = AgentSpec(name="a", class_name="x.Y", restart_policy={"restart": "transient"})
    assert spec.restart_policy == RestartPolicy()
    with pytest.raises(ValidationError, match="'permanent', 'transient' or 'temporary'"):
        RestartPolicy.of("always")
    with pytest.raises(ValidationError, match="intensty"):
        RestartPolicy.of({"intensty": 3})
    with pytest.raises(ValidationError, match="less than or equal to 19"):
        ResourceLimits(nice=20)
