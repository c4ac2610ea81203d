"""How many messages arrive in a second."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.peers.peer import Peer
from benchmarks.workloads.findings import Findings
from benchmarks.workloads.workload import Make, Measure, Workload

_SINGLE, _TOGETHER = "one to one, sent one by one", "one to one, sent together"
_FAN = "one to eight, sent one by one"
_FAN_TOGETHER = "one to eight, sent together"
_CASES = {
    _SINGLE: (1, False),
    _TOGETHER: (1, True),
    _FAN: (8, False),
    _FAN_TOGETHER: (8, True),
}
_PROBE = 500


def _measure(make: Make, sizes: dict[str, Any]) -> Findings:
    found = Findings()
    with make() as peer:
        for name, (receivers, together) in _CASES.items():
            batch = sizes["batch"] if together else 1
            found.add_all((name,), partial(_rate, peer, sizes, name, receivers, batch))
    return found


def _rate(
    peer: Peer, sizes: dict[str, Any], name: str, receivers: int, batch: int
) -> dict[str, float | str]:
    def rate(n: int) -> float:
        return n * receivers / peer.flow(n, sizes["size"], receivers, batch)

    n = max(_PROBE, int(rate(_PROBE) * sizes["seconds"] / receivers))
    return {name: rate(n // _PROBE * _PROBE)}


WORKLOAD = Workload(
    title="Throughput",
    text="Messages of 200 letters that arrive in a second: from the first send until every "
    "receiver has handled the last; with several receivers, deliveries are counted. A short run, "
    "which is not counted, says how many messages fill the time. Sent one by one: each by a call "
    "of its own. Sent together: 500 at once by whatever the peer offers for that (ours: within "
    "one handler; others: a pipeline, one pickle, `map` with chunks, `batch`).",
    measures=tuple(Measure(name, "msg/s", more_is_better=True) for name in _CASES),
    measure=_measure,
    quick={"seconds": 0.05, "batch": 500, "size": 200},
    full={"seconds": 1.0, "batch": 500, "size": 200},
)
