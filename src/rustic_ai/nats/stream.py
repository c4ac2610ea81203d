"""The stream that keeps all messages of a prefix, and the bucket of its subscribers' places."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import nats.errors
import nats.js.errors
from nats.js import api
from nats.js.client import JetStreamContext
from nats.js.kv import KeyValue

from rustic_ai.core.errors import AccessError, BackendUnavailableError, MessagingConfigError
from rustic_ai.nats.connection import Connection
from rustic_ai.nats.names import name_of, subject_of, topic_of
from rustic_ai.nats.settings import NEW_BOUNDS, Bounds, Settings

logger = logging.getLogger(__name__)

DUPLICATE_SECONDS = 120.0
"""For how long the server knows a message again that is sent once more."""
_NAME_IN_USE = 10058


class Stored(NamedTuple):
    """A message of the stream."""

    seq: int
    record: bytes


class Stream:
    """Makes the stream and the bucket, and answers simple questions about them.

    Args:
        connection: to the server.
        settings: what they are to be like.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self.name = settings.stream
        self.bucket_name = f"{settings.stream}_places"
        self.born = ""
        """When the stream was made: another time, and its numbers mean something else."""
        self._bucket: KeyValue | None = None

    async def ensure(self) -> None:
        """Make stream and bucket where they are not there.

        Raises:
            BackendUnavailableError: the server has no JetStream.
            AccessError: it does not let us use it.
            MessagingConfigError: it cannot make the stream that the settings describe.
        """
        attempt, js = self._connection.attempt, self._connection.js
        try:
            info = await attempt(self._found_or_made(js))
            self._check_storage(info)
            self._bucket = await attempt(self._found_or_made_bucket(js))
        except nats.js.errors.ServiceUnavailableError as e:
            raise self._no_jetstream(e) from e
        except nats.js.errors.APIError as e:
            if e.code == 503 or "not enabled" in (e.description or ""):
                raise self._no_jetstream(e) from e
            raise MessagingConfigError(
                summary=f"the NATS server at {self._settings.address} cannot make the stream "
                f"{self.name!r}: {e.description}",
                hint="look at settings 'storage', 'replicas' and 'max_bytes', and at the limits of "
                "the server's JetStream",
            ) from e
        self.born = await self._birth()

    async def _birth(self) -> str:
        # Asked for by hand: older nats-py leave it out.
        answer = await self._connection.ask(f"$JS.API.STREAM.INFO.{self.name}", b"")
        return str(json.loads(answer.data).get("created", ""))

    def _no_jetstream(self, error: nats.js.errors.APIError) -> BackendUnavailableError:
        told = f" ({error.description})" if error.description else ""
        return BackendUnavailableError(
            address=self._settings.address,
            reason=f"JetStream is not enabled there{told}",
            hint="start it with nats-server -js, or enable JetStream for this account",
        )

    async def _found_or_made(self, js: JetStreamContext) -> api.StreamInfo:
        try:
            found = await js.stream_info(self.name)
        except nats.js.errors.NotFoundError as e:
            if "not enabled" in (e.description or ""):
                raise
            return await self._made(js)
        except nats.errors.TimeoutError as e:
            if self.born:
                raise
            raise AccessError(
                summary=f"the NATS server at {self._settings.address} does not answer about the "
                f"stream {self.name!r}",
                hint="let this user publish to $JS.API.> and subscribe to _INBOX.>, or it is too "
                "busy",
            ) from e
        wanted = _bounded(found.config, self._settings.bounds)
        if wanted != found.config:
            await js.update_stream(wanted)
        return found

    async def _made(self, js: JetStreamContext) -> api.StreamInfo:
        given, usual = self._settings.bounds, NEW_BOUNDS[self._settings.storage]
        bounds = Bounds(
            max_messages=given.max_messages or usual.max_messages,
            max_bytes=given.max_bytes or usual.max_bytes,
            max_age=given.max_age or usual.max_age,
        )
        config = api.StreamConfig(
            name=self.name,
            description="Messages of Rustic guilds",
            subjects=[f"{self.name}.>"],
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.OLD,
            storage=api.StorageType(self._settings.storage),
            num_replicas=self._settings.replicas,
        )
        try:
            return await js.add_stream(_bounded(config, bounds))
        except nats.js.errors.APIError as e:
            if e.err_code != _NAME_IN_USE:
                raise
            return await js.stream_info(self.name)  # somebody was faster

    async def _found_or_made_bucket(self, js: JetStreamContext) -> KeyValue:
        try:
            return await js.key_value(self.bucket_name)
        except nats.js.errors.NotFoundError:
            config = api.KeyValueConfig(
                bucket=self.bucket_name,
                description="Places of subscribers to Rustic guilds",
                storage=api.StorageType(self._settings.storage),
                replicas=self._settings.replicas,
            )
        try:
            return await js.create_key_value(config)
        except nats.js.errors.APIError as e:
            if e.err_code != _NAME_IN_USE:
                raise
            return await js.key_value(self.bucket_name)

    def _check_storage(self, info: api.StreamInfo) -> None:
        has, wants = info.config.storage, self._settings.storage
        if has is not None and str(getattr(has, "value", has)) != wants:
            raise MessagingConfigError(
                summary=f"setting 'storage' of the NATS backend: the stream {self.name!r} is there "
                f"and is not kept in {wants!r}",
                hint="choose another 'stream', or remove that one: a stream cannot move",
            )

    # Questions; each raises `LinkDownError` where the connection is lost meanwhile

    @property
    def bucket(self) -> KeyValue:
        """Where places are kept."""
        assert self._bucket is not None, "`ensure` comes first"
        return self._bucket

    async def last_seq(self) -> int:
        """Return the number of the last message."""
        info = await self._info()
        return info.state.last_seq

    async def _info(self, subjects: str | None = None) -> api.StreamInfo:
        return await self._connection.attempt(
            self._connection.js.stream_info(self.name, subjects_filter=subjects)
        )

    async def topics(self, namespace_tokens: str) -> list[str]:
        """Return the topics whose subjects begin with the tokens of a namespace."""
        info = await self._info(f"{self.name}.{namespace_tokens}.>")
        return [topic_of(self.name, subject) for subject in info.state.subjects or ()]

    async def keys(self, pattern: str) -> list[str]:
        """Return the keys of the bucket that match a pattern of subjects."""
        begin = f"$KV.{self.bucket_name}."
        info = await self._connection.attempt(
            self._connection.js.stream_info(
                f"KV_{self.bucket_name}", subjects_filter=begin + pattern
            )
        )
        return [subject.removeprefix(begin) for subject in info.state.subjects or ()]

    async def drop_key(self, key: str) -> None:
        """Take a key off the bucket, without a trace."""
        subject = f"$KV.{self.bucket_name}.{key}"
        work = self._connection.js.purge_stream(f"KV_{self.bucket_name}", subject=subject)
        await self._connection.attempt(work)

    async def first_from(self, topic: str, seq: int) -> Stored | None:
        """Return the first message of a topic from a number on."""
        js, subject = self._connection.js, subject_of(self.name, topic)
        try:
            found = await self._connection.attempt(
                js.get_msg(self.name, seq=max(1, seq), subject=subject, next=True)
            )
        except nats.js.errors.NotFoundError:
            return None
        return Stored(found.seq or 0, found.data or b"")

    async def statistics(self) -> dict[str, Any]:
        """Return how much the stream holds, and how far its consumers are."""
        info, consumers = await self._info(), await self.consumers()
        return {
            "stream": {
                "name": self.name,
                "messages": info.state.messages,
                "bytes": info.state.bytes,
                "first": info.state.first_seq,
                "last": info.state.last_seq,
            },
            "subscribers": [
                {
                    "topic": name_of(told["topic"]),
                    "subscriber": name_of(told["subscriber"]),
                    "durable": consumer.config.durable_name is not None,
                    "waiting": consumer.num_pending or 0,
                    "in_hand": consumer.num_ack_pending or 0,
                }
                for consumer in consumers
                if "topic" in (told := consumer.config.metadata or {})
            ],
        }

    async def consumers(self) -> list[api.ConsumerInfo]:
        """Return all consumers of the stream."""
        found: list[api.ConsumerInfo] = []
        while True:
            work = self._connection.js.consumers_info(self.name, offset=len(found))
            page: Sequence[api.ConsumerInfo] = await self._connection.attempt(work)
            found += page
            if not page:
                return found

    async def consumer(self, name: str) -> api.ConsumerInfo | None:
        """Return how a consumer is; None: there is none of that name."""
        work = self._connection.js.consumer_info(self.name, name)
        try:
            found: api.ConsumerInfo = await self._connection.attempt(work)
        except nats.js.errors.NotFoundError:
            return None
        return found

    async def add_consumer(self, name: str, topic: str, **config: Any) -> int:
        """Make a consumer of a topic; returns how many messages there are for it.

        Args:
            name: of the consumer; making the same again changes nothing.
            topic: what it is to read.
            config: as JetStream's API has it, times in nanoseconds. Written by hand, since
                versions of nats-py differ in what they make of it.
        """
        subject = subject_of(self.name, topic)
        wanted = {"name": name, "filter_subject": subject, "replay_policy": "instant", **config}
        answer = await self._connection.ask(
            f"$JS.API.CONSUMER.CREATE.{self.name}.{name}.{subject}",
            json.dumps({"stream_name": self.name, "config": wanted, "action": ""}).encode(),
        )
        word: dict[str, Any] = json.loads(answer.data)
        if "error" in word:
            nats.js.errors.APIError.from_error(word["error"])
        return int(word.get("num_pending", 0))

    async def drop_consumer(self, name: str) -> None:
        """Delete a consumer; not an error where there is none."""
        work = self._connection.js.delete_consumer(self.name, name)
        try:
            await self._connection.attempt(work)
        except nats.js.errors.NotFoundError:
            logger.debug("consumer %s is gone already", name)


def _bounded(config: api.StreamConfig, bounds: Bounds) -> api.StreamConfig:
    """Return a configuration with these bounds, where they are given."""
    changed: dict[str, Any] = {}
    if bounds.max_messages is not None:
        changed["max_msgs"] = bounds.max_messages
    if bounds.max_bytes is not None:
        changed["max_bytes"] = bounds.max_bytes
    if bounds.max_age is not None:
        changed["max_age"] = bounds.max_age
    age = changed.get("max_age", config.max_age or 0) or DUPLICATE_SECONDS
    changed["duplicate_window"] = min(DUPLICATE_SECONDS, age)
    return replace(config, **changed)
