"""Who may connect to the embedded server, and how its clients find it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from subprocess import PIPE

import pytest

from rustic_ai.core.errors import AccessError, ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend import access
from rustic_ai.core.messaging.backend.embedded_backend.access import (
    TOKEN_SIZE,
    KnownServer,
    ServerFiles,
    clean_dead,
    find_server,
)
from rustic_ai.core.settings import RUNTIME_DIR_VARIABLE

PORT = 31134  # nobody listens: these files are all that is looked at
NOBODY = 65534

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")

SERVER = r"""
import os, sys
from rustic_ai.core.messaging.backend.embedded_backend.access import ServerFiles
files = ServerFiles.claim(int(sys.argv[1]))
listener = files.bind()
if sys.argv[2] == "forks" and os.fork() == 0:
    files.remove()
    os.write(1, b"forked\n")
    sys.stdin.read()
    os._exit(0)
os.write(1, b"ready\n")
sys.stdin.read()
"""


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give an empty runtime directory with a short path, and see that it is empty in the end."""
    with tempfile.TemporaryDirectory(prefix="rt-") as name:
        monkeypatch.setenv(RUNTIME_DIR_VARIABLE, name)
        yield Path(name)
        assert list(Path(name).iterdir()) == []


@pytest.fixture
def files(runtime: Path) -> Iterator[ServerFiles]:
    """Give the files of a living server."""
    claimed = ServerFiles.claim(PORT)
    yield claimed
    claimed.remove()


