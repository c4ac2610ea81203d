"""What a program's engines publish of their agents, for engines in other programs of the cluster.

Each program has an actor of its own, on its node, that keeps what was told last of each agent. It
ends with the program, as the agents do, so there is nothing to clean up after a crash.
"""

from __future__ import annotations

import importlib
import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rustic_ai.core.guild.execution.stats import AgentState, ExitReport, ProcessInfo
from rustic_ai.core.guild.spec import AgentSpec, new_id
from rustic_ai.ray.errors import RayUnavailableError
from rustic_ai.ray.installed import NAMESPACE, import_ray

logger = logging.getLogger(__name__)

ASK_DEADLINE = 2.0
"""Seconds in which an actor must answer a question."""
_MARK = "@"
"""Begins no name of an agent's actor."""


@dataclass(frozen=True, slots=True)
class Record:
    """An agent, as far as others are told."""

    guild_id: str
    agent_id: str
    agent_name: str
    spec: bytes
    """Pickled: whoever only counts agents need not import their values."""
    actor_name: str
    state: AgentState
    generation: int
    restarts: int
    started: float | None
    """Seconds since the epoch, of its last actor."""
    pid: int | None
    node: str
    node_address: str
    report: ExitReport | None

    def agent_spec(self) -> AgentSpec:
        """Return the agent's spec."""
        spec: AgentSpec = pickle.loads(self.spec)
        return spec

    def facts(self, seen: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of `ProcessInfo`, and the node.

        Args:
            seen: what the agent's actor says of itself.
        """
        alive = self.state is AgentState.RUNNING
        ended = not alive and self.state not in {AgentState.STARTING, AgentState.STOPPING}
        info = ProcessInfo(
            pid=self.pid,
            is_alive=alive,
            name=self.agent_name,
            status=self.state,
            exitcode=self.report.exitcode if self.report is not None and ended else None,
            uptime=time.time() - self.started if self.started is not None and not ended else None,
            last_exit=self.report,
            generation=self.generation,
            restarts=self.restarts,
        )
        return {
            **info.as_dict(),
            **seen,
            "node": self.node or None,
            "node_address": self.node_address or None,
        }


class DirectoryActor:
    """Keeps what one program says of its agents."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, bytes]] = {}

    def put(self, guild_id: str, agent_id: str, record: bytes) -> None:
        """Take what there is to say of an agent; nothing: it is off the list."""
        guild = self._records.setdefault(guild_id, {})
        guild.pop(agent_id, None)
        if record:
            guild[agent_id] = record
        if not guild:
            del self._records[guild_id]

    def read(self, guild_id: str) -> list[bytes]:
        """Return what was said of the agents of a guild."""
        return list(self._records.get(guild_id, {}).values())

    def hold(self) -> None:
        """Never return: whoever waits for it learns of the end of this process."""
        threading.Event().wait()


class Directory:
    """A program's side of its directory actor, made when there is something to say.

    Words reach the actor in the order in which they were said, by whatever thread.

    Args:
        require: raises `RayUnavailableError` where the cluster is gone.
    """

    def __init__(self, require: Callable[[], None]) -> None:
        self._require = require
        self._lock = threading.Lock()
        self._handle: Any = None
        self._lost: Any = None
        """The last handle of which no actor stands any more; at first, that is none."""
        self._closed = False
        self._engines: list[Callable[[], None]] = []

    def attach(self, tell_again: Callable[[], None]) -> None:
        """Have `tell_again` called where the actor was lost; it must not block."""
        self._engines.append(tell_again)

    def detach(self, tell_again: Callable[[], None]) -> None:
        """Call it no more."""
        self._engines.remove(tell_again)

    def put(self, record: Record) -> None:
        """Say how an agent is."""
        self._put(record.guild_id, record.agent_id, pickle.dumps(record))

    def remove(self, guild_id: str, agent_id: str) -> None:
        """Say that an agent is off the list."""
        self._put(guild_id, agent_id, b"")

    def _put(self, guild_id: str, agent_id: str, record: bytes) -> None:
        with self._lock:
            if self._closed:
                return
            if self._handle is self._lost:
                try:
                    self._require()
                except RayUnavailableError:
                    logger.warning("nobody can be told of agent %s", agent_id, exc_info=True)
                    return
                self._handle = self._create()
            self._handle.put.remote(guild_id, agent_id, record)

    def _create(self) -> Any:
        ray = import_ray()
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        here = strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        actor_class = ray.remote(concurrency_groups={"sentinel": 1})(DirectoryActor)
        handle = actor_class.options(
            name=_MARK + new_id(), namespace=NAMESPACE, num_cpus=0, scheduling_strategy=here
        ).remote()
        held = handle.hold.options(concurrency_group="sentinel").remote()
        held.future().add_done_callback(lambda _: self._is_gone(handle))
        return handle

    def _is_gone(self, handle: Any) -> None:
        """On a thread of Ray's, which must not wait for a lock: who holds it may wait for Ray."""
        self._lost = handle
        if self._closed:
            return
        logger.warning("the directory of agents was lost; another one is made")
        for tell_again in list(self._engines):
            tell_again()

    def close(self) -> None:
        """End the actor."""
        with self._lock:
            self._closed = True
            handle, self._handle = self._handle, None
        if handle is not None:
            import_ray().kill(handle)


def records_of(guild_id: str) -> Iterator[Record]:
    """Read what the programs of the cluster say of the agents of a guild."""
    ray = import_ray()
    handles = []
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(_MARK):
            try:
                handles.append(ray.get_actor(actor["name"], namespace=NAMESPACE))
            except ValueError:  # it has just ended
                logger.debug("the directory %s is gone", actor["name"])
    if not handles:
        return
    references = [handle.read.remote(guild_id) for handle in handles]
    answered, _ = ray.wait(references, num_returns=len(references), timeout=ASK_DEADLINE)
    for reference in answered:
        try:
            records = ray.get(reference)
        except ray.exceptions.RayActorError:  # it has just ended
            logger.debug("a directory ended while it was read", exc_info=True)
            continue
        yield from map(pickle.loads, records)


def look_at(actor_name: str) -> dict[str, Any]:
    """Ask an agent's actor how it is; empty where it does not answer in time."""
    ray = import_ray()
    try:
        handle = ray.get_actor(actor_name, namespace=NAMESPACE)
        asked = handle.look.options(concurrency_group="control").remote()
        facts: dict[str, Any] = ray.get(asked, timeout=ASK_DEADLINE)
    except (ValueError, ray.exceptions.RayError):  # gone, stopped, or C code holds the GIL
        logger.debug("the actor %s does not answer", actor_name, exc_info=True)
        return {}
    return facts
