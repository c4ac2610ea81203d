"""The steps of a typed message that no framework over pydantic and msgspec can spare.

Timed hot, one after the other, in one process: a lower bound of the CPU that a message takes from a
handler to a handler, and so, with the machine's cores, an upper bound of their rate.
"""

from __future__ import annotations

import contextlib
import os
import socket
import timeit
from collections.abc import Callable

from benchmarks.messaging.agent_roles import Item
from rustic_ai.core.messaging.core.envelope import (
    AgentTag,
    Envelope,
    decode_envelope,
    encode_envelope,
)
from rustic_ai.core.messaging.core.payload import Encoding

_TIMES, _ROUNDS = 20_000, 5
_TOGETHER = 128
"""Messages that pass a socket in one piece, as they do from within handlers."""
_HOPS = 2


def steps() -> dict[str, float]:
    """Return each step's microseconds: the best of some rounds, since a bound is wanted."""
    item = Item(number=1, text="x" * 170)
    to_json, validator = item.__pydantic_serializer__.to_json, Item.__pydantic_validator__
    payload, tag = to_json(item), AgentTag("source", "source")

    def enveloped() -> Envelope:
        return Envelope(1 << 60, tag, ("items",), "Item", Encoding.JSON, payload, None, (1 << 60,))

    envelope = enveloped()
    data = encode_envelope(envelope)
    return {
        "the sender makes its model": _best(lambda: Item(number=1, text="x" * 170)),
        "model to JSON": _best(lambda: to_json(item)),
        "envelope made": _best(enveloped),
        "envelope to bytes": _best(lambda: encode_envelope(envelope)),
        "socket to server, socket to receiver": _sockets(len(data)),
        "bytes to envelope": _best(lambda: decode_envelope(data)),
        "JSON to model": _best(lambda: validator.validate_json(payload)),
    }


def bound(parts: dict[str, float]) -> float:
    """Return how many messages a second all cores could take if there was nothing else."""
    return (os.cpu_count() or 1) / sum(parts.values()) * 1e6


def _sockets(size: int) -> float:
    here, there = socket.socketpair()
    with contextlib.closing(here), contextlib.closing(there):
        run, buffer = bytes(size * _TOGETHER), bytearray(size * _TOGETHER)

        def hop() -> None:
            here.sendall(run)
            there.recv_into(buffer)

        return _best(hop, _TIMES // _TOGETHER) * _HOPS / _TOGETHER


def _best(step: Callable[[], object], times: int = _TIMES) -> float:
    return min(timeit.repeat(step, number=times, repeat=_ROUNDS)) / times * 1e6
