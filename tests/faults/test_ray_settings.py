"""What is wrong from the start, on Ray: settings, addresses, classes that no node has."""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
import threading
import time
from typing import Any

import pytest

from rustic_ai.core.errors import (
    AgentStartError,
    EngineError,
    MessagingConfigError,
    SpecError,
)
from rustic_ai.core.guild import Guild
from rustic_ai.core.guild.spec import AgentSpec
from rustic_ai.core.testing.waiting import wait_until
from rustic_ai.ray import RayExecutionEngine, RayUnavailableError
from rustic_ai.ray.cluster import resolve
from rustic_ai.ray.gcs import require_head
from tests.misbehaving import ObedientAgent
from tests.ray_cluster import (
    SECOND,
    TestCluster,
    ask,
    config,
    engine,
    guild,
    nothing_is_left,
    ray_cluster,
)
from tests.support import NO_MESSAGES, spec_of, start_program

__all__ = ["config", "engine", "guild", "nothing_is_left", "ray_cluster"]  # fixtures

pytestmark = pytest.mark.timeout(120)


class TestBadInput:
    """What is wrong from the start is said at once."""

    def test_messages_in_memory_are_refused(self, engine: RayExecutionEngine) -> None:
        """Messages that stay in the program are refused before anything starts."""
        with (
            Guild("faults", engine, NO_MESSAGES) as guild,
            pytest.raises(MessagingConfigError, match="keeps messages in the program"),
        ):
            guild.launch_agent(spec_of(ObedientAgent, "a"))

    def test_a_class_of_main_is_refused(self, guild: Guild, monkeypatch: Any) -> None:
        """A class that only the program's `__main__` has is refused: no node can import it."""
        local = type("Local", (ObedientAgent,), {"__module__": "__main__"})
        monkeypatch.setattr(sys.modules["__main__"], "Local", local, raising=False)
        with pytest.raises(SpecError, match="no node of a Ray cluster can import"):
            guild.launch_agent(AgentSpec(name="x", class_name="__main__.Local"))

    def test_what_the_cluster_lacks_is_named(
        self, ray_cluster: TestCluster, config: dict[str, Any]
    ) -> None:
        """An agent that no node has room for fails in time, naming the resource."""
        spec = AgentSpec.model_validate(
            spec_of(ObedientAgent, "a").model_dump() | {"resources": {"custom": {"unobtainium": 2}}}
        )
        with (
            RayExecutionEngine("faults", address=ray_cluster.address, start_timeout=1) as engine,
            Guild("faults", engine, config) as guild,
            pytest.raises(AgentStartError, match=r"it needs 2 unobtainium \(0 of 0 free\)"),
        ):
            guild.launch_agent(spec)

    def test_resources_reach_ray(self, ray_cluster: TestCluster, config: dict[str, Any]) -> None:
        """A spec's own resources, and else the engine's, are what its actor takes."""
        import ray

        with (
            RayExecutionEngine(
                "faults", address=ray_cluster.address, resources={"num_cpus": 2, "custom": SECOND}
            ) as engine,
            Guild("faults", engine, config) as guild,
        ):
            guild.launch_agent(spec_of(ObedientAgent, "a"))
            node = guild.get_process_info("a")["node"]
            there = next(n for n in ray.nodes() if n["NodeID"] == node)
            assert "second" in there["Resources"]
            wait_until(lambda: ray.available_resources().get("second", 0) == 0)
            assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"] - 2

    def test_the_runtime_environment_reaches_agents(
        self, ray_cluster: TestCluster, config: dict[str, Any]
    ) -> None:
        """`runtime_env` is Ray's: variables given there are in the agent's environment."""
        environment = {"env_vars": {"PYTHONHASHSEED": "77"}}
        with (
            RayExecutionEngine(
                "faults", address=ray_cluster.address, runtime_env=environment
            ) as engine,
            Guild("faults", engine, config) as guild,
        ):
            guild.launch_agent(spec_of(ObedientAgent, "a"))
            assert ask(guild, "a", "tell")["result"]["seed"] == "77"

    def test_a_wrong_runtime_environment_fails_the_launch(
        self, ray_cluster: TestCluster, config: dict[str, Any]
    ) -> None:
        """What Ray says against a `runtime_env` is the reason of the failure."""
        with (
            RayExecutionEngine(
                "faults", address=ray_cluster.address, runtime_env={"working_dir": "/no/where"}
            ) as engine,
            Guild("faults", engine, config) as guild,
            pytest.raises(AgentStartError, match="/no/where is not a valid path"),
        ):
            guild.launch_agent(spec_of(ObedientAgent, "a"))

    def test_another_cluster_is_refused(self, config: dict[str, Any], free_port: int) -> None:
        """A program is on one cluster; an engine with the address of another one says so."""
        with (
            RayExecutionEngine("faults", address=f"127.0.0.1:{free_port}") as engine,
            Guild("faults", engine, config) as guild,
            pytest.raises(EngineError, match="is connected to the Ray cluster at"),
        ):
            guild.launch_agent(spec_of(ObedientAgent, "a"))


