"""Ctrl-C in three steps: finish, terminate, kill. SIGTERM counts like Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rustic_ai.core.guild.guild import Guild

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Somebody wants the command to end."""


class Interrupts:
    """Counts signals, and raises `Interrupted` only where that was asked for.

    So a signal that comes at a bad moment, in the middle of an exit, is not lost and harms nothing.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        """The first signal that came."""
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
        self.first = self.first or number
        self._count += 1
        if self._raising:
            self._raising = False
            raise Interrupted

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise `Interrupted` in this block for a signal that comes while it lasts."""
        self._raising = True
        try:
            yield
        finally:
            self._raising = False

    def end(self, guild: Guild, say: Callable[[str], None]) -> None:
        """Shut the guild down; each further signal presses on, to SIGTERM and to SIGKILL."""
        done = 0
        while True:
            try:
                with self.raised():
                    if self._count > done:
                        done += 1
                        self._press_on(done, guild, say)
                    guild.shutdown()
            except Interrupted:
                continue
            return

    def _press_on(self, step: int, guild: Guild, say: Callable[[str], None]) -> None:
        if step == 1:
            say("finishing; Ctrl-C again to terminate the agents")
        elif step == 2:
            say("terminating the agents; Ctrl-C again to kill them")
            guild.terminate()
        elif step == 3:
            say("killing the agents")
            guild.kill()
