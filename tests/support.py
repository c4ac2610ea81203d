"""What several tests need: configurations, specs, and programs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from rustic_ai.core.guild import Agent, AgentBuilder, AgentSpec
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config

PROGRAMS = Path(__file__).parent / "programs"
NO_MESSAGES = {
    "backend_module": "rustic_ai.core.messaging.backend.in_memory_backend",
    "backend_class": "InMemoryMessagingBackend",
}
"""Enough for agents that nobody talks to."""


def spec_of(agent_class: type[Agent[Any]], agent_id: str, **properties: Any) -> AgentSpec:
    """Return a spec named like its id."""
    builder = AgentBuilder(agent_class).set_id(agent_id).set_name(agent_id)
    return builder.set_properties(properties).build_spec()


def embedded(port: int) -> dict[str, Any]:
    """Return a configuration with an embedded server on that port."""
    return create_embedded_messaging_config(port=port)


def start_program(name: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program of `tests/programs`; its output is piped."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS / name), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )


def run_program(name: str, *arguments: object, timeout: float = 40.0) -> str:
    """Run a program to its end and return its output; fail where it fails."""
    with start_program(name, *arguments) as process:
        out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out


def is_running(pid: int) -> bool:
    """Say whether a process runs; one that has ended and waits for init to collect it does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
