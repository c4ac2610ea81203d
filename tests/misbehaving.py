"""Agents that crash, hang, eat memory and talk, as they are told."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rustic_ai.core.guild import Agent, ProcessContext
from rustic_ai.core.guild.agent import JsonDict, processor
from rustic_ai.core.guild.spec import BaseAgentProps


def hold_the_gil() -> None:
    """Stay in C, GIL held, for longer than any test takes."""
    while True:  # a signal wakes it
        ctypes.PyDLL(None).sleep(600)


def spin() -> None:
    """Run Python code for ever."""
    while True:
        pass


class ObedientAgent(Agent):
    """Does what it is told: {"do": ...}; answers where it still can."""

    @processor(JsonDict)
    def obey(self, ctx: ProcessContext[JsonDict]) -> None:
        """Do it, and tell what came of it."""
        self._hoard: list[bytearray] = []
        ctx.send_dict({"result": getattr(self, "do_" + str(ctx.payload["do"]))(), "by": self.id})

    def do_tell(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "random": random.random(),
            "seed": os.environ.get("PYTHONHASHSEED"),
            "hash": hash("a string"),
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "affinity": sorted(os.sched_getaffinity(0)),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text()),
            "flags": list(sys.orig_argv[1:2]),
            "parent": Path(f"/proc/{os.getppid()}/cmdline").read_text(),
        }

    def do_numpy(self) -> float:
        import numpy as np

        return float(np.random.random())

    def do_segfault(self) -> None:
        print("about to touch what is not mine", file=sys.stderr)
        faulthandler._sigsegv()  # type: ignore[attr-defined]

    def do_abort(self) -> None:
        os.abort()

    def do_kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def do_exit_normally(self) -> None:
        sys.exit(0)

    def do_exit_badly(self) -> None:
        sys.exit("the agent has had enough")

    def do_raise(self) -> None:
        raise ValueError("no")

    def do_spin(self) -> None:
        spin()

    def do_hold_the_gil(self) -> None:
        hold_the_gil()

    def do_sleep(self) -> None:
        threading.Event().wait()

    def do_leak(self) -> None:
        while True:
            self._hoard.append(bytearray(os.urandom(1 << 20)))
            time.sleep(0.005)

    def do_allocate(self) -> None:
        self._hoard.append(bytearray(1 << 30))

    def do_print(self) -> None:
        print("printed by the handler")
        logging.getLogger("tests.talker").warning("logged by the %s", "handler")

    def do_log_much(self) -> None:
        for n in range(5000):
            logging.getLogger("tests.talker").warning("record %d", n)

    def do_log_failure(self) -> None:
        try:
            self.do_raise()
        except ValueError:
            logging.getLogger("tests.talker").exception("it failed")


class CureProps(BaseAgentProps):
    cure: str


class PatientAgent(Agent[CureProps]):
    """Dies or fails of what it is told, until the file of its cure is there."""

    tries = 0

    @processor(JsonDict)
    def handle(self, ctx: ProcessContext[JsonDict]) -> None:
        """Handle it, or not."""
        what = ctx.payload["do"]
        self.tries += 1
        answer = {"number": ctx.payload["number"], "attempt": ctx.message.attempt}
        if what == "answer_and_die":
            ctx.send_dict(answer, topics="handled")
        if what == "wait_for_cure":
            while not Path(self.config.cure).exists():
                threading.Event().wait(0.01)
        elif what != "handle" and not Path(self.config.cure).exists():
            if what.endswith("die"):
                os._exit(9)
            if what == "fail" or self.tries < 3:
                raise ValueError("cannot stand it")
        ctx.send_dict(answer, topics="handled")


class FlagProps(BaseAgentProps):
    path: str


class StartsOnceAgent(Agent[FlagProps]):
    """Starts only where its file does not exist, and makes it."""

    def __init__(self) -> None:
        Path(self.config.path).touch(exist_ok=False)


class Unpicklable(Exception):
    """Holds what cannot travel."""

    def __init__(self, text: str, extra: object) -> None:
        super().__init__(text)
        self.extra = extra


class UnpicklableAgent(Agent):
    """Its constructor raises what cannot travel."""

    def __init__(self) -> None:
        raise Unpicklable("my own words", threading.Lock())


class HangingStartAgent(Agent):
    """Its constructor holds the GIL for ever."""

    def __init__(self) -> None:
        hold_the_gil()
