"""An agent that is hard to end, in whichever way it is told to be."""

from __future__ import annotations

import signal
import subprocess
import threading

from tests.misbehaving import ObedientAgent


class ClingingAgent(ObedientAgent):
    """Obeys, and can besides be deaf, have children, or have a daemon."""

    def do_be_deaf(self) -> None:
        """Ignore SIGTERM, and being asked."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Event().wait()

    def do_have_children(self) -> list[int]:
        """Have two children that nobody waits for; returns their pids."""
        self._children = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
        return [child.pid for child in self._children]

    def do_have_a_daemon(self) -> list[int]:
        """Have a grandchild, whose parent ends, in a session of its own; returns its pid."""
        twice = ["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"]
        return [int(subprocess.run(twice, check=True, stdout=subprocess.PIPE).stdout)]
