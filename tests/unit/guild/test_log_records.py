"""Log records on their way from an agent to the program."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from collections.abc import Iterator

import msgspec
import pytest

from rustic_ai.core.guild.execution.multiprocess.log_receiver import LogReceiver
from rustic_ai.core.guild.execution.multiprocess.log_sender import LogSender, SentRecord

FLOOD = 2_000
"""Records that no socket takes at once."""
decode = msgspec.msgpack.Decoder(SentRecord).decode


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a pair of sockets, the first to read."""
    with contextlib.ExitStack() as stack:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.settimeout(5)
        yield stack.enter_context(near), stack.enter_context(far)


def flood(sender: LogSender) -> None:
    """Send more than there is room for."""
    for number in range(FLOOD):
        sender.handle(logging.makeLogRecord({"name": "talker", "levelno": 30, "msg": str(number)}))


def test_what_is_lost_last_is_told_at_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    """Where no record follows that could say it, the end does."""
    near, far = ends
    sender = LogSender(far.fileno(), "a")
    flood(sender)
    came = [decode(near.recv(1 << 18))]
    while not select.select((), (far,), (), 0)[1]:
        came.append(decode(near.recv(1 << 18)))
    sender.close()
    sender.close()
    far.close()
    near.setblocking(False)
    with contextlib.suppress(BlockingIOError, ConnectionResetError):
        while data := near.recv(1 << 18):
            came.append(decode(data))
    records, words = [r for r in came if r.level], [r for r in came if not r.level]
    assert [r.message for r in records] == [str(n) for n in range(len(records))]
    assert [r.dropped for r in words] == [FLOOD - len(records)]
    assert not any(r.dropped for r in records)


def test_an_agent_that_nobody_hears_ends_all_the_same(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for room for a moment, not for ever; nor for a program that is gone."""
    monkeypatch.setattr("rustic_ai.core.guild.execution.multiprocess.log_sender._LAST_WORD", 0.01)
    near, far = ends
    stuck, gone = LogSender(far.fileno(), "a"), LogSender(far.fileno(), "b")
    flood(stuck)
    stuck.close()
    assert all(decode(near.recv(1 << 18)).level for _ in range(100)), "there was no room for it"
    flood(gone)
    near.close()
    gone.close()


def test_the_last_word_is_shown_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The program's handlers get how many were lost, and no record beside it."""
    receiver = LogReceiver("test")
    sender = LogSender(receiver.fileno(), "a")
    flood(sender)
    receiver.start()
    sender.close()
    receiver.close()
    told = [r for r in caplog.records if r.name != "talker"]
    assert len(told) == 1
    lost = FLOOD - (len(caplog.records) - 1)
    assert told[0].getMessage().startswith(f"{lost} log records of agent 'a' were lost")
