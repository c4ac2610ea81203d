"""Who may connect to the embedded server, and how programs of its user find it.

The server of port P keeps two files in a private folder of its user: `P.token`, a secret that
clients show they know, and `P.sock`, its Unix socket. It holds a lock on the token file as long as
it lives; the kernel gives the lock back however the process ends, so files without one are those
of the dead. Files are looked at and changed under a lock on the folder, except by clients, which
only read what was put in place whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rustic_ai.core.errors import AccessError, ProtocolError
from rustic_ai.core.forking import guard_forks
from rustic_ai.core.settings import runtime_dir

TOKEN_SIZE = 32
NONCE_SIZE = 16
_FOLDER = "embedded"
_TOKEN, _SOCKET, _NEW = ".token", ".sock", ".new"
_PATH_LIMIT = 107 if sys.platform == "linux" else 103
"""Bytes of a path that fit into the address of a Unix socket."""
_BACKLOG = 512
_PATIENCE = 2.0
"""Seconds for a server to be gone that has let go of its port already."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_UID = 0xFFFFFFFF
"""What the kernel says where nobody is at the other end."""
_LABEL = b"rustic embedded server 1 "


@dataclass(slots=True, weakref_slot=True, eq=False)
class ServerFiles:
    """The files of a living server; made by `claim`, gone with `remove`."""

    port: int
    token: bytes = field(repr=False)
    _folder: Path
    _lock: int | None

    @classmethod
    def claim(cls, port: int) -> ServerFiles:
        """Put a new token in place; call it when the TCP port is bound, which decides who may.

        What a dead server of this port left is removed.

        Raises:
            AccessError: the folder is not this user's alone, or another server lives on this port.
            GuildError: the runtime directory cannot be used.
        """
        folder = runtime_dir() / _FOLDER
        token = os.urandom(TOKEN_SIZE)
        deadline = time.monotonic() + _PATIENCE
        while True:
            with _locked(folder, make=True):
                lock = _put_token(folder, port, token)
            if lock is not None:
                files = cls(port, token, folder, lock)
                guard_forks(files)
                return files
            if time.monotonic() > deadline:
                path = _path(folder, port, _TOKEN)
                raise AccessError(
                    summary=f"{path} belongs to a living server, at another address",
                    path=str(path),
                    hint="stop that server, or choose another port",
                )
            time.sleep(0.005)

    def bind(self) -> socket.socket | None:
        """Return the listening, non-blocking Unix socket; None where there can be none.

        That is where the path is too long for one, or the platform has no such sockets.
        """
        assert self._lock is not None
        final = _path(self._folder, self.port, _SOCKET)
        if not _fits(final):
            return None
        new = _path(self._folder, self.port, _NEW)
        new.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(new))
            new.chmod(0o600)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            new.rename(final)  # who finds the name finds a socket that is ready
        except BaseException:
            listener.close()
            new.unlink(missing_ok=True)
            raise
        return listener

    def remove(self) -> None:
        """Remove what is ours, nothing of another server; again: does nothing.

        Do it before the TCP port is free, so that a successor finds the folder clean.
        """
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            # The folder may be gone already, with all that was in it.
            with contextlib.suppress(FileNotFoundError), _locked(self._folder):
                if _is_at(lock, _path(self._folder, self.port, _TOKEN)):
                    _unlink_files(self._folder, self.port)
        finally:
            _release(lock)

    def close_in_fork(self) -> None:
        """Let a forked copy not pass for the server when that is gone."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@dataclass(frozen=True, slots=True)
class KnownServer:
    """What a client needs to connect; the server may be dead, which connecting will show."""

    token: bytes = field(repr=False)
    socket_path: Path | None


def find_server(port: int) -> KnownServer | None:
    """Return how to reach this user's server of a port; None where there is none.

    Raises:
        AccessError: its files are not this user's alone, or not what they should be.
        GuildError: the runtime directory cannot be used.
    """
    folder = runtime_dir() / _FOLDER
    path = _path(folder, port, _TOKEN)
    try:
        _require_private("folder", folder, folder.lstat(), stat.S_ISDIR)
        # By name first, for the sake of the message; then what was opened.
        _require_private("token file", path, path.lstat(), stat.S_ISREG)
        token = _read_token(path)
    except FileNotFoundError:
        return None
    path = _path(folder, port, _SOCKET)
    try:
        _require_private("socket", path, path.lstat(), stat.S_ISSOCK)
    except FileNotFoundError:
        return KnownServer(token, None)
    return KnownServer(token, path if _fits(path) else None)


def clean_dead() -> list[int]:
    """Remove the files of all dead servers of this user; return their ports.

    Raises:
        AccessError: the folder is not this user's alone.
        GuildError: the runtime directory cannot be used.
    """
    folder = runtime_dir() / _FOLDER
    try:
        _require_private("folder", folder, folder.lstat(), stat.S_ISDIR)
        with _locked(folder):
            dead = [p for p in _ports(folder) if not _lives(_path(folder, p, _TOKEN))]
            for port in dead:
                _unlink_files(folder, port)
    except FileNotFoundError:  # no server has its files here
        return []
    return dead


def new_nonce() -> bytes:
    """Return random bytes for one handshake."""
    return os.urandom(NONCE_SIZE)


def proof(
    token: bytes, role: Literal["client", "server"], nonce_client: bytes, nonce_server: bytes
) -> bytes:
    """Return what shows, in this handshake and this role only, that one knows the token.

    Raises:
        ProtocolError: a nonce is not of `NONCE_SIZE` bytes.
    """
    for nonce in (nonce_client, nonce_server):
        if len(nonce) != NONCE_SIZE:
            raise ProtocolError(summary=f"a nonce has {len(nonce)} bytes, not {NONCE_SIZE}")
    said = _LABEL + role.encode() + b"\0" + nonce_client + nonce_server
    return hmac.digest(token, said, "sha256")


def matches(shown: bytes, expected: bytes) -> bool:
    """Compare two proofs in a time that tells nothing of where they differ."""
    return hmac.compare_digest(shown, expected)


def peer_uid(sock: socket.socket) -> int | None:
    """Return the user at the other end of a Unix socket; None where that cannot be told."""
    if not hasattr(socket, "AF_UNIX") or sock.family != socket.AF_UNIX:
        return None
    try:
        if hasattr(socket, "SO_PEERCRED"):
            ids = struct.Struct("iII")  # pid, uid, gid
            found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ids.size)
            uid = int(ids.unpack(found)[1])
            return None if uid == _NO_UID else uid
        if sys.platform.startswith(("darwin", "freebsd")):
            # LOCAL_PEERCRED of SOL_LOCAL gives a struct xucred: version, uid, groups.
            return int(struct.unpack_from("II", sock.getsockopt(0, 1, 128))[1])
    except OSError:  # gone already, so it is nobody
        return None
    return None


def is_same_user(sock: socket.socket) -> bool:
    """Whether our own user is at the other end; False for root as well, and where unknown."""
    return peer_uid(sock) == os.geteuid()


def _path(folder: Path, port: int, kind: str) -> Path:
    return folder / f"{port}{kind}"


def _fits(path: Path) -> bool:
    return hasattr(socket, "AF_UNIX") and len(os.fsencode(path)) <= _PATH_LIMIT


def _ports(folder: Path) -> list[int]:
    """Return the ports that files in the folder are named after."""
    names = (p for p in folder.iterdir() if p.suffix in {_TOKEN, _SOCKET, _NEW})
    return sorted({int(p.stem) for p in names if p.stem.isascii() and p.stem.isdecimal()})


def _put_token(folder: Path, port: int, token: bytes) -> int | None:
    """Write the token file and return its locked descriptor; None where a server lives."""
    final, new = _path(folder, port, _TOKEN), _path(folder, port, _NEW)
    if _lives(final):
        return None
    _unlink_files(folder, port)
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(fd, 0o600)  # whatever the umask
        os.write(fd, token.hex().encode())
        new.rename(final)
    except BaseException:
        os.close(fd)
        new.unlink(missing_ok=True)
        raise
    return fd


def _read_token(path: Path) -> bytes:
    fd = os.open(path, _READ)
    try:
        _require_private("token file", path, os.fstat(fd), stat.S_ISREG)
        text = os.read(fd, 2 * TOKEN_SIZE + 1)
    finally:
        os.close(fd)
    with contextlib.suppress(ValueError):
        token = bytes.fromhex(text.decode())
        if len(token) == TOKEN_SIZE:
            return token
    raise AccessError(
        summary=f"the token file {path} holds no token",
        path=str(path),
        hint=f"remove {path}, and start the server again",
    )


def _unlink_files(folder: Path, port: int) -> None:
    for kind in (_SOCKET, _NEW, _TOKEN):  # as long as there are others, there is the token
        _path(folder, port, kind).unlink(missing_ok=True)


def _lives(path: Path) -> bool:
    """Whether a server holds the lock on its token file; ask under the lock on the folder."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
        return False  # no server of ours has made this
    fd = os.open(path, _READ)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return True
    _release(fd)
    return False


