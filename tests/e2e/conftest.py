"""Guild files for the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.command import WORKERS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a module of agents."""
    (tmp_path / "command_workers.py").write_text(WORKERS)
    return tmp_path


@pytest.fixture
def guild_file(folder: Path, free_port: int) -> Callable[..., Path]:
    """Give a function that writes a guild file with agents of these classes."""

    def write(*classes: str, name: str = "") -> Path:
        file = folder / "guild.yaml"
        agents = [
            {"name": name or c.lower(), "class_name": f"command_workers.{c}"} for c in classes
        ]
        messaging = {
            "backend_module": "rustic_ai.core.messaging.backend.embedded_backend",
            "backend_class": "EmbeddedMessagingBackend",
            "backend_config": {"port": free_port},
        }
        guild = {"id": "command", "agents": agents, "properties": {"messaging": messaging}}
        file.write_text(json.dumps(guild))  # JSON is YAML
        return file

    return write
