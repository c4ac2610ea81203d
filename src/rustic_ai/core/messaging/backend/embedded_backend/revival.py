"""Going on with a server after the connection to it was lost, or it was started again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rustic_ai.core.messaging.backend.embedded_backend.dial import Link
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    FROM_START,
    RESUME,
    Frame,
    Op,
    pack,
    pack_names,
)

if TYPE_CHECKING:
    from rustic_ai.core.messaging.backend.embedded_backend.client import ServerClient

_ANSWER_DEADLINE = 10.0


def restore(client: ServerClient, link: Link) -> list[Frame]:
    """Tell the server all that it must know; returns frames that came meanwhile."""
    same = link.epoch == client.wire.link.epoch
    exchange = client.exchange
    questions = exchange.resume(link.life) if exchange is not None else []
    numbers, others = _open_topics(client, link)
    with client.wire.state:
        client.topics = {numbers[n]: names for n, names in client.topics.items()}
        if not same or any(old != new for old, new in numbers.items()):
            client.window.renumber(numbers, keep_acks=same)
            for subscription in client.inbox.all():
                subscription.topic = numbers[subscription.topic]
            client.questions.renumber(numbers)
            client.renumbered(numbers)
        frames = _subscriptions(client, same=same)
        frames += client.window.resume(link.units)
        frames += client.questions.open()
    data = b"".join(frames + questions)
    if data:
        link.socket.sendall(data)
    return others


def _open_topics(client: ServerClient, link: Link) -> tuple[dict[int, int], list[Frame]]:
    """Open the topics that the client knows; returns old number -> new, and other frames."""
    known = list(client.topics.items())
    flags = RESUME if link.life != client.wire.link.life else 0
    request = b"".join(
        pack(Op.TOPIC, pack_names(*names), n=i, flags=flags) for i, (_, names) in enumerate(known)
    )
    if request:
        link.socket.sendall(request)
    numbers: dict[int, int] = {}
    others: list[Frame] = link.early
    link.early = []
    deadline = time.monotonic() + _ANSWER_DEADLINE
    while len(numbers) < len(known):
        for frame in link.receive(deadline - time.monotonic()):
            if frame.op == Op.TOPIC:
                numbers[known[frame.n][0]] = frame.topic
            else:
                others.append(frame)
    return numbers, others


def _subscriptions(client: ServerClient, *, same: bool) -> list[bytes]:
    frames = []
    for subscription in client.inbox.all():
        if not subscription.confirmed:
            frames.append(subscription.opening(subscription.start))
        elif same:
            frames.append(subscription.opening(subscription.received, RESUME))
        else:  # nothing of what this server has was ever delivered
            frames.append(subscription.opening(FROM_START))
        if subscription.receiver is None:
            frames.append(subscription.ending())
    return frames
