"""The engine contract over every engine that comes with the core."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rustic_ai.core.guild.execution import (
    ExecutionEngine,
    MultiProcessExecutionEngine,
    SyncExecutionEngine,
)
from rustic_ai.core.guild.execution.multiprocess import runtime
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config
from rustic_ai.core.testing.contracts.execution_engine import ExecutionEngineContract


class TestSyncInMemory(ExecutionEngineContract):
    """Agents and messages in this process."""

    @pytest.fixture
    def engine(self) -> Iterator[ExecutionEngine]:
        with SyncExecutionEngine("contract") as engine:
            yield engine

    @pytest.fixture
    def messaging_config(self) -> dict[str, Any]:
        return {
            "backend_module": "rustic_ai.core.messaging.backend.in_memory_backend",
            "backend_class": "InMemoryMessagingBackend",
        }


class TestSyncEmbedded(TestSyncInMemory):
    """Agents in this process, messages through the embedded server."""

    @pytest.fixture
    def messaging_config(self, free_port: int) -> dict[str, Any]:
        return create_embedded_messaging_config(port=free_port)


class TestMultiProcess(ExecutionEngineContract):
    """Every agent in its own process."""

    @pytest.fixture
    def engine(self) -> Iterator[ExecutionEngine]:
        with MultiProcessExecutionEngine("contract", max_processes=4) as engine:
            yield engine

    @pytest.fixture
    def messaging_config(self, free_port: int) -> dict[str, Any]:
        return create_embedded_messaging_config(port=free_port)


class TestMultiProcessSpawned(TestMultiProcess):
    """Every agent in a fresh interpreter."""

    @pytest.fixture
    def engine(self) -> Iterator[ExecutionEngine]:
        with MultiProcessExecutionEngine("contract", 4, start_method="spawn") as engine:
            yield engine


class TestMultiProcessWithoutNursery(TestMultiProcess):
    """As on systems that are not Linux: the program itself starts fresh interpreters."""

    @pytest.fixture
    def engine(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExecutionEngine]:
        monkeypatch.setattr(runtime, "sys", SimpleNamespace(platform="elsewhere"))
        with MultiProcessExecutionEngine("contract", max_processes=4) as engine:
            yield engine
