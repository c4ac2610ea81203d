"""Runs every agent in an actor of a Ray cluster."""

from __future__ import annotations

import atexit
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rustic_ai.core.errors import (
    AgentStartError,
    DuplicateAgentError,
    EngineClosedError,
    GuildError,
    ProcessLimitError,
)
from rustic_ai.core.guild.execution.checks import checked_spec
from rustic_ai.core.guild.execution.engine import MessagingSource
from rustic_ai.core.guild.execution.host import AgentLaunch, declare_places
from rustic_ai.core.guild.execution.multiprocess.pickle_path import pickle_launch
from rustic_ai.core.guild.execution.stats import AgentState, EngineStats, ExitReport
from rustic_ai.core.guild.execution.supervision.engine import SupervisingEngine, shut_down_at_exit
from rustic_ai.core.guild.spec import AgentSpec, GuildSpec, ResourceSpec
from rustic_ai.core.guild.supervision import (
    NO_LIMITS,
    TEMPORARY,
    ResourceLimits,
    RestartPolicy,
    Strategy,
)
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.ray.agent import RayAgent
from rustic_ai.ray.checks import refuse_local_classes, refuse_local_messages
from rustic_ai.ray.cluster import Cluster
from rustic_ai.ray.directory import Record, look_at, records_of
from rustic_ai.ray.installed import NAMESPACE, import_ray
from rustic_ai.ray.placement import actor_name, placement_of
from rustic_ai.ray.running import Running
from rustic_ai.ray.supervisor import Settings
from rustic_ai.ray.wish import wish_of

_Key = tuple[str, str]


