"""Kills agents, their nursery and the message server at random under load, and looks what is left.

Ends with 0 where every agent runs, or is FATAL because its policy says so, all that run answer,
and nothing is left behind; otherwise with 1 and what is wrong. The same seed chooses the same
victims in the same order; when they die depends on the machine.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel

from rustic_ai.core.errors import GuildError, MessagingError, RequestTimeoutError
from rustic_ai.core.guild import Agent, AgentBuilder, AgentSpec, Guild, ProcessContext
from rustic_ai.core.guild.agent import processor
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.execution.stats import AgentEvent
from rustic_ai.core.guild.supervision import Restart, RestartPolicy
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config
from rustic_ai.core.messaging.backend.embedded_backend.access import clean_dead
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator
from rustic_ai.core.settings import RUNTIME_DIR_VARIABLE
from rustic_ai.core.testing.leaks import LeakCheck

GUILD = "soak"
STURDY = [f"sturdy-{n}" for n in range(8)]
"""Agents that come back whatever happens."""
FRAGILE = "fragile"
"""An agent that gives up after a few deaths; FATAL is where it is meant to end."""
AGENTS = [*STURDY, FRAGILE]
FOR_EVER = RestartPolicy(
    restart=Restart.PERMANENT, intensity=1_000_000, backoff=0.02, backoff_max=0.1
)
SOON_OVER = RestartPolicy(restart=Restart.PERMANENT, intensity=3, backoff=0.02)
WEIGHTS = {"agent": 87, "nursery": 10, "server": 3}
"""How often each is killed, of a hundred."""
LONGEST_PAUSE = 0.3
ANSWER_WITHIN = 0.3
SETTLE_WITHIN = 30.0
REPORT_EVERY = 5.0
HANG_AFTER = 120.0
"""Seconds beyond the planned ones after which the soak itself counts as hanging."""
PUBLISHERS = 3
PRELOAD = [
    "rustic_ai.core.guild.execution.multiprocess",
    "rustic_ai.core.testing.leaks",
    "subprocess",
    "tempfile",
]
"""What agents import with this file, which they do for their class."""
SERVER = (
    "from rustic_ai.core.messaging.backend.embedded_backend.server_process import main;"
    "main('localhost', {port},{{}})"
)


class Question(BaseModel):
    """Wants an answer, and to be talked of among so many agents."""

    hops: int


class Gossip(BaseModel):
    """Goes from agent to agent, so many times more."""

    hops: int


class Done(BaseModel):
    """An answer."""

    pid: int


class RelayAgent(Agent):
    """Answers questions, and passes gossip on."""

    @processor(Question)
    def answer(self, ctx: ProcessContext[Question]) -> None:
        """Answer, and tell another."""
        ctx.send(Done(pid=os.getpid()))
        self._tell(ctx, ctx.payload.hops)

    @processor(Gossip)
    def pass_on(self, ctx: ProcessContext[Gossip]) -> None:
        """Tell another, unless it was told enough."""
        self._tell(ctx, ctx.payload.hops)

    def _tell(self, ctx: ProcessContext[Any], hops: int) -> None:
        if hops:
            other = GuildTopics.get_agent_inbox(random.choice(AGENTS))  # noqa: S311 - no secret
            ctx.send(Gossip(hops=hops - 1), topics=other)


def specs() -> list[AgentSpec]:
    """Return the agents; the fragile one has a policy of its own."""
    made = [AgentBuilder(RelayAgent).set_id(n).set_name(n).build_spec() for n in AGENTS]
    return [
        spec.model_copy(update={"restart_policy": SOON_OVER}) if spec.id == FRAGILE else spec
        for spec in made
    ]


class MessageServer:
    """The message server, a child of this program, always on the same port."""

    def __init__(self) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER.format(port=self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        said = process.stdout.readline()
        if b'"port"' not in said:
            process.kill()
            process.communicate()
            raise RuntimeError(f"the message server does not start: {said.decode()}")
        return process

    def kill_and_restart(self) -> None:
        """Kill it, and start another in its place."""
        self.close()
        self._process = self._start()

    def close(self) -> None:
        """Kill it, and remove what it could not remove itself."""
        self._process.kill()
        self._process.communicate()
        clean_dead()


class Messages:
    """The program's part in the messages; joined anew after each death of the server."""

    def __init__(self, port: int) -> None:
        self.config = create_embedded_messaging_config(port=port, auto_start_server=False)
        self.guild = Guild(GUILD, None, self.config)

    def join_again(self) -> None:
        """Leave the server that died, and join its successor."""
        old, self.guild = self.guild, Guild(GUILD, None, self.config)
        old.shutdown()

    def close(self) -> None:
        """Leave."""
        self.guild.shutdown()


