"""Finds the embedded server, or starts one in a process of its own."""

from __future__ import annotations

import json
import logging
import select
import subprocess
import sys
import threading
from dataclasses import dataclass

from rustic_ai.core.errors import BackendUnavailableError
from rustic_ai.core.forking import guard_forks
from rustic_ai.core.messaging.backend.embedded_backend.client import ServerConnection

logger = logging.getLogger(__name__)

_START_DEADLINE = 20.0
_END_DEADLINE = 2.0
_BOOTSTRAP = (
    "import json,sys;sys.path[:]=json.loads(sys.argv[1]);"
    "from rustic_ai.core.messaging.backend.embedded_backend.server_process import main;"
    "main(sys.argv[2],int(sys.argv[3]))"
)


@dataclass(slots=True, weakref_slot=True, eq=False)
class OwnedServer:
    """A server process that this program started; lives while it is used here or elsewhere."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    users: int = 0

    def let_go(self) -> None:
        """Give it up: it ends unless other programs use it; then it is collected at its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        answer = _read_line(self.process, _END_DEADLINE)
        if answer.get("ends") is False:
            name = f"rustic-reap-{self.process.pid}"
            threading.Thread(target=self._collect, name=name, daemon=True).start()
            return
        try:
            self.process.wait(_END_DEADLINE)
        except subprocess.TimeoutExpired:
            logger.warning("the message server %d did not end, killed", self.process.pid)
            self.process.kill()
        self._collect()

    def close_in_fork(self) -> None:
        """Let a forked copy of the program not keep the server waiting for its owner's end."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.returncode = 0  # it is no child of the copy
        _owned.pop(self.port, None)

    def _collect(self) -> None:
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


_lock = threading.Lock()
_owned: dict[int, OwnedServer] = {}


def connect_or_start(host: str, port: int) -> tuple[ServerConnection, OwnedServer | None]:
    """Connect to the server, started first where there is none.

    Returns:
        The connection, and the server where this program started it; hand it to `release`.

    Raises:
        PortTakenError: somebody else listens there.
        BackendUnavailableError: it could not be started.
    """
    with _lock:
        owned = _owned.get(port)
        if owned is not None and owned.process.poll() is None:
            connection = ServerConnection.open_patiently(host, port)
            owned.users += 1
            return connection, owned
        if port:
            try:
                return ServerConnection.open(host, port), None
            except BackendUnavailableError:
                logger.debug("no message server at %s:%d yet", host, port)
        owned = _start(host, port)
        if owned is None:  # another program was faster
            return ServerConnection.open_patiently(host, port), None
        try:
            connection = ServerConnection.open_patiently(host, owned.port)
        except BaseException:
            owned.let_go()
            raise
        owned.users = 1
        _owned[owned.port] = owned
        guard_forks(owned)
        return connection, owned


def release(owned: OwnedServer) -> None:
    """Use the server no more; the last user of this program lets it go."""
    with _lock:
        owned.users -= 1
        if owned.users == 0:
            _owned.pop(owned.port, None)
            owned.let_go()


def _start(host: str, port: int) -> OwnedServer | None:
    """Start a server; None where its port was taken meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-c", _BOOTSTRAP, json.dumps(sys.path), host, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    answer = _read_line(process, _START_DEADLINE)
    if "port" in answer:
        return OwnedServer(process, host, int(str(answer["port"])))
    process.kill()
    process.communicate()
    if answer.get("error") == "port-taken":
        return None
    raise BackendUnavailableError(
        address=f"{host}:{port}",
        reason=f"it could not be started: {answer.get('error', 'it did not become ready')}",
    )


def _read_line(process: subprocess.Popen[bytes], timeout: float) -> dict[str, object]:
    """Return the next JSON line that a server says; empty where none comes in time."""
    assert process.stdout is not None
    waiting = select.poll()
    waiting.register(process.stdout, select.POLLIN)
    if not waiting.poll(timeout * 1000):
        return {}
    line = process.stdout.readline()
    found: dict[str, object] = json.loads(line) if line else {}
    return found
