"""Ctrl-C in three steps: finish, terminate, kill. SIGTERM counts like Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rustic_ai.core.guild.guild import Guild

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


class Interrupted(KeyboardInterrupt):
    """Somebody wants the command to end, or its time is over."""


class Interrupts:
    """Counts signals, and raises `Interrupted` only where that was asked for.

    So a signal that comes at a bad moment, in the middle of an exit, is not lost and harms nothing.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        """The first signal that came; SIGALRM: the time was over."""
        self._count = 0
        self._raising = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals while the block lasts; then all is as before.

        A signal that is ignored, as under nohup, stays ignored.
        """
        heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGALRM and not self._raising:
            return  # the work is done already, or interrupted
        self.first = self.first or number
        self._count += 1
        if self._raising:
            self._raising = False
            raise Interrupted

    @contextmanager
    def raised(self, limit: float | None = None) -> Iterator[None]:
        """Raise `Interrupted` in this block for a signal that comes while it lasts.

        Args:
            limit: seconds after which it is raised without any.
        """
        self._raising = True
        signal.setitimer(signal.ITIMER_REAL, limit or 0.0)
        try:
            yield
        finally:
            self._raising = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def end(self, guild: Guild, tell: Callable[[str], None]) -> None:
        """Shut the guild down; each further signal presses on, to SIGTERM and to SIGKILL."""
        done = 0
        while True:
            try:
                with self.raised():
                    if self._count > done:
                        done += 1
                        self._press_on(done, guild, tell)
                    guild.shutdown()
            except Interrupted:
                continue
            return

    def _press_on(self, step: int, guild: Guild, tell: Callable[[str], None]) -> None:
        if step == 1:
            tell("finishing; Ctrl-C again to terminate the agents")
        elif step == 2:
            tell("terminating the agents; Ctrl-C again to kill them")
            guild.terminate()
        elif step == 3:
            tell("killing the agents")
            guild.kill()