class Load:
    """Threads that ask agents at random, and count what they hear."""

    def __init__(self, messages: Messages, seed: int) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self._messages = messages
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(seed + n),), name=f"load-{n}")  # noqa: S311
            for n in range(PUBLISHERS)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, chance: random.Random) -> None:
        while not self._end.is_set():
            try:
                self._ask_one(chance.choice(STURDY), chance.randrange(4))
            except Exception as e:  # noqa: BLE001 - told at the end, whatever it is
                self.failures.append(f"a publisher met {type(e).__name__}: {e}")
                return

    def _ask_one(self, name: str, hops: int) -> None:
        inbox = GuildTopics.get_agent_inbox(name)
        try:
            self._messages.guild.request(Question(hops=hops), inbox, timeout=ANSWER_WITHIN)
            self.counts["answered"] += 1
        except RequestTimeoutError:
            self.counts["unanswered"] += 1  # whoever had it in hand, or the server, was killed
        except MessagingError:
            self.counts["refused"] += 1
            self._end.wait(0.05)  # the server is gone; the next is on its way

    def stop(self) -> None:
        """End the threads."""
        self._end.set()
        for thread in self._threads:
            thread.join()


class Soak:
    """One run."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.killed: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self._seconds = seconds
        self._seed = seed
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._gave_up: set[str] = set()

    def run(self) -> None:
        """Start everything, kill, let it settle, look, end everything."""
        server = MessageServer()
        messages = Messages(server.port)
        with contextlib.ExitStack() as stack:
            stack.callback(server.close)
            stack.callback(messages.close)
            engine = stack.enter_context(
                MultiProcessExecutionEngine(
                    GUILD,
                    len(AGENTS),
                    restart_policy=FOR_EVER,
                    preload=PRELOAD,
                    log_forwarding=True,
                )
            )
            engine.add_event_listener(self._hear)
            launching = stack.enter_context(Guild(GUILD, engine, messages.config))
            launching.launch_agents(specs())
            load = Load(messages, self._seed)
            stack.callback(load.stop)
            self._kill_at_random(engine, server, messages, load)
            load.stop()
            self.problems += load.failures
            self._settle(engine)
            self._ask_all(engine, messages.guild)
            self._tell("end", engine, load)
            if not load.counts["answered"]:
                self.problems.append("no message was answered: there was no load")

    def _hear(self, event: AgentEvent) -> None:
        if event.report is not None and event.report.gave_up:
            self._gave_up.add(event.agent_id)

    # Killing

    def _kill_at_random(
        self,
        engine: MultiProcessExecutionEngine,
        server: MessageServer,
        messages: Messages,
        load: Load,
    ) -> None:
        begin = told = time.monotonic()
        while (now := time.monotonic()) - begin < self._seconds:
            if now - told >= REPORT_EVERY:
                told = now
                self._tell(f"{now - begin:3.0f} s", engine, load)
            (kind,) = self._chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
            if kind == "server":
                self.killed[kind] += 1
                server.kill_and_restart()
                messages.join_again()
            elif kind == "nursery":
                self._kill_nursery()
            else:
                self._kill_agent(engine)
            time.sleep(self._chance.random() * LONGEST_PAUSE)

    def _kill_nursery(self) -> None:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(part.startswith("rustic-nursery:") for part in child.cmdline()):
                    child.kill()
                    self.killed["nursery"] += 1

    def _kill_agent(self, engine: MultiProcessExecutionEngine) -> None:
        """Kill one that runs, or is just starting."""
        info = engine.get_process_info(GUILD, self._chance.choice(AGENTS))
        if info["pid"] is not None and info["status"] in {"RUNNING", "STARTING"}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(info["pid"], signal.SIGKILL)
                self.killed["agent"] += 1

    def _tell(self, when: str, engine: MultiProcessExecutionEngine, load: Load) -> None:
        stats = engine.get_engine_stats()
        kills = ", ".join(f"{self.killed[kind]} {kind}" for kind in WEIGHTS)
        states = ", ".join(f"{count} {state}" for state, count in sorted(stats["states"].items()))
        counts = ", ".join(f"{n} {what}" for what, n in sorted(load.counts.items()))
        print(
            f"{when}: killed {kills}; {stats['restarts']} restarts; messages: {counts}; {states}",
            flush=True,
        )

    # Looking

    def _settle(self, engine: MultiProcessExecutionEngine) -> None:
        deadline = time.monotonic() + SETTLE_WITHIN
        while wrong := self._not_settled(engine):
            if time.monotonic() > deadline:
                self.problems += wrong
                return
            time.sleep(0.05)

    def _not_settled(self, engine: MultiProcessExecutionEngine) -> list[str]:
        wrong = []
        for name in AGENTS:
            status = engine.get_process_info(GUILD, name)["status"]
            by_policy = name == FRAGILE and name in self._gave_up
            if status != "RUNNING" and not (status == "FATAL" and by_policy):
                report = engine.get_exit_report(GUILD, name)
                ending = report.details() if report is not None else "it has never ended"
                wrong.append(
                    f"agent {name!r} is {status} {SETTLE_WITHIN:g} s after the last kill; {ending}"
                )
        return wrong

    def _ask_all(self, engine: MultiProcessExecutionEngine, guild: Guild) -> None:
        for name in AGENTS:
            if engine.is_agent_running(GUILD, name):
                try:
                    guild.request(Question(hops=0), GuildTopics.get_agent_inbox(name), timeout=10)
                except GuildError as e:
                    self.problems.append(f"agent {name!r} is RUNNING and does not answer: {e}")


class LastRecords(logging.Handler):
    """Keeps the last log records, for whoever has to find out what went wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.lines: collections.deque[str] = collections.deque(maxlen=200)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.lines.append(self.format(record))


