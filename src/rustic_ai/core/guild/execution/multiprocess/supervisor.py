"""Which agents start when, where it is told how they are, and who hangs and is killed for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from rustic_ai.core.guild.execution.multiprocess.boot import BootFile
from rustic_ai.core.guild.execution.multiprocess.health import Health, HealthLimits
from rustic_ai.core.guild.execution.multiprocess.launchers import Launcher
from rustic_ai.core.guild.execution.multiprocess.life import AgentLife, Deadlines, Identity
from rustic_ai.core.guild.execution.multiprocess.table import SharedTable
from rustic_ai.core.guild.execution.multiprocess.wrapper import MultiProcessAgentWrapper
from rustic_ai.core.guild.execution.stats import AgentEvent, AgentState
from rustic_ai.core.guild.execution.supervision.reactor import Reactor
from rustic_ai.core.guild.execution.supervision.supervisor import Supervisor
from rustic_ai.core.guild.supervision import Strategy


@dataclass(frozen=True)
class SupervisorSettings:
    """How agents are looked after."""

    strategy: Strategy = Strategy.ONE_FOR_ONE
    deadlines: Deadlines = field(default_factory=Deadlines)
    health: HealthLimits = field(default_factory=HealthLimits)


class ProcessSupervisor(Supervisor[MultiProcessAgentWrapper]):
    """Looks after agents' processes; starts not too many at once.

    Args:
        reactor: where everything happens.
        launcher: makes processes.
        table: where states are published.
        settings: how agents are looked after.
        tell: called with every change of state.
    """

    def __init__(
        self,
        reactor: Reactor,
        launcher: Launcher,
        table: SharedTable,
        settings: SupervisorSettings,
        tell: Callable[[AgentEvent], None],
    ) -> None:
        super().__init__(reactor, settings.strategy, settings.deadlines.stop, tell)
        self._launcher = launcher
        self._table = table
        self._deadlines = settings.deadlines
        self._waiting: deque[MultiProcessAgentWrapper] = deque()
        self._starting: set[int] = set()
        self._is_starting = False
        self._health = Health(reactor, settings.health, lambda: self._agents)

    @property
    def orphan_grace(self) -> float:
        """Seconds that agents have when the engine is gone."""
        return self._deadlines.orphan

    def launch(self, agent: MultiProcessAgentWrapper) -> None:
        """Start an agent's process, as soon as not too many others start."""
        if self._closing:
            agent.abandon()
            return
        if agent.state is not AgentState.STARTING:  # stopped meanwhile
            return
        if agent not in self._agents:
            self._agents.append(agent)
            self._health.look_after(agent)
        self._waiting.append(agent)
        self._start_waiting()

    def _start_waiting(self) -> None:
        if self._is_starting:  # by a start that failed at once: the loop goes on below it
            return
        self._is_starting = True
        try:
            while self._waiting and len(self._starting) < self._launcher.max_starting:
                agent = self._waiting.popleft()
                self._starting.add(id(agent))
                agent.launch()
        finally:
            self._is_starting = False

    def start_is_over(self, agent: MultiProcessAgentWrapper) -> None:
        """Take note that an agent is ready, or will not be."""
        if agent in self._waiting:
            self._waiting.remove(agent)
        self._starting.discard(id(agent))
        self._start_waiting()

    def new_life(
        self,
        identity: Identity,
        boot: BootFile,
        environment: dict[str, str],
        agent: MultiProcessAgentWrapper,
    ) -> AgentLife:
        """Return a process to begin."""
        return AgentLife(
            identity,
            boot,
            environment,
            self._launcher,
            self._reactor,
            self._deadlines,
            agent,
        )

    def reset_cells(self, agent: MultiProcessAgentWrapper) -> None:
        """Empty what the last process of an agent said."""
        self._table.clear_cells(agent.place.slot)

    def publish(self, agent: MultiProcessAgentWrapper) -> None:
        """Write what there is to say of an agent into the table."""
        self._table.write(agent.place.slot, agent.record())
