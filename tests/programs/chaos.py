"""A program with agents that are hard to end; ends, or is ended, as a test wants.

Arguments: port, start method, and what to set up: everything | no-daemon | in-thread | sixty |
hanging. Prints a JSON line with the pids of its agents and theirs, then does what it reads: a
word a line. End of input is "return".
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any

from rustic_ai.core.errors import AgentStartError
from rustic_ai.core.guild import Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.execution.stats import AgentEvent, AgentState
from rustic_ai.core.guild.supervision import ResourceLimits
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.testing.waiting import wait_until
from tests.misbehaving import HangingStartAgent
from tests.programs.cast import ClingingAgent
from tests.support import embedded, spec_of

BUSY = {"looping": "spin", "holding": "hold_the_gil", "deaf": "be_deaf"}
HAVING = {"parent": "have_children", "ancestor": "have_a_daemon"}
DIES_AT = 10


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


class Program:
    """A guild, and what is done with it."""

    def __init__(self, port: int, method: Any, limit: int = 60) -> None:
        self.engine = MultiProcessExecutionEngine(
            "chaos", limit, start_method=method, stop_timeout=0.5, heartbeat_timeout=None
        )
        self.guild = Guild("chaos", self.engine, embedded(port))

    def ask(self, name: str, what: str) -> Any:
        inbox = GuildTopics.get_agent_inbox(name)
        return self.guild.request({"do": what}, inbox).payload["result"]

    def set_up(self, *, without: str = "") -> None:
        """Launch the cast, and return once each does its worst."""
        names = {"idle", *BUSY, *HAVING} - {without}
        specs = {name: spec_of(ClingingAgent, name) for name in sorted(names)}
        patient = {"limits": ResourceLimits(nice=19)}  # it loops, but need not take all of a CPU
        specs["looping"] = specs["looping"].model_copy(update=patient)
        self.guild.launch_agents(list(specs.values()))
        for name, what in BUSY.items():
            self.guild.publish({"do": what}, GuildTopics.get_agent_inbox(name))
        theirs = {name: self.ask(name, HAVING[name]) for name in sorted(names & HAVING.keys())}
        infos = {name: self.engine.get_process_info("chaos", name) for name in names}
        for name in BUSY:
            wait_until(lambda n=name: self.engine.get_process_info("chaos", n)["busy_for"])  # type: ignore[misc]
        say(agents={name: info["pid"] for name, info in infos.items()}, theirs=theirs)

    def obey(self) -> None:
        """Do what comes in, until it is to end."""
        while (word := sys.stdin.readline().strip()) not in {"", "return"}:
            getattr(self, "do_" + word)()

    def do_ask(self) -> None:
        say(idle=self.ask("idle", "tell")["pid"])

    def do_shutdown(self) -> None:
        self.guild.shutdown()
        say(down=True)

    def do_fork(self) -> None:
        if (pid := os.fork()) == 0:
            while True:
                signal.pause()
        say(fork=pid)

    def do_raise(self) -> None:
        raise RuntimeError("on purpose")

    def do_exit(self) -> None:
        sys.exit(3)

    def do_vanish(self) -> None:
        os._exit(4)

    def when_running(self, count: int) -> threading.Event:
        """Return what is set, on the thread that is told, once so many agents are ready."""
        reached = threading.Event()
        ready: set[str] = set()

        def told(event: AgentEvent) -> None:
            if event.state is AgentState.RUNNING:
                ready.add(event.agent_id)
                if len(ready) == count:
                    reached.set()

        self.engine.add_event_listener(told)
        return reached

    def launch_sixty(self) -> None:
        """Be gone in the middle of it."""
        reached = self.when_running(DIES_AT)

        def die() -> None:
            reached.wait()
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=die, daemon=True).start()
        self.guild.launch_agents([spec_of(ClingingAgent, f"a{n}") for n in range(60)])
        say(all_started=True)

    def shut_down_while_some_hang(self) -> None:
        """Launch twenty, every other one of which hangs, and shut down meanwhile."""
        kinds = (HangingStartAgent, ClingingAgent)
        specs = [spec_of(kinds[n % 2], f"a{n}") for n in range(20)]
        reached = self.when_running(2)
        failed: list[BaseException] = []

        def launch() -> None:
            try:
                self.guild.launch_agents(specs)
            except* AgentStartError as group:
                failed.extend(group.exceptions)

        thread = threading.Thread(target=launch)
        thread.start()
        reached.wait()
        self.guild.shutdown()
        thread.join()
        say(failed=len(failed))


def in_thread(port: int, method: str) -> Program:
    """Have everything made by a thread that ends."""
    made: list[Program] = []

    def make() -> None:
        made.append(Program(port, method))
        made[0].set_up()

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def main(port: int, method: str, what: str) -> None:
    program = in_thread(port, method) if what == "in-thread" else Program(port, method)
    try:
        if what == "sixty":
            program.launch_sixty()
        elif what == "hanging":
            program.shut_down_while_some_hang()
        elif what != "in-thread":
            program.set_up(without="ancestor" if what == "no-daemon" else "")
        program.obey()
    except KeyboardInterrupt:  # it may come as soon as the test has read that all is set up
        program.do_ask()
        sys.stdin.readline()
        raise


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