@contextlib.contextmanager
def leak_check() -> Iterator[list[str]]:
    """Look before and after; the list that is yielded has at the end what was left behind."""
    left: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rustic-soak-") as runtime:
        os.environ[RUNTIME_DIR_VARIABLE] = runtime
        GemstoneGenerator().get_id()  # leases the machine number, which is held for good
        check = LeakCheck(directories=(Path(runtime),))
        before = check.look()
        yield left
        left += [f"left behind: {what}" for what in check.left_behind(before, timeout=5)]


def main() -> int:
    """Run, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=None, help="default: another each time")
    given = parser.parse_args()
    seed = random.randrange(1 << 32) if given.seed is None else given.seed  # noqa: S311
    print(f"soak of {given.seconds:g} s, seed {seed}", flush=True)
    faulthandler.dump_traceback_later(given.seconds + HANG_AFTER, exit=True)
    records = LastRecords()
    logging.basicConfig(level=logging.WARNING, handlers=[records])
    soak = Soak(seed, given.seconds)
    with leak_check() as left:
        soak.run()
    problems = soak.problems + left
    if problems:
        print("the last log records:", *records.lines, sep="\n  ")
        print(f"FAILED, seed {seed}:", *problems, sep="\n  ")
        return 1
    print(f"well: every agent is as its policy wants, nothing is left (seed {seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
