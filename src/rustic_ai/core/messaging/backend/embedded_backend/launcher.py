"""Finds the embedded server, or starts one in a process of its own."""

from __future__ import annotations

import json
import logging
import select
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

from rustic_ai.core.errors import BackendUnavailableError
from rustic_ai.core.forking import guard_forks
from rustic_ai.core.messaging.backend.embedded_backend.access import clean_dead
from rustic_ai.core.messaging.backend.embedded_backend.dial import (
    Address,
    Link,
    dial,
    dial_patiently,
)

logger = logging.getLogger(__name__)

_START_DEADLINE = 20.0
_END_DEADLINE = 2.0
_BOOTSTRAP = (
    "import json,sys;sys.path[:]=json.loads(sys.argv[1]);"
    "from rustic_ai.core.messaging.backend.embedded_backend.server_process import main;"
    "main(sys.argv[2],int(sys.argv[3]),json.loads(sys.argv[4]))"
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
        code = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if code:  # killed: it could not remove its own files
            clean_dead()


_lock = threading.Lock()
_owned: dict[int, OwnedServer] = {}


def dial_or_start(
    address: Address, client: int, settings: dict[str, Any], held: OwnedServer | None
) -> tuple[Link, OwnedServer | None]:
    """Connect to the server, started first where there is none.

    Args:
        address: where it is, or is to be; port 0: a free one.
        client: the number of the client.
        settings: how to make a server that is started; of `EmbeddedServer`, in JSON's types.
        held: the server that the caller holds already, from an earlier call.

    Returns:
        The connection, and the server where this program started it; hand it to `release`.

    Raises:
        PortTakenError: somebody else listens there.
        AccessError: the server does not let us in.
        BackendUnavailableError: it could not be started.
    """
    with _lock:
        owned = _owned.get(held.port if held is not None else address.port)
        if owned is not None and owned.process.poll() is None:
            # Refused, it is about to end: who comes back after a lost connection tries again.
            return dial(_at(address, owned.port), client), _hold(owned, held)
        if owned is not None:
            logger.warning(
                "the message server %d ended with exit code %s, starting another",
                owned.process.pid,
                owned.process.returncode,
            )
            _drop_dead(owned)
        port = held.port if held is not None else address.port
        if port:
            try:
                return dial(_at(address, port), client), _hold(None, held)
            except BackendUnavailableError:
                logger.debug("no message server at %s:%d yet", address.host, port)
        started = _start(address.host, port, settings)
        if started is None:  # another program was faster
            return dial_patiently(_at(address, port), client), _hold(None, held)
        try:
            link = dial_patiently(_at(address, started.port), client)
        except BaseException:
            started.let_go()
            raise
        _owned[started.port] = started
        guard_forks(started)
        return link, _hold(started, held)


def _at(address: Address, port: int) -> Address:
    return Address(address.host, port, address.transport, address.token)


def _hold(owned: OwnedServer | None, held: OwnedServer | None) -> OwnedServer | None:
    """Count the caller as a user of `owned`, in place of `held`."""
    if owned is not held:
        if owned is not None:
            owned.users += 1
        if held is not None:
            held.users -= 1
    return owned


def _drop_dead(owned: OwnedServer) -> None:
    _owned.pop(owned.port, None)
    for pipe in (owned.process.stdin, owned.process.stdout):
        assert pipe is not None
        pipe.close()


def release(owned: OwnedServer) -> None:
    """Use the server no more; the last user of this program lets it go."""
    with _lock:
        owned.users -= 1
        if owned.users == 0 and _owned.get(owned.port) is owned:
            del _owned[owned.port]
            owned.let_go()


def _start(host: str, port: int, settings: dict[str, Any]) -> OwnedServer | None:
    """Start a server; None where its port was taken meanwhile."""
    arguments = [json.dumps(sys.path), host, str(port), json.dumps(settings)]
    process = subprocess.Popen(
        [sys.executable, "-c", _BOOTSTRAP, *arguments],
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
