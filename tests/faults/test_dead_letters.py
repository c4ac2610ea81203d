"""Messages that an agent cannot survive, or cannot handle: what becomes of them and the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rustic_ai.core.guild import AgentSpec, Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.testing.waiting import wait_until
from tests.misbehaving import PatientAgent
from tests.support import embedded, spec_of

AT_ONCE = {"restart": "permanent", "backoff": 0, "jitter": 0, "intensity": 100}


def patient(name: str, cure: Path, **fields: Any) -> AgentSpec:
    """Return an agent that dies or fails of what it is told, until the file is there."""
    spec = spec_of(PatientAgent, name, cure=str(cure))
    return AgentSpec.model_validate({**spec.model_dump(), **fields})


def handled(guild: Guild, name: str) -> list[tuple[int, int]]:
    """Return number and attempt of what an agent has handled, in order."""
    return [
        (m.payload["number"], m.payload["attempt"])
        for m in guild.get_messages("handled")
        if m.sender.id == name
    ]


def notes(guild: Guild) -> list[tuple[str, int]]:
    """Return who has given a message up, and after how many attempts."""
    found = [m.dead_letter for m in guild.get_dead_letters()]
    return [(note.subscriber, note.attempts) for note in found if note is not None]


def test_a_message_to_all_that_kills_one(free_port: int, tmp_path: Path) -> None:
    """The others handle it once; the one gives it up, goes on, and can have it again when cured."""
    cure = tmp_path / "cure"
    cure.touch()
    with (
        MultiProcessExecutionEngine("g", 4, restart_policy=AT_ONCE) as engine,
        Guild("g", engine, embedded(free_port)) as guild,
    ):
        guild.launch_agents([patient(n, cure) for n in "bcd"])
        guild.launch_agent(patient("a", tmp_path / "none yet", max_attempts=2))
        for number, what in enumerate(["handle", "die", "handle"]):
            guild.publish({"do": what, "number": number})
        for name in "bcd":
            wait_until(lambda name=name: len(handled(guild, name)) == 3)  # type: ignore[misc]
            assert handled(guild, name) == [(0, 1), (1, 1), (2, 1)]
        wait_until(lambda: [n for n, _ in handled(guild, "a")] == [0, 2], timeout=30)
        assert notes(guild) == [("a", 2)]
        (tmp_path / "none yet").touch()
        (dead,) = guild.get_dead_letters()
        guild.replay(dead)
        wait_until(lambda: handled(guild, "a")[-1] == (1, 3))
        assert [len(handled(guild, name)) for name in "abcd"] == [3, 3, 3, 3]


@pytest.mark.parametrize("attempts", [1, 3])
def test_who_fails_too_often_reports_it_once(free_port: int, tmp_path: Path, attempts: int) -> None:
    """After `error_attempts` tries: one error message, one dead letter; the next one is handled."""
    inbox = GuildTopics.get_agent_inbox("a")
    with (
        MultiProcessExecutionEngine("g") as engine,
        Guild("g", engine, embedded(free_port)) as guild,
    ):
        guild.launch_agent(patient("a", tmp_path / "cure", error_attempts=attempts))
        failing = guild.publish({"do": "fail", "number": 1}, inbox)
        guild.publish({"do": "handle", "number": 2}, inbox)
        wait_until(lambda: handled(guild, "a") == [(2, 1)])
        (error,) = guild.get_messages(GuildTopics.ERROR_TOPIC)
        assert error.payload["failed_message_id"] == failing.id
        assert notes(guild) == [("a", attempts)]


def test_dead_letters_outlive_their_server(free_port: int, tmp_path: Path) -> None:
    """A dead letter, and what waits behind it, is still there for the next server's clients."""
    inbox = GuildTopics.get_agent_inbox("a")
    config = embedded(free_port)
    config["backend_config"]["data_dir"] = str(tmp_path / "journal")
    with (
        MultiProcessExecutionEngine("g", restart_policy=AT_ONCE) as engine,
        Guild("g", engine, config) as guild,
    ):
        guild.launch_agent(patient("a", tmp_path / "cure"))
        guild.publish({"do": "die", "number": 1}, inbox)
        wait_until(guild.get_dead_letters)
    with (
        MultiProcessExecutionEngine("g") as engine,
        Guild("g", engine, config) as guild,
    ):
        guild.publish({"do": "handle", "number": 2}, inbox)
        assert notes(guild) == [("a", 3)]
        (tmp_path / "cure").touch()
        guild.replay(guild.get_dead_letters()[0])
        guild.launch_agent(patient("a", tmp_path / "cure"))
        wait_until(lambda: sorted(handled(guild, "a")) == [(1, 4), (2, 1)])
