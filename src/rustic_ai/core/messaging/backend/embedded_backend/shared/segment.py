"""A piece of memory that processes can share: made, sealed, checked, mapped. Linux."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import threading
from collections.abc import Iterator
from typing import Any

from rustic_ai.core.messaging.backend.embedded_backend.shared.seals import SHAPE_SEALS

_F_SEAL_FUTURE_WRITE = 0x10  # Linux 5.1; not in every `fcntl` module
_libc = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _libc.mmap, _libc.munmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_COPY_TOGETHER = 16 << 20
"""Bytes from which on two threads copy: far more than it takes to start one."""
_FAILED = ctypes.c_void_p(-1).value


class Mapping:
    """A segment in this process's memory; it stays there until nothing refers to it any more.

    Python's own `mmap` does not tell the address of what may only be read.
    """

    def __init__(self, fd: int, size: int, *, writable: bool) -> None:
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        address = _mmap(None, size, protection, mmap.MAP_SHARED, fd, 0)
        if address == _FAILED:
            error = ctypes.get_errno()
            raise OSError(error, f"{size:,} bytes cannot be mapped: {os.strerror(error)}")
        self.address: int = address
        self.size = size

    def __del__(self, _munmap: Any = _munmap) -> None:
        if hasattr(self, "address"):
            _munmap(self.address, self.size)


def make_segment(name: str, size: int) -> tuple[int, Mapping]:
    """Make a segment that nobody else can write, shrink or grow.

    Returns:
        Its descriptor, and its mapping, which can be written.

    Raises:
        OSError: there is no memory, or no descriptor left.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        mapping = Mapping(fd, size, writable=True)
        seals = SHAPE_SEALS | fcntl.F_SEAL_SEAL
        try:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | _F_SEAL_FUTURE_WRITE)
        except OSError:  # before Linux 5.1: receivers map it to read all the same
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd, mapping


def block_in(mapping: Mapping, offset: int, size: int) -> Any:
    """Return an object over a piece of a mapping, whose memoryviews and arrays keep it alive.

    It takes weak references, so that its end can be seen: that is when nothing refers to the piece.
    """
    block: Any = (ctypes.c_char * size).from_address(mapping.address + offset)
    block.mapping = mapping
    return block


class _Buffer(ctypes.Structure):
    """Py_buffer of CPython's stable interface."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


@contextlib.contextmanager
def address_in(view: memoryview) -> Iterator[int]:
    """Give the address of what a contiguous view shows, for as long as the block lasts."""
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0)
    try:
        yield buffer.buf
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


def copy_into(block: Any, view: memoryview) -> None:
    """Copy what a contiguous view shows into a block of the same size.

    A large one is copied by two threads: one core alone does not use up what memory can do.
    """
    size = view.nbytes
    with address_in(view) as source:
        target = address_of(block)
        half = size // 2 if size >= _COPY_TOGETHER else 0
        if half:
            other = threading.Thread(target=ctypes.memmove, args=(target, source, half))
            other.start()
        ctypes.memmove(target + half, source + half, size - half)
        if half:
            other.join()


def address_of(block: Any) -> int:
    """Return where a block begins in this process's memory."""
    return ctypes.addressof(block)
