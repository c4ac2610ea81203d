"""Large arrays from agent to agent: in shared memory, written in place, and in the message."""

from __future__ import annotations

from benchmarks.messaging.agent_roles import RESULTS, Trips
from benchmarks.messaging.agents import guild_of
from benchmarks.messaging.large_roles import ARRAYS, NUMBERS, LookAs, Looker, Offerer, Offers
from benchmarks.peers.looks import Look

_DEADLINE = 120.0


def hand_over(
    n: int, size: int, look: Look, *, in_place: bool = False, shared: bool = True
) -> list[float]:
    """Return the seconds that each of `n` arrays took to be sent, looked at and answered.

    Args:
        n: how many.
        size: of each, in bytes.
        look: what the receiver does.
        in_place: each is made where it is sent from; else it is copied there.
        shared: whether there is shared memory; else they travel in the message.
    """
    settings = {} if shared else {"shared_memory": 0}
    pair = (Offerer, "offerer", NUMBERS), (Looker, "looker", ARRAYS)
    with guild_of(*pair, **settings) as guild, guild.collect(RESULTS) as heard:
        guild.publish(LookAs(look=look), topics="agent_inbox:looker")
        heard.take(1, _DEADLINE)
        guild.publish(Offers(n=n, size=size, in_place=in_place), topics="agent_inbox:offerer")
        (answer,) = heard.take(1, _DEADLINE)
        return Trips.model_validate(answer.payload).seconds
