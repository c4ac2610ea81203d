"""A guild in the hands of the program that runs it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rustic_ai.core.errors import BackendClosedError
from rustic_ai.core.guild.agent.outbox import Payload
from rustic_ai.core.guild.driver import Collector, Driver
from rustic_ai.core.guild.execution.engine import ExecutionEngine, raise_all
from rustic_ai.core.guild.execution.engine_names import find_engine, settings_for
from rustic_ai.core.guild.execution.stats import ExitReport
from rustic_ai.core.guild.spec import (
    AgentSpec,
    DependencySpec,
    GuildProperties,
    GuildSpec,
)
from rustic_ai.core.guild.system_messages import GuildFinished, GuildStarted, ProgressReport
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.envelope import AgentTag
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface

if TYPE_CHECKING:
    from rustic_ai.core.messaging.core.payloads.arrays import Array


class Guild:
    """A named group of agents, their messages, and the engines that run them.

    Nothing is started before the first launch or message. As a context manager it shuts down at
    the end of the block.

    Args:
        guild_id: names its topics on a shared message server.
        execution_engine: where agents run that are launched without an engine of their own;
            default: a multiprocess engine of the guild's.
        messaging_config: how messages travel, as a configuration or an address such as
            ``redis://localhost:6379/0``; default: the embedded server.
        name: what people call it; default: its id.
        description: what it is for.
        organization_id: passed to dependency resolvers.
        dependency_map: dependencies that all agents share; values or `DependencySpec`.
    """

    def __init__(
        self,
        guild_id: str,
        execution_engine: ExecutionEngine | None = None,
        messaging_config: MessagingConfig | Mapping[str, Any] | str | None = None,
        *,
        name: str = "",
        description: str = "",
        organization_id: str = "",
        dependency_map: Mapping[str, Any] | None = None,
    ) -> None:
        config = None if messaging_config is None else MessagingConfig.of(messaging_config)
        shared = {k: DependencySpec.of(v) for k, v in (dependency_map or {}).items()}
        self._base = GuildSpec(
            id=guild_id,
            name=name or guild_id,
            description=description,
            properties=GuildProperties(messaging=config),
            dependency_map=shared,
        )
        self._set_up(execution_engine, organization_id)

    @classmethod
    def from_spec(
        cls,
        spec: GuildSpec,
        execution_engine: ExecutionEngine | None = None,
        organization_id: str = "",
    ) -> Guild:
        """Make the guild of a spec; its agents start with `launch_all`."""
        guild = cls.__new__(cls)
        guild._base = spec  # noqa: SLF001 - an alternative constructor
        guild._set_up(execution_engine, organization_id)  # noqa: SLF001
        return guild

    def _set_up(self, engine: ExecutionEngine | None, organization_id: str) -> None:
        self._organization_id = organization_id
        self._planned = {agent.id: agent for agent in self._base.agents}
        self._engine_of: dict[str, ExecutionEngine] = {}
        self._specs: dict[str, AgentSpec] = {}
        self._default_engine = engine
        self._engines: list[ExecutionEngine] = []
        self._lock = threading.RLock()
        self._messaging: MessagingInterface | None = None
        self._driver: Driver | None = None
        self._closed = False

    @property
    def id(self) -> str:
        """Its id."""
        return self._base.id

    @property
    def name(self) -> str:
        """What people call it."""
        return self._base.name

    def to_spec(self) -> GuildSpec:
        """Return the description of the guild with the agents that it has now."""
        agents = {**self._planned, **self._specs}
        return self._base.model_copy(update={"agents": tuple(agents.values())})

    # Agents

    def launch_agent(
        self, agent_spec: AgentSpec, execution_engine: ExecutionEngine | None = None
    ) -> None:
        """Start an agent, and return when it is ready; errors as in `ExecutionEngine.run_agent`.

        Args:
            agent_spec: the agent.
            execution_engine: where it runs; default: the guild's engine.
        """
        self.launch_agents([agent_spec], execution_engine)

    def launch_agents(
        self, agent_specs: Sequence[AgentSpec], execution_engine: ExecutionEngine | None = None
    ) -> None:
        """Start agents at the same time; returns when all are ready.

        What is wrong with a spec, and too little room for all, is raised before anything starts.
        Agents that start although others do not go on.

        Args:
            agent_specs: the agents.
            execution_engine: where they run; default: the guild's engine.

        Raises:
            AgentStartError: one did not become ready.
            ExceptionGroup: several did not; of their errors.
        """
        engine = execution_engine or self._own_engine()
        self._adopt(engine)
        failures = engine.run_agents(
            self._base, agent_specs, self._messaging_config(), messaging=self._open_messaging
        )
        with self._lock:
            for agent_spec in agent_specs:
                if agent_spec.id not in failures:
                    self._planned.pop(agent_spec.id, None)
                    self._specs[agent_spec.id] = agent_spec
                    self._engine_of[agent_spec.id] = engine
        raise_all(failures)

    def launch_all(self) -> None:
        """Start the agents of the spec that do not run yet, at the same time; then announce it."""
        self.launch_agents(list(self._planned.values()))
        self.announce_start()

    def announce_start(self) -> None:
        """Tell every agent that the guild is complete (`GuildStarted`)."""
        agents = {agent.id: agent.name for agent in self.list_agents()}
        self.publish(GuildStarted(guild_id=self.id, agents=agents), topics=GuildTopics.SYSTEM_TOPIC)

    def remove_agent(self, agent_id: str) -> None:
        """Stop an agent and forget it, and what waits for it; an unknown one is not an error."""
        with self._lock:
            self._planned.pop(agent_id, None)
            self._specs.pop(agent_id, None)
            engine = self._engine_of.pop(agent_id, None)
        if engine is not None:
            engine.stop_agent(self.id, agent_id)
            messaging = self._messaging
            if messaging is not None:
                messaging.disown(agent_id)

    def get_agent(self, agent_id: str) -> AgentSpec | None:
        """Return the spec of an agent."""
        return self._specs.get(agent_id) or self._planned.get(agent_id)

    def get_agent_by_name(self, name: str) -> AgentSpec | None:
        """Return the spec of the first agent of that name."""
        return next((agent for agent in self.list_agents() if agent.name == name), None)

    def list_agents(self) -> list[AgentSpec]:
        """Return the specs of all agents, running or not."""
        return list(self.to_spec().agents)

    def get_agent_count(self) -> int:
        """Return how many agents it has."""
        return len(self.list_agents())

    def is_agent_running(self, agent_id: str) -> bool:
        """Say whether an agent is ready and alive."""
        engine = self._engine_of.get(agent_id)
        return engine is not None and engine.is_agent_running(self.id, agent_id)

    def list_all_running_agents(self) -> list[AgentSpec]:
        """Return the specs of the agents that are ready and alive."""
        return [agent for agent in self.list_agents() if self.is_agent_running(agent.id)]

    def get_process_info(self, agent_id: str) -> dict[str, Any]:
        """Return what its engine tells of an agent's process; empty for an unknown agent."""
        engine = self._engine_of.get(agent_id)
        return engine.get_process_info(self.id, agent_id) if engine is not None else {}

    # Messages

    def publish(
        self, payload: Payload, topics: str | list[str] | None = None, **options: Any
    ) -> Message:
        """Send a message to the guild; returns it once it was accepted.

        Args:
            payload: as in `ProcessContext.send`.
            topics: default: the topic that agents listen to by default.
            options: `format` and `priority`, `recipients`, `ttl`, `store`, `pickle` as there.
        """
        return self._open_driver().publish(payload, topics or GuildTopics.DEFAULT_TOPICS, **options)

    def request(
        self,
        payload: Payload,
        topics: str | list[str] | None = None,
        *,
        timeout: float = 30.0,
        **options: Any,
    ) -> Message:
        """Send a message and return the first answer to it.

        Args:
            payload: as in `publish`.
            topics: default: the topic that agents listen to by default. To ask one agent, its
                inbox: ``GuildTopics.get_agent_inbox(agent_id)``.
            timeout: seconds to wait.
            options: as in `publish`.

        Raises:
            AgentError: the agent's handler failed; with its traceback.
            RequestTimeoutError: nobody answered in time.
        """
        chosen = topics or GuildTopics.DEFAULT_TOPICS
        return self._open_driver().request(payload, chosen, timeout, **options)

    def allocate(self, shape: int | Sequence[int], dtype: Any = "float64") -> Array:
        """Return a numpy array to fill in place and send, as `ProcessContext.allocate`."""
        return self._open_driver().allocate(shape, dtype)

    def unpickle(self, message: Message) -> Any:
        """Return the payload of a message of this guild that was sent with `pickle=True`.

        Raises:
            PickleRefusedError: not all who can publish here are known to be this user.
        """
        return self._open_driver().unpickle(message)

    def get_messages(self, topic: str, since: int | None = None) -> list[Message]:
        """Return what `topic` has got so far, oldest first.

        Args:
            topic: the topic.
            since: id of a message; only what came after it is returned.
        """
        return self._open_messaging().get_messages(topic, since)

    def get_dead_letters(self) -> list[Message]:
        """Return messages that agents could not handle, oldest first.

        `Message.dead_letter` says where each came from, who gave it up, when and why.
        """
        return self._open_messaging().get_messages(GuildTopics.DEAD_LETTER_TOPIC)

    def replay(self, dead_letter: Message) -> None:
        """Give a dead letter to the agent that could not handle it once more."""
        self._open_messaging().replay(dead_letter)

    def get_messaging_statistics(self) -> dict[str, Any]:
        """Return what the message store tells of itself, its topics and their subscribers."""
        return self._open_messaging().backend.get_statistics()

    def collect(self, topic: str) -> Collector:
        """Return a context manager that collects what `topic` gets from its start on."""
        return self._open_driver().collect(topic)

    def wait(
        self,
        timeout: float | None = None,
        on_progress: Callable[[ProgressReport, AgentTag], None] | None = None,
    ) -> GuildFinished:
        """Wait until an agent says that the guild's work is done (`ctx.finish_guild`).

        Args:
            timeout: seconds; None: as long as it takes. Ctrl-C ends the wait.
            on_progress: called on this thread with the reports of agents on their way.

        Raises:
            RequestTimeoutError: it took longer.
            GuildFailedError: an agent died, so that the work may never be done.
        """
        return self._open_driver().wait(timeout, on_progress)

    # Life

    def shutdown(self, timeout: float | None = None) -> None:
        """End all agents on all engines, and the guild's messages; returns when all are gone.

        Again: does nothing. Publishing or launching afterwards is refused.

        Args:
            timeout: seconds that agents have for the message in hand; default: the engine's.
        """
        with self._lock:
            engines = list(self._engines)
        for engine in engines:
            engine.shutdown(timeout)
        with self._lock:
            self._closed = True
            self._engine_of.clear()
            self._driver = None
            messaging, self._messaging = self._messaging, None
        if messaging is not None:
            messaging.close()

    def terminate(self) -> None:
        """Press a running `shutdown` on: end every agent's process now (SIGTERM)."""
        for engine in list(self._engines):
            engine.terminate()

    def kill(self) -> None:
        """Press a running `shutdown` on: end every agent's process (SIGKILL)."""
        for engine in list(self._engines):
            engine.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    # What is made on first use

    def _own_engine(self) -> ExecutionEngine:
        with self._lock:
            if self._default_engine is None:
                wanted = self._base.properties.execution_engine
                engine_class = find_engine(wanted)
                properties = self._base.properties
                options = settings_for(engine_class, properties)
                if wanted == "multiprocess" and properties.max_processes is None:
                    options["max_processes"] = self._room()
                self._default_engine = engine_class(
                    self.id, organization_id=self._organization_id, **options
                )
            return self._default_engine

    def _room(self) -> int | None:
        """Return a limit that lets all agents of the spec run; None: the engine's default."""
        agents = len(self._base.agents)
        return agents if agents > (os.cpu_count() or 1) else None

    def _adopt(self, engine: ExecutionEngine) -> None:
        with self._lock:
            if engine not in self._engines:
                self._engines.append(engine)
                engine.add_exit_listener(self._agent_ended)

    def _agent_ended(self, report: ExitReport) -> None:
        driver = self._driver
        if driver is not None and report.failed and report.is_final:
            driver.agent_failed(report)

    def _messaging_config(self) -> MessagingConfig:
        config = self._base.properties.messaging
        if config is None:
            from rustic_ai.core.messaging.backend.embedded_backend import (
                create_embedded_messaging_config,
            )

            config = MessagingConfig.of(create_embedded_messaging_config())
        return config

    def _open_messaging(self) -> MessagingInterface:
        self._open_driver()
        assert self._messaging is not None
        return self._messaging

    def _open_driver(self) -> Driver:
        with self._lock:
            if self._closed:
                raise BackendClosedError(summary=f"guild {self.id!r} was shut down")
            if self._driver is None:
                messaging = MessagingInterface(self.id, self._messaging_config())
                try:
                    self._driver = Driver(self.id, messaging)
                except BaseException:
                    messaging.close()
                    raise
                self._messaging = messaging
            return self._driver
