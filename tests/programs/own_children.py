"""Has children, signal handlers and a start method of its own; prints whether they stay so."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import threading
from typing import Any

from rustic_ai.core.guild import Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.testing.agents import MultiplyingAgent
from tests.support import embedded, spec_of


def main(port: int, method: Any) -> None:
    multiprocessing.set_start_method("fork")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    child = multiprocessing.Process(target=threading.Event().wait, daemon=True)
    child.start()
    lasting = subprocess.Popen(["sleep", "600"])
    ending = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(7)"], stdin=subprocess.PIPE
    )

    def look() -> dict[str, Any]:
        return {
            "handlers": {n: signal.getsignal(n) for n in signal.valid_signals()},
            "wakeup": _wakeup(),
            "mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
            "start method": multiprocessing.get_start_method(),
            "children": [p.pid for p in multiprocessing.active_children()],
            "running": [child.is_alive(), lasting.poll()],
        }

    before = look()
    seen: dict[str, bool] = {}
    engine = MultiProcessExecutionEngine("own", 3, start_method=method)
    guild = Guild("own", engine, embedded(port))
    guild.launch_agents([spec_of(MultiplyingAgent, name) for name in ("a", "b")])
    seen["launch"] = look() == before
    assert ending.stdin is not None
    ending.stdin.close()  # ends while agents do; its exit code stays the program's to collect
    guild.remove_agent("a")
    seen["stop"] = look() == before
    guild.shutdown()
    seen["shutdown"] = look() == before
    seen["exit code"] = ending.wait() == 7
    child.kill()
    child.join()
    lasting.kill()
    seen["own to end"] = (lasting.wait(), child.exitcode) == (-signal.SIGKILL, -signal.SIGKILL)
    print(json.dumps(seen))


def _wakeup() -> int:
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return descriptor


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
