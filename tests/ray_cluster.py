"""A Ray cluster of the tests' own: two nodes on this machine, ended with the tests of a module.

Ray has threads and descriptors in the program while it is connected, and worker processes come and
go, so the check after each test of `conftest.py` cannot be used beside it. In the modules that
import `nothing_is_left` from here, each test is looked after for what is ours, and the last one for
everything but a dozen descriptors, which Ray keeps as long as the program lives.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from rustic_ai.core.guild import Guild
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config
from rustic_ai.core.testing.leaks import LeakCheck
from rustic_ai.core.testing.waiting import wait_until
from rustic_ai.ray import RayExecutionEngine
from rustic_ai.ray.cluster import Cluster
from rustic_ai.ray.installed import NAMESPACE

REQUIRED_VARIABLE = "RUSTIC_REQUIRE_SERVERS"
"""Where it is 1, a test fails instead of being skipped because Ray is not installed."""
SECOND = {"second": 8.0}
"""A resource that only the second node has."""
NODE: dict[str, Any] = {
    "num_cpus": 8,
    "object_store_memory": 80 << 20,
    "node_ip_address": "127.0.0.2",  # loopback; Ray puts its own in the place of 127.0.0.1
}
_RAY_PROCESS = re.compile(r"^\S+ (ray::|\[raylet)|/ray/")
_RAY_THREAD = re.compile(r"^(Dummy-|ray_|PythonGCThread|Thread-)")
_RAY_KEEPS = re.compile(r"thread Dummy-|\d+ file descriptors")
_END_DEADLINE = 20.0
TIMEOUT = 40.0
"""Seconds that an answer of an agent may take: Ray has processes to start."""
_KEPT_DESCRIPTORS = 16
"""Ray's log files of this program, and what its event loop waits on."""


def need_ray() -> None:
    """Skip the test, or fail it, where Ray is not installed."""
    if find_spec("ray") is not None:
        return
    reason = "Ray is not installed; get it with: pip install 'rustic-multiprocess[ray]'"
    if os.environ.get(REQUIRED_VARIABLE) == "1":
        pytest.fail(f"{reason} ({REQUIRED_VARIABLE} is 1)")
    pytest.skip(reason)


@dataclass
class TestCluster:
    """Two nodes; more can be added."""

    __test__ = False
    cluster: Any
    address: str
    options: dict[str, Any]
    """For `RayExecutionEngine`: how to get here."""

    def add_node(self, **arguments: Any) -> Any:
        """Start one more node."""
        return self.cluster.add_node(**{**NODE, **arguments})

    def remove_node(self, node: Any) -> None:
        """End a node at once, as a machine that fails; returns when the others know."""
        import ray

        self.cluster.remove_node(node, allow_graceful=False)
        wait_until(
            lambda: not any(n["Alive"] for n in ray.nodes() if n["NodeID"] == node.node_id), 60
        )


@pytest.fixture(scope="module")
def ray_cluster(leak_check: LeakCheck) -> Iterator[TestCluster]:
    """Give a cluster that this program is connected to."""
    need_ray()
    before = leak_check.look()
    folder = tempfile.mkdtemp(prefix="rustic-ray-")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.delenv("RAY_ADDRESS", raising=False)
        from ray.cluster_utils import Cluster as RayCluster

        head = {
            **NODE,
            "include_dashboard": False,
            "temp_dir": folder,
            "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 2},
        }
        nodes = None
        try:
            with pytest.MonkeyPatch.context() as start:
                # It writes its address into a folder that it expects to be there.
                Path(folder, "ray").mkdir()
                start.setenv("RAY_TMPDIR", folder)
                nodes = RayCluster(
                    initialize_head=True, head_node_args=head, shutdown_at_exit=False
                )
            cluster = TestCluster(nodes, nodes.address, {"address": nodes.address})
            cluster.add_node(resources=SECOND)
            joined = Cluster.join(nodes.address, {"log_to_driver": False})
            try:
                yield cluster
            finally:
                joined.leave()
        finally:
            ours = psutil.Process().children(recursive=True)
            if nodes is not None:
                nodes.shutdown()
            _end(ours)
            shutil.rmtree(folder, ignore_errors=True)
    left = leak_check.left_behind(before)
    left = [what for what in left if not _RAY_KEEPS.match(what)]
    assert left == [], f"the cluster left this behind: {left}"
    assert leak_check.look().descriptors - before.descriptors <= _KEPT_DESCRIPTORS


def _end(processes: list[psutil.Process]) -> None:
    """Wait for a cluster's processes, which look after their end themselves."""
    _, alive = psutil.wait_procs(
        [p for p in processes if p.is_running() and _RAY_PROCESS.search(_shown(p))], _END_DEADLINE
    )
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, _END_DEADLINE)
    assert not alive, "Ray did not end these itself"


def _shown(process: psutil.Process) -> str:
    try:
        return f"{process.status()} {' '.join(process.cmdline())}"
    except psutil.Error:
        return ""


def _names() -> list[str]:
    import ray

    actors = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in actors if actor["namespace"] == NAMESPACE]


def our_actors() -> list[str]:
    """Return the names of the actors of all agents."""
    return [name for name in _names() if not name.startswith("@")]


def directories() -> list[str]:
    """Return the names of the directories of all programs."""
    return [name for name in _names() if name.startswith("@")]


@pytest.fixture(autouse=True)
def nothing_is_left(ray_cluster: TestCluster, leak_check: LeakCheck) -> Iterator[None]:
    """Fail a test that leaves an actor, or a process, thread or file that is not Ray's."""
    before = leak_check.look()
    yield
    wait_until(lambda: our_actors() == [], 10)

    def left() -> list[str]:
        now = leak_check.look()
        processes = {p: c for p, c in now.processes.items() if not _RAY_PROCESS.search(c)}
        threads = {t.name for t in threading.enumerate() if not _RAY_THREAD.match(t.name)}
        found = [c for p, c in processes.items() if p not in before.processes]
        found += sorted(threads - before.threads)
        return found + leak_check.new_files(before, now)

    deadline = time.monotonic() + 5
    while (found := left()) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert found == [], f"the test left this behind: {found}"


@pytest.fixture
def engine(ray_cluster: TestCluster) -> Iterator[RayExecutionEngine]:
    """Give an engine of guild "faults" on the cluster."""
    with RayExecutionEngine("faults", address=ray_cluster.address) as engine:
        yield engine


@pytest.fixture
def config(free_port: int) -> dict[str, Any]:
    """Give messages over TCP."""
    return create_embedded_messaging_config(port=free_port, transport="tcp")


@pytest.fixture
def guild(engine: RayExecutionEngine, config: dict[str, Any]) -> Iterator[Guild]:
    """Give a guild on the engine."""
    with Guild("faults", engine, config) as guild:
        yield guild


def ask(guild: Guild, agent_id: str, do: str) -> dict[str, Any]:
    """Have an agent do something, and return its answer."""
    inbox = GuildTopics.get_agent_inbox(agent_id)
    payload: dict[str, Any] = guild.request({"do": do}, inbox, timeout=TIMEOUT).payload
    return payload