class TestAddresses:
    """Clusters that are not there: said in seconds, where Ray itself would try for minutes."""

    def test_an_address_where_nobody_listens(self, free_port: int) -> None:
        """A closed port is named, with what to do."""
        with pytest.raises(RayUnavailableError, match=f"127.0.0.1:{free_port}: .*refused") as e:
            require_head(f"127.0.0.1:{free_port}")
        assert "ray start --head" in e.value.hint

    @pytest.mark.parametrize("greeting", [b"+PONG and more\r\n", b""])
    def test_an_address_of_something_else(self, greeting: bytes) -> None:
        """Who speaks another language is told from the head of a cluster; so is who is silent."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]

            def serve() -> None:
                connection, _ = server.accept()
                with connection, contextlib.suppress(ConnectionError):
                    connection.sendall(greeting)
                    connection.recv(1000)
                    connection.recv(1000)

            thread = threading.Thread(target=serve)
            thread.start()
            began = time.monotonic()
            with pytest.raises(RayUnavailableError, match=r"no head of a cluster|timed out"):
                require_head(f"127.0.0.1:{port}")
            assert time.monotonic() - began < 6
            thread.join()

    @pytest.mark.parametrize(
        ("address", "text"),
        [
            ("ray://localhost:10001", "cannot be looked after through Ray Client"),
            ("nonsense", "HOST:PORT, 'auto' or 'local'"),
        ],
    )
    def test_what_is_no_address(self, address: str, text: str) -> None:
        """Ray Client and plain words are refused, saying what an address is."""
        with pytest.raises(RayUnavailableError, match=text):
            resolve(address)

    def test_the_environment_names_a_cluster(
        self, ray_cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without an address, `RAY_ADDRESS` counts."""
        monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
        assert resolve(None) == ray_cluster.address
        monkeypatch.setenv("RAY_ADDRESS", "ray://localhost:10001")
        with pytest.raises(RayUnavailableError, match="Ray Client"):
            resolve(None)


def run_own_cluster(outcome: str, port: int) -> dict[str, str]:
    """Run a program that has a cluster of its own, and return what it says."""
    with (
        tempfile.TemporaryDirectory(prefix="rustic-home-") as home,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("HOME", home)  # Ray keeps the token of its clusters there
        program = start_program("own_ray.py", outcome, port)
        out, err = program.communicate(timeout=100)
    assert program.returncode == 0, err
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


class TestOwnCluster:
    """Programs that start Ray themselves."""

    def test_what_an_engine_starts_it_stops(self, free_port: int) -> None:
        """A cluster of the engine's own serves agents, and is gone after `shutdown`."""
        said = run_own_cluster("works", free_port)
        assert (said["answer"], said["left"]) == ("14", "[]")

    def test_a_lost_cluster_is_said_to_be(self, free_port: int) -> None:
        """Where the head dies, a launch fails at once, and `shutdown` ends, leaving nothing."""
        said = run_own_cluster("gone", free_port)
        assert said["error"] == "RayUnavailableError"
        assert float(said["refused_after"]) < 5
        assert float(said["shut_after"]) < 30
        assert said["left"] == "[]"
