"""What stands in the topics, and what the server tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rustic_ai.redis.link import Link, redis_errors
from rustic_ai.redis.scripts import TOPICS
from rustic_ai.redis.store import Store

_FIRST, _MOST, _CHUNK_BYTES = 64, 1000, 2 << 20


def scan(store: Store, topic: str, since_ms: int) -> Iterator[bytes]:
    """Yield the records of a topic that were stored at or after a time of the server's clock."""
    stream, start = store.keys.stream(topic), f"{since_ms}-0".encode()
    count = _FIRST
    while True:
        entries = store.call("XRANGE", stream, start, "+", "COUNT", count)
        records = [fields[1] for _, fields in entries]
        yield from records
        if len(entries) < count:
            return
        start = b"(" + entries[-1][0]
        size = sum(map(len, records)) // len(records) + 1
        count = max(1, min(_MOST, _CHUNK_BYTES // size))


def topics_of(store: Store, namespace: str) -> list[str]:
    """Return the topics of a namespace, in the order of their names."""
    prefix = store.keys.stream("")
    found = store.run(TOPICS, [store.keys.topics(namespace)], [prefix])
    return sorted(topic.decode() for topic in found)


def statistics(store: Store, present: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return numbers of the server, of each topic, and of each subscriber."""
    connected = set(present)
    streams = store.using(lambda link: _streams(link, store.keys.stream("*")))
    topics = {}
    for stream in streams:
        topic = store.keys.topic_of(stream)
        facts = store.using(lambda link, s=stream: _of_stream(link, s))  # type: ignore[misc]
        if facts is not None:
            facts["subscribers"] = _subscribers(store, topic, facts.pop("groups"), connected)
            topics[topic] = facts
    return {"server": {"address": store.settings.address, "topics": len(topics)}, "topics": topics}


def _streams(link: Link, pattern: str) -> list[str]:
    found: set[str] = set()
    cursor: Any = b"0"
    while True:
        cursor, names = link.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        found.update(name.decode() for name in names)
        if int(cursor) == 0:
            return sorted(found)


def _of_stream(link: Link, stream: str) -> dict[str, Any] | None:
    try:
        info = _facts(link.call("XINFO", "STREAM", stream))
        groups = [_facts(group) for group in link.call("XINFO", "GROUPS", stream)]
    except redis_errors.ResponseError as e:
        if "no such key" in str(e):  # gone meanwhile
            return None
        raise
    return {
        "messages_in": info["entries-added"],
        "stored": info["length"],
        "bytes": link.call("MEMORY", "USAGE", stream),
        "groups": groups,
    }


def _subscribers(
    store: Store, topic: str, groups: list[dict[str, Any]], connected: set[tuple[str, str]]
) -> dict[str, Any]:
    crashes = _crashes(store, topic)
    found: dict[str, dict[str, Any]] = {}
    for at, name in connected:
        if at == topic:
            found[name] = {"connected": True, "durable": False}
    for group in groups:
        name = group["name"].decode().rpartition("@")[0]
        found[name] = {
            "connected": (topic, name) in connected,
            "durable": True,
            "pending": group["pending"] + (group["lag"] or 0),
            "in_flight": group["pending"],
            "crashes": crashes.get(name, 0),
        }
    return found


def _crashes(store: Store, topic: str) -> dict[str, int]:
    fields = store.call("HGETALL", store.keys.holders(topic))
    found = {}
    for field, value in zip(fields[::2], fields[1::2], strict=True):
        kind, _, name = field.decode().partition(":")
        if kind == "crash":
            found[name] = int(value.split()[1])
    return found


def _facts(reply: list[Any]) -> dict[str, Any]:
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