@contextlib.contextmanager
def _locked(folder: Path, *, make: bool = False) -> Iterator[None]:
    """Be the only one who changes the folder; it goes where nothing is in it any more.

    Raises:
        AccessError: with `make`, the folder is not this user's alone.
        FileNotFoundError: without `make`, there is no folder.
    """
    fd = _lock_folder(folder, make=make)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # other servers have their files in it
            folder.rmdir()
        _release(fd)


def _lock_folder(folder: Path, *, make: bool) -> int:
    while True:
        if make:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
        try:
            if make:
                _require_private("folder", folder, folder.lstat(), stat.S_ISDIR)
            fd = os.open(folder, _READ | os.O_DIRECTORY)
        except FileNotFoundError:  # the last server in it has ended just now
            if make:
                continue
            raise
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _is_at(fd, folder):
            return fd
        os.close(fd)  # it was removed while we waited


def _is_at(fd: int, path: Path) -> bool:
    """Whether what is open here is what the path leads to."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _release(fd: int) -> None:
    """Give back a lock, even if a process that is just being forked has a copy of it."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _require_private(
    what: str, path: Path, info: os.stat_result, is_kind: Callable[[int], bool]
) -> None:
    """Raise an AccessError unless this is what it should be, and our user's alone."""
    mode = stat.S_IMODE(info.st_mode)
    hint = f"remove {path}, and start the server again"
    if stat.S_ISLNK(info.st_mode):
        reason = "is a symbolic link"
    elif not is_kind(info.st_mode):
        reason = f"is no {what}"
    elif info.st_uid != os.geteuid():
        reason = f"belongs to another user (uid {info.st_uid})"
    elif mode & 0o077:
        reason = f"is open to others (mode {mode:04o})"
        hint = f"chmod {'700' if what == 'folder' else '600'} {path}, or {hint}"
    else:
        return
    raise AccessError(summary=f"the {what} {path} {reason}", path=str(path), hint=hint)
