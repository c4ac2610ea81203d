"""The engine contract over Ray: two nodes, messages through the embedded server over TCP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rustic_ai.core.guild.execution import ExecutionEngine
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config
from rustic_ai.core.testing.contracts.execution_engine import ExecutionEngineContract
from rustic_ai.ray import RayExecutionEngine
from tests.ray_cluster import TestCluster, nothing_is_left, ray_cluster

__all__ = ["nothing_is_left", "ray_cluster"]

pytestmark = pytest.mark.timeout(120)


class TestRay(ExecutionEngineContract):
    """Every agent in an actor."""

    @pytest.fixture
    def engine(self, ray_cluster: TestCluster) -> Iterator[ExecutionEngine]:
        with RayExecutionEngine("contract", address=ray_cluster.address) as engine:
            yield engine

    @pytest.fixture
    def messaging_config(self, free_port: int) -> dict[str, Any]:
        return create_embedded_messaging_config(port=free_port, transport="tcp")