@contextmanager
def server_process(port: int, kind: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a server's process from when it has its files until it is killed with SIGKILL."""
    command = [sys.executable, "-c", SERVER, str(port), kind]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            expected = ["forked\n", "ready\n"] if kind == "forks" else ["ready\n"]
            assert sorted(process.stdout.readline() for _ in expected) == expected
            yield process
        finally:
            process.kill()
            assert process.wait() == -signal.SIGKILL


def names(runtime: Path) -> list[str]:
    """Return what is in the folder of the servers' files."""
    return sorted(path.name for path in (runtime / "embedded").iterdir())


def found(port: int = PORT) -> KnownServer:
    """Return what a client finds."""
    known = find_server(port)
    assert known is not None
    return known


def bind(files: ServerFiles) -> socket.socket:
    """Return the server's Unix socket."""
    listener = files.bind()
    assert listener is not None
    return listener


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_files_are_private_whatever_the_umask(runtime: Path, umask: int) -> None:
    """The folder is 0700, socket and token are 0600."""
    old = os.umask(umask & 0o077)  # the folder's own mode
    try:
        (runtime / "embedded").mkdir(mode=0o700)
        os.umask(umask)
        claimed = ServerFiles.claim(PORT)
        bind(claimed).close()
    finally:
        os.umask(old)
    paths = [runtime / "embedded" / name for name in ("", f"{PORT}.sock", f"{PORT}.token")]
    assert [stat.S_IMODE(p.lstat().st_mode) for p in paths] == [0o700, 0o600, 0o600]
    claimed.remove()


def test_a_client_finds_the_token_and_the_socket(files: ServerFiles) -> None:
    """What a client reads is the server's token, and the socket there is the server's."""
    with bind(files) as listener, socket.socket(socket.AF_UNIX) as client:
        assert not listener.getblocking()
        known = found()
        assert known.token == files.token
        assert len(known.token) == TOKEN_SIZE
        assert repr(known.token) not in repr(known) + repr(files)  # which may be logged
        client.connect(str(known.socket_path))
        listener.accept()[0].close()


def test_the_last_server_takes_the_folder_along(runtime: Path, files: ServerFiles) -> None:
    """A server removes its own files, and the last one the folder; clients make nothing."""
    other = ServerFiles.claim(PORT + 1)
    files.remove()
    files.remove()
    assert names(runtime) == [f"{PORT + 1}.token"]
    assert find_server(PORT) is None
    other.remove()
    assert find_server(PORT) is None
    assert clean_dead() == []
    assert list(runtime.iterdir()) == []


def test_only_what_is_ours_is_removed(runtime: Path, files: ServerFiles) -> None:
    """A server leaves alone what came after its own files, and minds no folder that is gone."""
    (runtime / "embedded" / f"{PORT}.token").unlink()
    successor = ServerFiles.claim(PORT)
    files.remove()
    assert found().token == successor.token
    shutil.rmtree(runtime / "embedded")
    successor.remove()


def test_a_killed_server_is_cleaned_up_by_the_next(runtime: Path) -> None:
    """A successor on the port gets a token and a socket of its own."""
    with server_process(PORT):
        living = found()
    assert names(runtime) == [f"{PORT}.sock", f"{PORT}.token"]
    successor = ServerFiles.claim(PORT)
    assert names(runtime) == [f"{PORT}.token"]
    bind(successor).close()
    assert found().token == successor.token != living.token
    successor.remove()


def test_all_dead_servers_are_cleaned_up_and_no_living_one(
    runtime: Path, files: ServerFiles
) -> None:
    """Living servers, here or in other processes, keep their files; strangers' files stay."""
    with server_process(PORT + 1):
        pass
    (runtime / "embedded" / f"{PORT + 2}.new").touch()  # killed while it claimed
    (runtime / "embedded" / "notes.txt").touch()
    with server_process(PORT + 3):
        assert clean_dead() == [PORT + 1, PORT + 2]
        living = [f"{PORT}.token", f"{PORT + 3}.sock", f"{PORT + 3}.token"]
        assert names(runtime) == [*living, "notes.txt"]
    (runtime / "embedded" / "notes.txt").unlink()
    files.remove()
    assert clean_dead() == [PORT + 3]


def test_a_forked_copy_does_not_pass_for_the_server(runtime: Path) -> None:
    """A copy removes nothing of the living server, and does not keep it alive when it is dead."""
    with server_process(PORT, "forks") as process:
        assert clean_dead() == []
        assert names(runtime) == [f"{PORT}.sock", f"{PORT}.token"]
        process.kill()
        process.wait()
        assert clean_dead() == [PORT]  # the copy reads its standard input still


def test_a_living_server_keeps_its_port(
    runtime: Path, files: ServerFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second server of the port is refused, whatever it listens on, and leaves nothing."""
    monkeypatch.setattr(access, "_PATIENCE", 0.02)
    with pytest.raises(AccessError, match=f"{PORT}.token belongs to a living .*\nhint: stop that"):
        ServerFiles.claim(PORT)
    assert names(runtime) == [f"{PORT}.token"]
    assert found().token == files.token


def test_a_claim_waits_for_a_server_that_is_ending(files: ServerFiles) -> None:
    """The port may be free a moment before its last server has let go of its files."""
    with ThreadPoolExecutor(1) as pool:
        claiming = pool.submit(ServerFiles.claim, PORT)
        with pytest.raises(TimeoutError):
            claiming.result(0.05)
        files.remove()
        successor = claiming.result()
    assert found().token == successor.token
    successor.remove()


def test_servers_that_come_and_go_at_once_do_not_disturb_each_other(runtime: Path) -> None:
    """Each has its own files as long as it lives, though all share a folder that comes and goes."""

    def live_and_die(port: int) -> None:
        for _ in range(50):
            claimed = ServerFiles.claim(port)
            clean_dead()
            assert found(port).token == claimed.token
            claimed.remove()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(live_and_die, range(PORT, PORT + 3)))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
@pytest.mark.parametrize(("what", "kind"), [("token file", "token"), ("socket", "sock")])
def test_files_that_others_can_reach_are_refused(
    runtime: Path, files: ServerFiles, what: str, kind: str, mode: int
) -> None:
    """The error names the file, its mode and what to do."""
    bind(files).close()
    path = runtime / "embedded" / f"{PORT}.{kind}"
    path.chmod(mode)
    text = f"the {what} {path} is open to others (mode {mode:04o})\nhint: chmod 600 {path}, or"
    with pytest.raises(AccessError, match=re.escape(text)) as caught:
        find_server(PORT)
    assert caught.value.path == str(path)


def test_a_folder_that_is_not_ours_alone_is_refused(runtime: Path, tmp_path: Path) -> None:
    """Neither servers nor clients use one that others can reach, or a link to another one."""
    folder = runtime / "embedded"
    folder.mkdir()
    folder.chmod(0o750)
    for text in (r"the folder .*\(mode 0750\)\nhint: chmod 700", "is a symbolic link"):
        for use in (lambda: find_server(PORT), lambda: ServerFiles.claim(PORT), clean_dead):
            with pytest.raises(AccessError, match=text):
                use()
        if not folder.is_symlink():
            folder.rmdir()
            folder.symlink_to(tmp_path)
    assert list(tmp_path.iterdir()) == []
    folder.unlink()


@only_root
@pytest.mark.parametrize("which", ["", f"{PORT}.token", f"{PORT}.sock"])
def test_files_of_another_user_are_refused(runtime: Path, files: ServerFiles, which: str) -> None:
    """Folder, token and socket have to be our own."""
    bind(files).close()
    path = runtime / "embedded" / which
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(AccessError, match=f"{path} belongs to another user .uid {NOBODY}"):
        find_server(PORT)
    os.chown(path, 0, 0)


def test_a_link_in_place_of_the_token_is_refused(runtime: Path, tmp_path: Path) -> None:
    """A client does not follow it; a server replaces it, and leaves alone what it leads to."""
    target = tmp_path / "target"
    target.write_text("ab" * TOKEN_SIZE)
    target.chmod(0o600)
    (runtime / "embedded").mkdir(mode=0o700)
    path = runtime / "embedded" / f"{PORT}.token"
    path.symlink_to(target)
    with pytest.raises(AccessError, match=f"{path} is a symbolic link\nhint: remove {path}"):
        find_server(PORT)
    claimed = ServerFiles.claim(PORT)
    assert stat.S_ISREG(path.lstat().st_mode)
    assert target.read_text() == "ab" * TOKEN_SIZE
    claimed.remove()


def test_a_pipe_in_place_of_the_token_holds_nobody_up(runtime: Path, files: ServerFiles) -> None:
    """A client says what it found instead of waiting for a writer; servers clean it up."""
    os.mkfifo(runtime / "embedded" / f"{PORT + 1}.token", 0o600)
    with pytest.raises(AccessError, match="is no token file"):
        find_server(PORT + 1)
    assert clean_dead() == [PORT + 1]


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "x" * 64, "\udcff" * 64])
def test_a_token_file_without_a_token_is_refused(
    runtime: Path, files: ServerFiles, text: str
) -> None:
    """An empty or cut token is never used."""
    path = runtime / "embedded" / f"{PORT}.token"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(AccessError, match="holds no token\nhint: remove"):
        find_server(PORT)


def test_a_path_too_long_for_a_socket_leaves_tcp(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest path works; one byte more gives no socket, and clients get the token."""
    for size, fits in ((access._PATH_LIMIT, True), (access._PATH_LIMIT + 1, False)):
        place = runtime / ("x" * (size - len(f"{runtime}//embedded/{PORT}.sock")))
        monkeypatch.setenv(RUNTIME_DIR_VARIABLE, str(place))
        claimed = ServerFiles.claim(PORT)
        with claimed.bind() or nullcontext() as listener:
            assert (listener is not None) == fits
        assert found().token == claimed.token
        assert (found().socket_path is not None) == fits
        claimed.remove()
        place.rmdir()


def test_a_failing_bind_leaves_nothing(runtime: Path, files: ServerFiles) -> None:
    """Where the socket cannot take its name, neither file nor descriptor stays."""
    (runtime / "embedded" / f"{PORT}.sock").mkdir()
    with pytest.raises(OSError, match=f"{PORT}.sock"):
        files.bind()
    (runtime / "embedded" / f"{PORT}.sock").rmdir()
    assert names(runtime) == [f"{PORT}.token"]


def test_proofs_are_of_one_role_and_one_handshake() -> None:
    """A proof says nothing in another role, with another nonce or by another token."""
    token, client, server = os.urandom(TOKEN_SIZE), access.new_nonce(), access.new_nonce()
    assert client != server
    shown = access.proof(token, "client", client, server)
    assert access.matches(shown, access.proof(token, "client", client, server))
    others = [
        access.proof(token, "server", client, server),
        access.proof(token, "client", server, client),
        access.proof(token, "client", access.new_nonce(), server),
        access.proof(token, "client", client, access.new_nonce()),
        access.proof(os.urandom(TOKEN_SIZE), "client", client, server),
        shown[:-1],
        b"",
    ]
    assert not any(access.matches(shown, other) for other in others)
    assert len({shown, *others}) == 1 + len(others)


def test_a_proof_is_what_it_was() -> None:
    """Programs of two releases understand each other: the value is fixed."""
    shown = access.proof(bytes(32), "server", b"c" * 16, b"s" * 16)
    assert shown.hex() == "e5f07965bbe7b23242fe9ac2dbe411a3907a05fc7bbe130fe1b3ee429fad3aa4"


@pytest.mark.parametrize("size", [0, access.NONCE_SIZE - 1, access.NONCE_SIZE + 1])
def test_nonces_have_their_size(size: int) -> None:
    """Bytes cannot move from one nonce to the other."""
    for nonces in ((bytes(size), access.new_nonce()), (access.new_nonce(), bytes(size))):
        with pytest.raises(ProtocolError, match=f"has {size} bytes, not {access.NONCE_SIZE}"):
            access.proof(bytes(TOKEN_SIZE), "client", *nonces)


def test_the_peer_of_a_unix_socket_is_known() -> None:
    """Both ends see our own user; a TCP connection and an unconnected socket tell nobody."""
    one, two = socket.socketpair()
    with one, two:
        assert access.peer_uid(one) == access.peer_uid(two) == os.geteuid()
        assert access.is_same_user(one)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        socket.socket(socket.AF_UNIX) as alone,
    ):
        assert access.peer_uid(client) is access.peer_uid(alone) is None
        assert not access.is_same_user(client)
        assert not access.is_same_user(alone)


@only_root
@pytest.mark.parametrize(("maker", "looker"), [(NOBODY, 0), (0, NOBODY)])
def test_other_users_are_not_the_same_user(maker: int, looker: int) -> None:
    """Another user at the other end is told apart, and root is no exception."""
    try:
        os.seteuid(maker)
        one, two = socket.socketpair()
        os.seteuid(0)
        os.seteuid(looker)
        with one, two:
            assert access.peer_uid(one) == maker
            assert not access.is_same_user(one)
    finally:
        os.seteuid(0)
