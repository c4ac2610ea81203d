"""The census on other messaging and another engine, changed by nothing but its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.census.alone import take_alone
from examples.census.files import standard_library
from examples.census.results import Census
from rustic_ai.core.guild import GuildBuilder
from tests.nats_server import NatsServer, nats_server
from tests.redis_server import RedisServer, shared_redis_fixture

__all__ = ["nats_server", "shared_redis_fixture"]  # fixtures

ROOT = Path(__file__).parents[2]
FOLDER = standard_library() / "email"


def take_census(output: Path, *options: str, **environment: str) -> Census:
    """Run the census as its reader would; return what it has written."""
    command = ["-m", "examples.census", "--folder", str(FOLDER), "--workers", "2"]
    done = subprocess.run(
        [sys.executable, *command, "--no-baseline", "--output", str(output), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Census.model_validate(json.loads(output.read_text()))


@pytest.fixture(params=["redis", "nats"])
def url(request: pytest.FixtureRequest, shared_redis: RedisServer, nats_server: NatsServer) -> str:
    """Give the address of a server."""
    if request.param == "nats":
        return nats_server.url
    return f"redis://127.0.0.1:{shared_redis.port}/0"


def test_the_census_on_other_messaging(url: str, tmp_path: Path) -> None:
    """Redis and NATS carry it to the same end."""
    assert take_census(tmp_path / "census.json", "--messaging", url) == take_alone(FOLDER).census


@pytest.mark.timeout(120)
def test_the_census_on_ray(shared_redis: RedisServer, tmp_path: Path) -> None:
    """Agents on a Ray cluster, here one that the engine starts and stops, talk through Redis."""
    redis = f"redis://127.0.0.1:{shared_redis.port}/1"
    census = take_census(
        tmp_path / "census.json", "--engine", "ray", "--messaging", redis, HOME=str(tmp_path)
    )
    assert census == take_alone(FOLDER).census


def test_the_guild_file_on_other_messaging(url: str, tmp_path: Path) -> None:
    """The same file, with one line more, comes to the same end."""
    text = (ROOT / "examples/census/guild.yaml").read_text()
    file = tmp_path / "guild.yaml"
    text = text.replace("      top: 20\n", f"      top: 20\n      folder: {FOLDER}\n")
    file.write_text(f"{text}properties: {{messaging: '{url}'}}\n")
    with GuildBuilder.from_yaml_file(file).launch() as guild:
        finished = guild.wait(timeout=50)
    assert finished.result["totals"] == take_alone(FOLDER).census.totals.model_dump()
