"""What topics, subscribers and their places are called in NATS. Without any I/O."""

from __future__ import annotations

import hashlib
import re
import secrets
import string

from rustic_ai.core.errors import MessagingError

_PLAIN = frozenset(string.ascii_letters + string.digits + "-_")
_ESCAPE = re.compile(r"(?:=[0-9A-F]{2})+")
_LONGEST = 1500
"""Of a subject or key, in bytes; the server reads lines of 4,096, and some hold it twice."""


def token_of(name: str) -> str:
    """Return a name as one token of a subject, from which `name_of` makes it again."""
    if not name:
        return "="
    return "".join(c if c in _PLAIN else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    return "".join(f"={byte:02X}" for byte in character.encode(errors="surrogatepass"))


def name_of(token: str) -> str:
    """Return the name of which `token_of` made a token."""
    if token == "=":  # noqa: S105 - an empty name
        return ""

    def plain(found: re.Match[str]) -> str:
        return bytes.fromhex(found[0].replace("=", "")).decode(errors="surrogatepass")

    return _ESCAPE.sub(plain, token)


def tokens_of_topic(topic: str) -> str:
    """Return a topic as one token, or two: before and behind its first colon.

    So the topics of a namespace have subjects that begin alike, and the server can list them.

    Raises:
        MessagingError: it is too long for a subject.
    """
    before, colon, behind = topic.partition(":")
    tokens = f"{token_of(before)}.{token_of(behind)}" if colon else token_of(topic)
    if len(tokens) > _LONGEST:
        raise MessagingError(
            summary=f"topic {topic[:60]!r}... has a name of {len(tokens):,} bytes, and NATS takes "
            f"{_LONGEST:,}",
            hint="give the topic, or its guild, a shorter name",
        )
    return tokens


def topic_of_tokens(tokens: str) -> str:
    """Return the topic that has these tokens."""
    return ":".join(map(name_of, tokens.split(".")))


def subject_of(stream: str, topic: str) -> str:
    """Return the subject of a topic."""
    return f"{stream}.{tokens_of_topic(topic)}"


def topic_of(stream: str, subject: str) -> str:
    """Return the topic of a subject."""
    return topic_of_tokens(subject[len(stream) + 1 :])


def key_of(topic: str, subscriber: str) -> str:
    """Return under which key the place of a subscriber in a topic is kept."""
    return f"{tokens_of_topic(topic)}.{token_of(subscriber)}"


def new_consumer(topic: str, subscriber: str) -> str:
    """Return a name for a consumer that reads for a place: each time another one."""
    place = f"{len(topic)} {topic} {subscriber}".encode(errors="surrogatepass")
    return f"{hashlib.blake2b(place, digest_size=10).hexdigest()}-{secrets.token_hex(6)}"
