"""This library, used as anybody would use it."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.messaging import agents as flows
from benchmarks.messaging.agent_roles import RESULTS
from benchmarks.peers import jobs
from benchmarks.peers.looks import Look
from benchmarks.peers.ours_agents import Darts, Hello, Nap, Spin, Worker
from benchmarks.peers.peer import PATIENCE, Crash, Peer, now
from rustic_ai.core.guild import AgentBuilder, AgentSpec, Guild, GuildTopics
from rustic_ai.core.guild.builders import GuildBuilder
from rustic_ai.core.guild.execution.multiprocess import MultiProcessExecutionEngine
from rustic_ai.core.guild.execution.stats import AgentEvent, AgentState
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config

_GUILD = "bench"
_MOST_AGENTS = 128
_FREE_RUNNING = 1
_DEAD = {AgentState.EXITED, AgentState.BACKOFF}


class Ours(Peer):
    """A guild with the multiprocess engine and the embedded server."""

    def __init__(self) -> None:
        logging.getLogger("rustic_ai").setLevel(logging.CRITICAL)  # that agents die is the plan
        self._stack = contextlib.ExitStack()
        self._policy = "temporary"

    def start(self) -> None:
        """Start nursery and server: an agent is launched, and ended."""
        engine = MultiProcessExecutionEngine(
            _GUILD,
            max_processes=_MOST_AGENTS,
            restart_policy=self._policy,
            preload=["benchmarks.peers.ours_agents"],
        )
        self._engine = self._stack.enter_context(engine)
        messaging = create_embedded_messaging_config(port=0)
        self._guild = self._stack.enter_context(Guild(_GUILD, engine, messaging))
        (first,) = _specs(1)
        self._guild.launch_agent(first)
        self._guild.remove_agent(first.id)

    def stop(self) -> None:
        """Shut the guild down."""
        self._stack.close()

    def launch(self, count: int) -> list[int]:
        """Launch them all at once, and have each say its pid."""
        wanted = _specs(count)
        with self._guild.collect(RESULTS) as heard:
            self._guild.launch_agents(wanted)
            for spec in wanted:
                self._guild.publish(Hello(), topics=_inbox(spec.id))
            return [message.payload["pid"] for message in heard.take(count, PATIENCE)]

    def keep_busy(self) -> None:
        """Leave the first one in a handler."""
        self._guild.publish(Spin(), topics=_inbox("a0"))

    def trips(self, n: int, size: int) -> list[float]:
        """Ping between two agents."""
        return flows.ping(n, size=size)

    def flow(self, n: int, size: int, receivers: int, batch: int) -> float:
        """Send from an agent: together from within handlers, else from a thread beside them."""
        free = batch == _FREE_RUNNING
        return n * receivers / flows.talk(n, free=free, size=size, sinks=receivers).rate

    def arrays(self, size: int, n: int, look: Look, *, in_place: bool) -> list[float]:
        """Send as they are, or from `ctx.allocate`."""
        from benchmarks.messaging import large

        return large.hand_over(n, size, look, in_place=in_place)

    def work(self, job: str, parts: Sequence[Any]) -> tuple[list[Any], float]:
        """Have two agents throw darts; or run the guild of examples/census, whose clock counts."""
        return _census(parts) if job == "census" else self._throw(parts)

    def _throw(self, parts: Sequence[tuple[int, int]]) -> tuple[list[Any], float]:
        self.launch(len(parts))
        with self._guild.collect(RESULTS) as heard:
            begun = now()
            for number, (seed, darts) in enumerate(parts):
                self._guild.publish(Darts(seed=seed, darts=darts), topics=_inbox(f"a{number}"))
            answers = heard.take(len(parts), PATIENCE)
            return [answer.payload["inside"] for answer in answers], now() - begun

    def crash(self, calls: int, seconds: float) -> Crash:
        """With `restart_policy="permanent"` and all its defaults, so a wait of 0.1 s is in it."""
        self.stop()
        self._policy = "permanent"
        self.start()
        (pid,) = self.launch(1)
        events: queue.SimpleQueue[tuple[float, AgentEvent]] = queue.SimpleQueue()
        self._engine.add_event_listener(lambda event: events.put((now(), event)))
        with self._guild.collect(RESULTS) as heard:
            for number in range(calls):
                self._guild.publish(Nap(number=number, seconds=seconds), topics=_inbox("a0"))
            answered = {m.payload["number"] for m in heard.take(calls // 4, PATIENCE)}
            killed = now()
            os.kill(pid, signal.SIGKILL)
            recovered = 0.0
            while len(answered) < calls:
                answer = heard.next(calls * seconds + 2)
                if answer is None:
                    break
                answered.add(answer.payload["number"])
                if not recovered and answer.payload["pid"] != pid:
                    recovered = now() - killed
        told_at, event = events.get(timeout=PATIENCE)
        while event.state not in _DEAD:
            told_at, event = events.get(timeout=PATIENCE)
        return Crash(told_at - killed, recovered, calls - len(answered))


def _specs(count: int) -> list[AgentSpec]:
    names = [f"a{number}" for number in range(count)]
    return [AgentBuilder(Worker).set_id(name).set_name(name).build_spec() for name in names]


def _inbox(agent_id: str) -> str:
    return GuildTopics.get_agent_inbox(agent_id)


def _census(parts: Sequence[Any]) -> tuple[list[Any], float]:
    from examples.census.__main__ import census_guild
    from examples.census.results import Census

    folder = Path(parts[0][0])
    spec = census_guild(folder, jobs.WORKERS, "multiprocess")
    with GuildBuilder.from_spec(spec).launch() as guild:
        found = guild.wait().result
    census = Census.model_validate(found)
    return [[*census.modules, *census.unparsable]], float(found["seconds"])
