"""The connection to the server, made again when it is lost. Everything here runs on the loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.client import JetStreamContext

from rustic_ai.core.errors import BackendClosedError, BackendUnavailableError, MessagingError
from rustic_ai.nats.client import NatsClient, dial, status_of
from rustic_ai.nats.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_DEADLINE = 5.0
"""Seconds in which the server answers, or the question is asked again."""
_PATIENCE_AT_START = 1.5
"""Seconds for which a server that nobody has seen yet is looked for: it may be starting."""
_ALIVE = "alive"
"""Last token of a subject under which each client answers."""
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 1.0


class LinkDownError(Exception):
    """The connection was lost before the answer came: nobody knows whether it was heard."""


PASSING = (
    LinkDownError,
    TimeoutError,
    nats.errors.TimeoutError,
    nats.errors.NoRespondersError,
    nats.errors.ConnectionClosedError,
    nats.js.errors.ServiceUnavailableError,
    nats.js.errors.NoStreamResponseError,
)
"""What may go well a moment later."""


Answer = asyncio.Future["Msg | None"]
"""None: the connection was lost."""


class Channel(NamedTuple):
    """Where a consumer sends its messages."""

    subject: str
    """Add one more token to it, to tell words of the server apart."""
    subscription: Subscription

    async def close(self) -> None:
        """Let nothing more come; not an error where it has ended with its connection."""
        with contextlib.suppress(nats.errors.Error):
            await self.subscription.unsubscribe()


class Connection:
    """Asks and publishes; while there is no server, looks for it.

    Args:
        settings: where it is, and for how long it is looked for.
        restore: makes anew what the other side may have forgotten, before anybody goes on.
        lost: is told when the server is given up.
    """

    def __init__(
        self,
        settings: Settings,
        restore: Callable[[], Awaitable[None]],
        lost: Callable[[Exception], None],
    ) -> None:
        self.settings = settings
        self._restore = restore
        self._tell_lost = lost
        self._client: NatsClient | None = None
        self._js: JetStreamContext | None = None
        self._discovered: list[str] = []
        self._numbers = itertools.count(1)
        self._requests: dict[str, Answer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._down = asyncio.Event()
        self._usable = asyncio.Event()
        self._failure: Exception | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.inbox = ""
        """What reply subjects begin with; names this object to others."""

    # Life

    async def open(self) -> None:
        """Connect, restore, and look after the connection from then on.

        Raises:
            BackendUnavailableError: nobody is there.
            AccessError: the server does not let us in.
            MessagingConfigError: a setting is wrong.
        """
        deadline = time.monotonic() + min(_PATIENCE_AT_START, self.settings.reconnect_timeout)
        wait = _FIRST_WAIT
        while True:
            try:
                ended = await self._dial()
                break
            except BackendUnavailableError as e:
                wait = min(2 * wait, _LONGEST_WAIT)
                if time.monotonic() + wait > deadline or "nobody listens" not in e.reason:
                    raise
            await asyncio.sleep(wait)
        try:
            await self._restore()
        except PASSING as e:
            await self.close()
            raise BackendUnavailableError(
                address=self.settings.address, reason=str(e) or "it does not answer"
            ) from e
        except BaseException:
            await self.close()
            raise
        self._usable.set()
        self._keeper = asyncio.create_task(self._keep(ended))

    async def _dial(self) -> asyncio.Event:
        client = await dial(self.settings, self._discovered)
        self._client = client
        client.at_end = partial(self._fall, client)
        self._js = client.jetstream(timeout=ANSWER_DEADLINE)
        if not self.inbox:
            self.inbox = client.new_inbox()
        known = set(self.settings.servers)
        self._discovered = [u for s in client.servers if (u := s.geturl()) not in known]
        self._down = asyncio.Event()
        await client.subscribe(
            f"{self.inbox}.*", cb=self._route, pending_msgs_limit=0, pending_bytes_limit=0
        )
        return client.ended

    async def _keep(self, ended: asyncio.Event) -> None:
        try:
            while True:
                await ended.wait()
                logger.info("connection to NATS at %s lost", self.settings.address)
                ended = await self._return()
        except MessagingError as e:
            self._give_up(e)
        except Exception as e:
            logger.exception("the connection to NATS cannot be kept")
            self._give_up(BackendUnavailableError(address=self.settings.address, reason=str(e)))

    def _fall(self, client: NatsClient | None) -> None:
        """Let everybody know that a connection has ended, unless it is an old one."""
        if client is not self._client:
            return
        if self._failure is None:
            self._usable.clear()
        self._down.set()
        for answer in self._requests.values():
            if not answer.done():
                answer.set_result(None)
        self._requests.clear()

    async def _return(self) -> asyncio.Event:
        """Connect again and restore, until the time is over."""
        patience = self.settings.reconnect_timeout
        reason, wait = "the connection was lost", _FIRST_WAIT
        deadline = time.monotonic() + patience
        try:
            async with asyncio.timeout(patience):
                while time.monotonic() < deadline:  # nats-py may swallow a cancellation
                    try:
                        ended = await self._dial()
                        await self._restore()
                    except BackendUnavailableError as e:
                        reason = e.reason
                    except PASSING as e:
                        reason = str(e) or reason
                    else:
                        logger.info("connected to NATS at %s again", self.settings.address)
                        self._usable.set()
                        return ended
                    await self._drop_client()
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, _LONGEST_WAIT)
        except TimeoutError:
            logger.debug("looking for NATS took too long", exc_info=True)
        raise BackendUnavailableError(
            address=self.settings.address,
            reason=f"it did not come back within {patience:g} s ({reason})",
        )

    def _give_up(self, failure: Exception) -> None:
        self._failure = failure
        self._usable.set()  # who waits looks, and finds the failure
        self._tell_lost(failure)

    async def close(self) -> None:
        """End the connection; who still waits for something gets a `BackendClosedError`."""
        if self._failure is None:
            self._failure = BackendClosedError()
        self._usable.set()
        keeper, self._keeper = self._keeper, None
        while keeper is not None and not keeper.done():
            keeper.cancel()  # which nats-py may swallow
            await asyncio.wait([keeper], timeout=0.2)
        await self._drop_client()

    async def _drop_client(self) -> None:
        client = self._client
        if client is not None:
            await client.end()
            self._client = None

    # Asking

    @property
    def is_usable(self) -> bool:
        """Whether the server is there."""
        return self._usable.is_set() and self._failure is None

    async def ready(self) -> None:
        """Wait until the server is there.

        Raises:
            BackendUnavailableError: it was given up.
        """
        await self._usable.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def js(self) -> JetStreamContext:
        """What manages streams and consumers; await its methods through `attempt`."""
        if self._js is None or self._client is None:
            raise LinkDownError
        return self._js

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes at most in one message, headers included."""
        return self._client.max_payload if self._client is not None else 1 << 20

    async def attempt(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something that needs the connection.

        Raises:
            LinkDownError: it was lost meanwhile.
        """
        task = asyncio.ensure_future(work)
        down = asyncio.ensure_future(self._down.wait())
        try:
            await asyncio.wait([task, down], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise LinkDownError
            return task.result()
        finally:
            down.cancel()
            task.cancel()

    async def retried(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do something as soon as the server is there, and again where that was in vain.

        Args:
            make: does it; it may have been done before, wholly or in part.

        Raises:
            BackendUnavailableError: the server is gone.
        """
        deadline = time.monotonic() + self.settings.reconnect_timeout + ANSWER_DEADLINE
        wait = _FIRST_WAIT
        while True:
            await self.ready()
            try:
                return await make()
            except PASSING as e:
                if time.monotonic() > deadline:
                    raise BackendUnavailableError(
                        address=self.settings.address, reason=str(e) or "it does not answer"
                    ) from e
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def listen(self, handler: Callable[[Msg], None]) -> Channel:
        """Have `handler` called with what a consumer sends, until the channel is closed.

        Its messages come with the subjects that they are stored under, so each consumer needs a
        subscription of its own. It ends with the connection.
        """
        if self._client is None:
            raise LinkDownError
        subject = f"{self.inbox}.{next(self._numbers)}"

        async def take(message: Msg) -> None:
            handler(message)

        try:
            subscription = await self._client.subscribe(
                f"{subject}.*", cb=take, pending_msgs_limit=0, pending_bytes_limit=0
            )
        except nats.errors.ConnectionClosedError as e:
            raise LinkDownError from e
        return Channel(subject, subscription)

    async def _route(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        answer = self._requests.pop(token, None)
        if answer is not None:
            if not answer.done():
                answer.set_result(message)
        elif token == _ALIVE:
            self.spawn(self.publish(message.reply, b""))

    async def publish(
        self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send a message, which may get lost.

        Raises:
            LinkDownError: it was not sent.
        """
        if self._client is None:
            raise LinkDownError
        try:
            await self._client.publish(subject, data, reply, headers)
        except nats.errors.ConnectionClosedError as e:
            raise LinkDownError from e

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for, and that does no harm where it is in vain."""
        task = asyncio.ensure_future(self._harmless(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _harmless(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except PASSING:
            logger.debug("a word to NATS was lost with the connection")
        except Exception:
            logger.exception("a word to NATS could not be said")

    async def request(
        self, subject: str, data: bytes, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a question; returns what `answer` waits for."""
        token = str(next(self._numbers))
        future: Answer = asyncio.get_running_loop().create_future()
        self._requests[token] = future
        try:
            await self.publish(subject, data, f"{self.inbox}.{token}", headers)
        except BaseException:
            self._requests.pop(token, None)
            raise
        return future

    @staticmethod
    async def answer(future: Answer, timeout: float = ANSWER_DEADLINE) -> Msg:  # noqa: ASYNC109
        """Wait for the answer to a request.

        Raises:
            LinkDownError: the connection was lost.
            TimeoutError: none came.
        """
        message = future.result() if future.done() else await asyncio.wait_for(future, timeout)
        if message is None:
            raise LinkDownError
        return message

    async def ask(self, subject: str, data: bytes, timeout: float = ANSWER_DEADLINE) -> Msg:  # noqa: ASYNC109
        """Ask, and wait for the answer.

        Raises:
            LinkDownError: the connection was lost.
            TimeoutError: none came.
            NoRespondersError: nobody listens to that subject.
        """
        found = await self.answer(await self.request(subject, data), timeout)
        if status_of(found) == "503":
            raise nats.errors.NoRespondersError
        return found

    async def is_there(self, inbox: str) -> bool:
        """Say whether another object of this kind is connected, by its inbox."""
        try:
            with contextlib.suppress(TimeoutError):  # then it is connected, and busy or stopped
                await self.ask(f"{inbox}.{_ALIVE}", b"", timeout=1.0)
        except nats.errors.NoRespondersError:
            return False
        return True
