"""Agents that die, hang or refuse: nothing hangs, nothing stays."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from rustic_ai.core.errors import (
    AgentStartError,
    BackendUnavailableError,
    EngineClosedError,
    GuildFailedError,
)
from rustic_ai.core.guild import Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.backend.embedded_backend import (
    EmbeddedServer,
    create_embedded_messaging_config,
)
from rustic_ai.core.testing.agents import (
    DyingAgent,
    ExitingAgent,
    HangingAgent,
    MultiplyingAgent,
    Number,
)
from rustic_ai.core.testing.waiting import wait_until
from tests.support import NO_MESSAGES, embedded, spec_of


@pytest.fixture
def engine() -> Iterator[MultiProcessExecutionEngine]:
    with MultiProcessExecutionEngine("g", max_processes=3, stop_timeout=0.5) as engine:
        yield engine


@pytest.fixture
def guild(engine: MultiProcessExecutionEngine, free_port: int) -> Iterator[Guild]:
    with Guild("g", engine, embedded(free_port)) as guild:
        guild.launch_agent(spec_of(MultiplyingAgent, "bystander", factor=3))
        yield guild


def ask_bystander(guild: Guild) -> int:
    """Return what the undisturbed agent answers to 1."""
    inbox = GuildTopics.get_agent_inbox("bystander")
    value: int = guild.request(Number(value=1), inbox).payload["value"]
    return value


def test_a_killed_agent_stays_listed_and_can_come_back(
    guild: Guild, engine: MultiProcessExecutionEngine
) -> None:
    """After `kill -9` the agent is listed as dead with its exit code, and can be launched again."""
    spec = spec_of(MultiplyingAgent, "victim")
    guild.launch_agent(spec)
    os.kill(guild.get_process_info("victim")["pid"], signal.SIGKILL)
    wait_until(lambda: not engine.is_agent_running("g", "victim"))
    assert "victim" in engine.get_agents_in_guild("g")
    info = engine.get_process_info("g", "victim")
    assert (info["is_alive"], info["exitcode"], info["status"]) == (False, -9, "EXITED")
    assert "SIGKILL" in info["last_exit"]
    stats = engine.get_engine_stats()
    assert (stats["total_agents"], stats["owned_agents_count"]) == (2, 1)
    assert engine.cleanup_dead_processes() == [spec]
    assert ask_bystander(guild) == 3
    guild.launch_agent(spec)
    assert engine.is_agent_running("g", "victim")


@pytest.mark.parametrize(("how", "code"), [("os._exit", 5), ("exit", 4)])
def test_an_agent_that_exits_in_its_handler(
    guild: Guild, engine: MultiProcessExecutionEngine, how: str, code: int
) -> None:
    """Leaving the process in a handler ends that agent alone, and its exit code is told."""
    guild.launch_agent(spec_of(DyingAgent, "d"))
    guild.publish({"how": how})
    with pytest.raises(GuildFailedError, match=f"'d' ended with exit code {code}"):
        guild.wait(timeout=20)
    assert engine.get_process_info("g", "d")["exitcode"] == code
    assert ask_bystander(guild) == 3


def test_a_hanging_handler_is_ended_at_the_deadline(guild: Guild) -> None:
    """An agent that does not stop is killed, and the others are not kept waiting."""
    guild.launch_agent(spec_of(DyingAgent, "d"))
    guild.publish({"how": "hang"})
    assert ask_bystander(guild) == 3
    began = time.monotonic()
    guild.remove_agent("d")
    assert time.monotonic() - began < 10
    assert ask_bystander(guild) == 3


def test_a_constructor_that_hangs_is_given_up(free_port: int) -> None:
    """A start that takes too long is killed and raised; nothing stays."""
    with (
        MultiProcessExecutionEngine("g", start_timeout=1.0) as engine,
        Guild("g", engine, embedded(free_port)) as guild,
        pytest.raises(AgentStartError, match="not ready within 1 s"),
    ):
        guild.launch_agent(spec_of(HangingAgent, "h"))


def test_shutdown_in_the_middle_of_launches(free_port: int) -> None:
    """A shutdown ends agents that are just starting; whoever waits for them is told."""
    engine = MultiProcessExecutionEngine("g", max_processes=8)
    guild = Guild("g", engine, embedded(free_port))
    reasons: list[str] = []

    def launch(n: int) -> None:
        try:
            guild.launch_agent(spec_of(HangingAgent, f"h{n}"))
        except (AgentStartError, EngineClosedError) as e:
            reasons.append(str(e))

    threads = [threading.Thread(target=launch, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: engine.get_engine_stats()["active_processes"] >= 2)
    guild.shutdown(timeout=0.3)
    for thread in threads:
        thread.join(20)
    assert len(reasons) == 4
    assert any("it was stopped before it was ready" in reason for reason in reasons)
    guild.shutdown()


def test_an_exit_in_the_constructor_keeps_its_code(engine: MultiProcessExecutionEngine) -> None:
    """`sys.exit(3)` in a constructor is a failed start with exit code 3."""
    with (
        Guild("g", engine, NO_MESSAGES) as guild,
        pytest.raises(AgentStartError) as caught,
    ):
        guild.launch_agent(spec_of(ExitingAgent, "e"))
    assert caught.value.exitcode == 3


def server_of_this_program() -> psutil.Process:
    """Return the process of the message server."""
    (server,) = [
        child
        for child in psutil.Process().children()
        if "server_process" in " ".join(child.cmdline())
    ]
    return server


def test_a_guild_outlives_its_message_server(
    guild: Guild, engine: MultiProcessExecutionEngine
) -> None:
    """After `kill -9` of the server another is started; agents and program go on by themselves."""
    pid = engine.get_process_info("g", "bystander")["pid"]
    for _ in range(3):
        server_of_this_program().kill()
        assert ask_bystander(guild) == 3
    assert engine.get_process_info("g", "bystander")["pid"] == pid


def test_agents_end_when_their_server_stays_away(free_port: int) -> None:
    """Without its server for longer than `reconnect_timeout` an agent ends with a reason."""
    server = EmbeddedServer(port=free_port)
    server.start_thread()
    config = create_embedded_messaging_config(
        port=free_port, auto_start_server=False, reconnect_timeout=0.3
    )
    with MultiProcessExecutionEngine("g") as engine, Guild("g", engine, config) as guild:
        guild.launch_agent(spec_of(MultiplyingAgent, "bystander"))
        server.stop_thread()
        wait_until(lambda: not engine.is_agent_running("g", "bystander"))
        assert engine.get_process_info("g", "bystander")["exitcode"] == 69
        with pytest.raises(BackendUnavailableError):
            guild.publish({"how": "exit"})
