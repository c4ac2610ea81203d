"""Peers that only carry messages: two processes of ours with a client of theirs in each.

A channel hides what carries. Roles and clocks are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

from benchmarks.peers.children import Child, all_of, rendezvous
from benchmarks.peers.looks import Look, number_of, numbered
from benchmarks.peers.peer import NotThereError, Peer, message, now

PINGS, PONGS, FLOW = "pings", "pongs", "flow"


class Channel(Protocol):
    """One end: takes what its inbox gets, and puts into those of others."""

    def put(self, topic: str, messages: Sequence[dict[str, Any]]) -> None:
        """Send messages, together where that can be."""

    def take(self) -> Sequence[dict[str, Any]]:
        """Wait for messages."""

    def put_array(self, topic: str, array: Any) -> None:
        """Send numbers."""

    def take_array(self) -> Any:
        """Wait for numbers."""

    def close(self) -> None:
        """Let go."""


Open = Callable[..., Channel]
"""Makes a channel, given how to get there, a topic to listen to, and the listener's name."""


class ChannelPeer(Peer):
    """Measures messages over the channels that `ends` describes."""

    open: Open

    def ends(self, receivers: int) -> tuple[Any, list[Any]]:
        """Return how a sender gets there, and how each receiver does."""
        raise NotImplementedError

    def trips(self, n: int, size: int) -> list[float]:
        """Ping between two processes."""
        there, (back,) = self.ends(1)
        ponger = Child(_pong, self.open, back, n)
        pinger = Child(_ping, self.open, there, n, size)
        with all_of(ponger, pinger):
            found: list[float] = pinger.hear()
            return found

    def flow(self, n: int, size: int, receivers: int, batch: int) -> float:
        """Send from one process to others."""
        there, backs = self.ends(receivers)
        takers = [Child(_receive, self.open, back, n, i) for i, back in enumerate(backs)]
        sender = Child(_send, self.open, there, n, size, batch)
        with all_of(*takers, sender):
            begun: float = sender.hear()
            ended: float = max(taker.hear() for taker in takers)
        return ended - begun

    def arrays(self, size: int, n: int, look: Look, *, in_place: bool) -> list[float]:
        """Send arrays to a process that answers with their numbers."""
        if in_place:
            raise NotThereError("what is sent is copied")
        there, (back,) = self.ends(1)
        taker = Child(_look, self.open, back, n, look)
        offerer = Child(_offer, self.open, there, n, size)
        with all_of(taker, offerer):
            found: list[float] = offerer.hear()
            return found


def _ping(line: Connection, opens: Open, how: Any, n: int, size: int) -> None:
    channel, seconds = opens(how, PONGS, "pinger"), []
    rendezvous(line)
    for number in range(n):
        sent = now()
        channel.put(PINGS, [message(number, size)])
        (answer,) = channel.take()
        seconds.append(now() - sent)
        assert answer["number"] == number
    line.send(seconds)
    line.recv()
    channel.close()


def _pong(line: Connection, opens: Open, how: Any, n: int) -> None:
    channel = opens(how, PINGS, "ponger")
    rendezvous(line)
    for _ in range(n):
        channel.put(PONGS, channel.take())
    line.recv()
    channel.close()


def _send(line: Connection, opens: Open, how: Any, n: int, size: int, batch: int) -> None:
    channel = opens(how, "", "sender")
    rendezvous(line)
    begun = now()
    for first in range(0, n, batch):
        channel.put(FLOW, [message(i, size) for i in range(first, min(first + batch, n))])
    line.send(begun)
    line.recv()
    channel.close()


def _receive(line: Connection, opens: Open, how: Any, n: int, number: int) -> None:
    channel, got, last = opens(how, FLOW, f"receiver-{number}"), 0, -1
    rendezvous(line)
    while got < n:
        for one in channel.take():
            got += 1
            last = one["number"]
    ended = now()
    assert (got, last) == (n, n - 1)
    line.send(ended)
    line.recv()
    channel.close()


def _offer(line: Connection, opens: Open, how: Any, n: int, size: int) -> None:
    channel, seconds = opens(how, PONGS, "pinger"), []
    array = numbered(size)
    rendezvous(line)
    for number in range(n):
        array[-1] = number
        sent = now()
        channel.put_array(PINGS, array)
        (answer,) = channel.take()
        seconds.append(now() - sent)
        assert answer["number"] == number
    line.send(seconds)
    line.recv()
    channel.close()


def _look(line: Connection, opens: Open, how: Any, n: int, look: Look) -> None:
    channel = opens(how, PINGS, "ponger")
    rendezvous(line)
    for _ in range(n):
        channel.put(PONGS, [message(int(number_of(channel.take_array(), look)), 8)])
    line.recv()
    channel.close()
