"""One agent, wherever it runs: built, subscribed, started, fed with messages, stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from rustic_ai.core.class_names import load_class
from rustic_ai.core.guild.agent.agent import Agent, AgentSetup
from rustic_ai.core.guild.agent.dispatch import Dispatcher
from rustic_ai.core.guild.agent.outbox import Outbox
from rustic_ai.core.guild.di.container import DependencyContainer
from rustic_ai.core.guild.spec import AgentSpec, DependencySpec
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.client.client import SimpleClient
from rustic_ai.core.messaging.core.dead_letter import replay_topic
from rustic_ai.core.messaging.core.envelope import AgentTag
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.messaging_backend import NewPlace
from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface

logger = logging.getLogger(__name__)


class AgentLaunch(NamedTuple):
    """Who an agent is, for wherever it runs; pickles."""

    guild_id: str
    organization_id: str
    agent: AgentSpec
    guild_dependencies: Mapping[str, DependencySpec]


class Pulse(Protocol):
    """Is told around each message, so that others can see what an agent works on."""

    def begin(self, message_id: int) -> None:
        """A message is being handled."""

    def end(self, errors: int) -> None:
        """It has been, by handlers of which so many failed."""


class NoPulse:
    """Where nobody watches."""

    def begin(self, message_id: int) -> None:
        """Do nothing."""

    def end(self, errors: int) -> None:
        """Do nothing."""


def places_of(spec: AgentSpec) -> dict[str, bool]:
    """Return the topics that an agent listens to, and whether a new agent begins at their start.

    That is so for what is meant for nobody but this agent.
    """
    inbox, replays = GuildTopics.get_agent_inbox(spec.id), replay_topic(spec.id)
    return {t: t == inbox for t in spec.subscribed_topics} | {replays: True}


def declare_places(messaging: MessagingInterface, specs: Iterable[AgentSpec]) -> None:
    """Let messages wait for agents from now on, before they are there."""
    messaging.declare(
        NewPlace(topic, spec.id, from_start)
        for spec in specs
        for topic, from_start in places_of(spec).items()
    )


class AgentHost:
    """Runs one agent on the threads that bring it messages, one message at a time.

    Args:
        launch: the agent.
        messaging: the guild's messages; stays open.
        pulse: is told around each message.
    """

    def __init__(
        self, launch: AgentLaunch, messaging: MessagingInterface, pulse: Pulse | None = None
    ) -> None:
        spec = launch.agent
        self._pulse = pulse or NoPulse()
        self._spec = spec
        self._client = SimpleClient(
            AgentTag(spec.id, spec.name),
            messaging,
            self._receive,
            durable=True,
            max_attempts=spec.max_attempts,
        )
        self._outbox = Outbox(self._client)
        self._dependencies = DependencyContainer(
            launch.guild_dependencies,
            spec.dependency_map,
            organization_id=launch.organization_id,
            guild_id=launch.guild_id,
            agent_id=spec.id,
        )
        self._setup = AgentSetup(spec, launch.guild_id, self._dependencies, self._outbox)
        self._dispatcher: Dispatcher | None = None
        self._lock = threading.RLock()
        self._early: list[Message] = []
        self._started = self._stopped = False

    def start(self) -> None:
        """Build the agent, subscribe it, run its `on_start`.

        Raises:
            Exception: whatever the agent's constructor or hook raises; what was begun is undone.
        """
        try:
            agent = load_class(self._spec.class_name, Agent).create(self._setup)
            self._dispatcher = Dispatcher(agent, self._outbox)
            self._client.subscribe_all(places_of(self._spec))
            with self._lock:
                self._dispatcher.run(agent.on_start())
                self._started = True
                for message in self._early:
                    self._receive(message)
                self._early.clear()
        except BaseException:
            self._close()
            raise
        self._agent = agent

    def _receive(self, message: Message) -> None:
        with self._lock:
            if self._stopped:
                return
            if not self._started:  # its on_start is not through: the message waits
                self._early.append(message)
                return
            pulse, dispatcher = self._pulse, self._dispatcher
            assert dispatcher is not None
            pulse.begin(message.id)
            pulse.end(dispatcher.handle(message))

    def stop(self) -> None:
        """Let the message in hand finish, then run `on_stop` and close the dependencies.

        A failing `on_stop` is logged; the agent ends all the same.
        """
        self._end_subscriptions()  # first: what comes from now on is for the next process
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            assert self._dispatcher is not None
            try:
                self._dispatcher.run(self._agent.on_stop())
            except Exception:
                logger.exception("on_stop of %s failed", self._spec.name)
        self._close()

    def _end_subscriptions(self) -> None:
        try:
            self._client.close()
        except Exception:
            logger.exception("unsubscribing %s failed", self._spec.name)

    def _close(self) -> None:
        self._stopped = True
        self._end_subscriptions()
        if self._dispatcher is not None:
            self._dispatcher.close()
        self._dependencies.close()