class RayExecutionEngine(SupervisingEngine):
    """Spreads agents over the nodes of a Ray cluster: each is a named actor in a worker process.

    The cluster is joined when it is first needed. Nodes need this package and the agents' modules;
    what exists on a node of the program's ``sys.path`` is looked at there, too. Nothing else is
    sent but `runtime_env`. Agents end with the program; a program that ends without `shutdown` has
    it called at exit.

    The engine itself starts agents again, by the same rules as the multiprocess engine: Ray's
    `max_restarts` (0 here) knows a number, but no exit code ('transient'), period, backoff or
    report. What Ray does not tell stays unknown: the exit code of an actor that died on another
    machine counts as a failure. There is no heartbeat: an actor that hangs is not killed.

    Agents that other engines run in the same guild and cluster are listed and can be asked about;
    only the engine that started an agent stops it.

    Args:
        guild_id: ID of the guild this engine manages.
        max_processes: maximum number of agents; default: as many as the cluster has room for.
        organization_id: passed to dependency resolvers.
        address: HOST:PORT of the cluster; 'auto': the one of this machine; 'local': one of the
            engine's own; None: ``RAY_ADDRESS``, that of this machine, or else one of its own. What
            the engine starts, it stops.
        resources: what agents need whose spec does not say: Ray's `num_cpus`, `num_gpus`, and
            `custom` ones.
        runtime_env: Ray's description of what agents' workers get: `working_dir`, `pip`,
            `env_vars` and so on.
        ray_options: more arguments of `ray.init`.
        restart_policy: for agents whose spec has none; default: 'temporary', whoever watches
            decides. A policy, its dict, or the name of a restart.
        strategy: which agents are started again when one is.
        limits: for agents whose spec has none.
        start_timeout: seconds from launch to ready; waiting for resources counts.
        stop_timeout: seconds from asking an agent to stop to killing it.

    Raises:
        RayMissingError: Ray is not installed.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        guild_id: str,
        max_processes: int | None = None,
        *,
        organization_id: str = "",
        address: str | None = None,
        resources: ResourceSpec | dict[str, Any] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        ray_options: Mapping[str, Any] | None = None,
        restart_policy: RestartPolicy | str | dict[str, Any] = TEMPORARY,
        strategy: Strategy | str = Strategy.ONE_FOR_ONE,
        limits: ResourceLimits | dict[str, Any] = NO_LIMITS,
        start_timeout: float = 60.0,
        stop_timeout: float = 10.0,
    ) -> None:
        super().__init__(guild_id, organization_id)
        import_ray()
        if max_processes is not None and max_processes < 1:
            raise ValueError(f"max_processes must be at least 1, not {max_processes}")
        self.max_processes = max_processes
        self.address = address
        self._resources = ResourceSpec.model_validate(resources or {})
        self._runtime_env = runtime_env
        self._ray_options = dict(ray_options or {})
        self._policy = RestartPolicy.of(restart_policy)
        self._limits = ResourceLimits.model_validate(limits)
        self._settings = Settings(Strategy(strategy), start_timeout, stop_timeout)
        self._agents: dict[_Key, RayAgent] = {}
        self._lock = threading.RLock()
        self._closed = False
        self._cluster: Cluster | None = None
        self._running: Running | None = None
        self._at_exit: Callable[[], None] | None = None

    def _join(self) -> Cluster:
        with self._lock:
            if self._cluster is None:
                self._cluster = Cluster.join(self.address, self._ray_options)
                self._at_exit = shut_down_at_exit(self)  # after Ray's own: it is called before
            return self._cluster

    def _run(self) -> Running:
        with self._lock:
            if self._running is None:
                self._running = Running(self.guild_id, self._join(), self._settings, self._tell)
            return self._running

    # Running

    def run_agents(
        self,
        guild_spec: GuildSpec,
        agent_specs: Sequence[AgentSpec],
        messaging_config: MessagingConfig | dict[str, Any] | str,
        *,
        messaging: MessagingSource | None = None,
    ) -> dict[str, Exception]:
        """Start agents at the same time, as `ExecutionEngine.run_agents`.

        Raises:
            RayUnavailableError: the cluster cannot be reached.
            MessagingConfigError: their messages would stay in this program.
        """
        config = MessagingConfig.of(messaging_config)
        refuse_local_messages(config)
        guild_id = guild_spec.id
        specs = [checked_spec(guild_spec, spec) for spec in agent_specs]
        launches = [
            pickle_launch(
                AgentLaunch(guild_id, self.organization_id, spec, guild_spec.dependency_map)
            )
            for spec in specs
        ]
        for spec, launch in zip(specs, launches, strict=True):
            refuse_local_classes(spec.name, spec.class_name, launch)
        with self._lock:
            self._require_room(guild_id, specs)
            opened = self._messaging(guild_id, config, messaging)
            declare_places(opened, specs)
            joined = pickle.dumps(opened.config_for_agents())
            agents = [
                self._list(guild_id, spec, launch, joined)
                for spec, launch in zip(specs, launches, strict=True)
            ]
        return self._wait(agents)

    def _wait(self, agents: Sequence[RayAgent]) -> dict[str, Exception]:
        failures: dict[str, Exception] = {}
        try:
            for agent in agents:
                try:
                    agent.ready.result()
                except GuildError as e:
                    failures[agent.spec.id] = e
        except BaseException:  # Ctrl-C while waiting: no actor must stay behind
            for agent in agents:
                agent.kill("its start was interrupted")
            for agent in agents:
                agent.request_stop(0).result()
                self._dismiss(agent)
            raise
        for agent in agents:
            if agent.spec.id in failures:
                self._dismiss(agent)
        others = [e for e in failures.values() if not isinstance(e, AgentStartError)]
        if others:
            raise others[0]
        return failures

    def _require_room(self, guild_id: str, specs: Sequence[AgentSpec]) -> None:
        if self._closed:
            raise EngineClosedError(guild_id=self.guild_id)
        cluster = self._join()
        cluster.require()
        ids = [spec.id for spec in specs]
        for agent_id in ids:
            known = self._agents.get((guild_id, agent_id))
            is_live = known is not None and known.state.is_live
            if is_live or ids.count(agent_id) > 1 or self._runs_elsewhere(guild_id, agent_id):
                raise DuplicateAgentError(guild_id=guild_id, agent_id=agent_id)
        live = sum(agent.state.is_live for agent in self._agents.values())
        if self.max_processes is not None and live + len(specs) > self.max_processes:
            raise ProcessLimitError(guild_id=guild_id, limit=self.max_processes)

    def _runs_elsewhere(self, guild_id: str, agent_id: str) -> bool:
        try:
            import_ray().get_actor(actor_name(guild_id, agent_id), namespace=NAMESPACE)
        except ValueError:
            return False
        found = self._others(guild_id).get(agent_id)
        return found is not None and found.state.is_live

    def _list(self, guild_id: str, spec: AgentSpec, launch: bytes, messaging: bytes) -> RayAgent:
        known = self._agents.get((guild_id, spec.id))
        if known is not None:
            self._dismiss(known)
        wish = wish_of(
            guild_id,
            spec,
            (launch, messaging),
            spec.limits or self._limits,
            placement_of(spec.resources, self._resources),
            self._runtime_env,
        )
        supervisor = self._run().supervisor
        agent = RayAgent(spec, wish, spec.restart_policy or self._policy, supervisor)
        self._agents[guild_id, spec.id] = agent
        supervisor.post(lambda: supervisor.launch(agent))
        return agent

    def _dismiss(self, agent: RayAgent) -> None:
        """Take an agent off the list, once the supervisor does nothing with it any more."""
        with self._lock:
            key = agent.guild_id, agent.spec.id
            if self._agents.get(key) is agent:
                del self._agents[key]
            running = self._running
        if running is not None:
            running.reactor.call(lambda: running.supervisor.forget(agent))

    # Ending

    def stop_agent(self, guild_id: str, agent_id: str) -> None:
        """Stop an agent's actor and take it off the list; returns when it is gone.

        Does nothing about an agent that another engine started.
        """
        agent = self._agents.get((guild_id, agent_id))
        if agent is not None:
            agent.request_stop().result()
            self._dismiss(agent)

    def shutdown(self, timeout: float | None = None) -> None:
        """Stop all agents at once: ask, then kill; returns when all are gone.

        Args:
            timeout: seconds from asking to killing, in place of `stop_timeout`.
        """
        with self._lock:
            self._closed = True
            running = self._running
        if running is not None:
            for gone in running.supervisor.stop_all(timeout):
                gone.result()
        with self._lock:  # not before: an interrupted shutdown can be called again
            running, self._running = self._running, None
            cluster, self._cluster = self._cluster, None
            at_exit, self._at_exit = self._at_exit, None
            self._agents.clear()
        if running is not None:
            running.close()
        self._close_own_messaging()
        if cluster is not None:
            cluster.leave()
        if at_exit is not None:
            atexit.unregister(at_exit)

    def terminate(self) -> None:
        """Kill every agent's actor: Ray knows nothing gentler but asking, which is under way."""
        self.kill()

    def kill(self) -> None:
        """Kill every agent's actor."""
        for agent in list(self._agents.values()):
            agent.kill("the engine was told to")

    # Asking

    def get_agents_in_guild(self, guild_id: str) -> dict[str, AgentSpec]:
        """Return agent id -> spec, dead agents and those of other engines included."""
        others = {i: r.agent_spec() for i, r in self._others(guild_id).items()}
        with self._lock:
            own = {a: agent.spec for (g, a), agent in self._agents.items() if g == guild_id}
        return others | own

    def is_agent_running(self, guild_id: str, agent_id: str) -> bool:
        """Say whether the agent is ready and its actor lives."""
        record = self._record(guild_id, agent_id)
        return record is not None and record.state is AgentState.RUNNING

    def get_process_info(self, guild_id: str, agent_id: str) -> dict[str, Any]:
        """Look at an agent's actor now; with its Ray `node` and that one's `node_address`.

        What only the actor knows (memory, load) is None where it does not answer in two seconds.
        """
        record = self._record(guild_id, agent_id)
        if record is None:
            return {}
        seen: dict[str, Any] = {}
        if record.state is AgentState.RUNNING and self._cluster is not None:
            self._cluster.require()
            seen = look_at(record.actor_name)
        return record.facts(seen)

    def get_exit_report(self, guild_id: str, agent_id: str) -> ExitReport | None:
        """Return how an agent's last actor ended; None before one has."""
        record = self._record(guild_id, agent_id)
        return record.report if record is not None else None

    def get_engine_stats(self) -> dict[str, Any]:
        """Return the engine's numbers; of the agents that it started."""
        with self._lock:
            agents = list(self._agents.values())
            guilds = len({guild for guild, _ in self._agents})
        states = [agent.state for agent in agents]
        alive = states.count(AgentState.RUNNING)
        return EngineStats(
            engine_type=type(self).__name__,
            guild_id=self.guild_id,
            max_processes=self.max_processes,
            total_agents=len(agents),
            alive_agents=alive,
            total_guilds=guilds,
            active_processes=sum(agent.life is not None for agent in agents),
            owned_agents_count=alive,
            states={str(state): states.count(state) for state in dict.fromkeys(states)},
            restarts=sum(agent.restarts for agent in agents),
        ).as_dict()

    def cleanup_dead_processes(self) -> list[AgentSpec]:
        """Return the specs of dead agents; they stay listed, and hold nothing of the cluster."""
        with self._lock:
            return [a.spec for a in self._agents.values() if not a.state.is_live]

    def _record(self, guild_id: str, agent_id: str) -> Record | None:
        agent = self._agents.get((guild_id, agent_id))
        return agent.record() if agent is not None else self._others(guild_id).get(agent_id)

    def _others(self, guild_id: str) -> dict[str, Record]:
        """Return what other engines say of their agents; a live one counts before a dead one."""
        with self._lock:
            if self._closed or (self._cluster is None and not Cluster.exists(self.address)):
                return {}
            self._join().require()
        found: dict[str, Record] = {}
        for record in records_of(guild_id):
            known = found.get(record.agent_id)
            if known is None or not known.state.is_live:
                found[record.agent_id] = record
        return found
