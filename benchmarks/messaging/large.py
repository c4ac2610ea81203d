"""Large arrays from agent to agent: in shared memory, written in place, and in the message."""

from __future__ import annotations

from benchmarks.messaging.agent_roles import RESULTS, Trips
from benchmarks.messaging.agents import guild_of
from benchmarks.messaging.large_roles import ARRAYS, SUMS, Adder, Feed, Feeder, Peeker

_DEADLINE = 120.0
_WARM_UP = 3
"""Trips that are not counted: the pages of a slot are touched first then."""


def hand_over(n: int, size: int, *, in_place: bool = False, shared: bool = True) -> list[float]:
    """Return the seconds that each of `n` arrays took to be sent, received and answered.

    The receiver sums the array; of one that was written in place it reads the last number only.
    """
    settings = {} if shared else {"shared_memory": 0}
    eater = Peeker if in_place else Adder
    with (
        guild_of((Feeder, "feeder", SUMS), (eater, "eater", ARRAYS), **settings) as guild,
        guild.collect(RESULTS) as heard,
    ):
        wanted = Feed(n=n + _WARM_UP, size=size, in_place=in_place)
        guild.publish(wanted, topics="agent_inbox:feeder")
        (answer,) = heard.take(1, _DEADLINE)
        return Trips.model_validate(answer.payload).seconds[_WARM_UP:]
