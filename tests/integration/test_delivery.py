"""What a guild promises about its messages when agents fail, crash, or are not there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rustic_ai.core.errors import AgentError
from rustic_ai.core.guild import AgentSpec, Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine, SyncExecutionEngine
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.testing.waiting import wait_until
from tests.misbehaving import ObedientAgent, PatientAgent
from tests.support import embedded, spec_of

BACK_AT_ONCE = {"restart": "permanent", "backoff": 0, "jitter": 0, "intensity": 100}
INBOX = GuildTopics.get_agent_inbox("a")


def patient(cure: Path, **fields: Any) -> AgentSpec:
    """Return an agent that fails on what it cannot stand, until the file is there."""
    spec = spec_of(PatientAgent, "a", cure=str(cure))
    return AgentSpec.model_validate({**spec.model_dump(), **fields})


@contextmanager
def guild_with(
    port: int, spec: AgentSpec, **settings: Any
) -> Iterator[tuple[MultiProcessExecutionEngine, Guild]]:
    with (
        MultiProcessExecutionEngine("g", 4, **settings) as engine,
        Guild("g", engine, embedded(port)) as guild,
    ):
        guild.launch_agent(spec)
        yield engine, guild


def tell(guild: Guild, what: str, number: int = 0) -> Message:
    return guild.publish({"do": what, "number": number}, INBOX)


def answers(guild: Guild) -> list[tuple[int, int]]:
    """Return number and attempt of what the agent has handled, in order."""
    found = guild.get_messages("handled")
    return [(m.payload["number"], m.payload["attempt"]) for m in found]


def test_a_poison_message_becomes_a_dead_letter(free_port: int, tmp_path: Path) -> None:
    """What kills its agent three times is set aside with the reason; what follows is handled."""
    spec = patient(tmp_path / "cure")
    with guild_with(free_port, spec, restart_policy=BACK_AT_ONCE) as (engine, guild):
        poison = tell(guild, "die")
        for n in range(5):
            tell(guild, "handle", n)
        wait_until(lambda: len(answers(guild)) == 5, timeout=30)
        assert [number for number, _ in answers(guild)] == list(range(5))
        (dead,) = guild.get_dead_letters()
        assert dead.id == poison.id
        assert dead.dead_letter is not None
        assert (dead.dead_letter.subscriber, dead.dead_letter.attempts) == ("a", 3)
        assert "was lost 3 times" in dead.dead_letter.reason
        assert dead.topic_published_to == INBOX
        assert engine.get_process_info("g", "a")["restarts"] == 3


def test_a_dead_letter_can_be_replayed(free_port: int, tmp_path: Path) -> None:
    """Once its agent is cured, a replayed message is handled, with its attempts counted."""
    spec = patient(tmp_path / "cure", max_attempts=1)
    with guild_with(free_port, spec, restart_policy=BACK_AT_ONCE) as (_, guild):
        tell(guild, "die", 7)
        (dead,) = wait_until(guild.get_dead_letters)
        (tmp_path / "cure").touch()
        guild.replay(dead)
        wait_until(lambda: answers(guild) == [(7, 2)])
        with pytest.raises(ValueError, match="is no dead letter"):
            guild.replay(guild.get_messages("handled")[0])


def test_a_failing_handler_gives_an_error_and_a_dead_letter(free_port: int, tmp_path: Path) -> None:
    """One exception: one error message, one dead letter with its text; the agent lives on."""
    with guild_with(free_port, patient(tmp_path / "cure")) as (engine, guild):
        pid = engine.get_process_info("g", "a")["pid"]
        with pytest.raises(AgentError, match="cannot stand it"):
            guild.request({"do": "fail", "number": 1}, INBOX)
        (dead,) = guild.get_dead_letters()
        assert dead.dead_letter is not None
        assert dead.dead_letter.reason == "ValueError: cannot stand it"
        assert len(guild.get_messages(GuildTopics.ERROR_TOPIC)) == 1
        assert engine.get_process_info("g", "a")["pid"] == pid


def test_a_failing_handler_may_be_tried_again(free_port: int, tmp_path: Path) -> None:
    """With `error_attempts` a handler that succeeds at last has not failed."""
    spec = patient(tmp_path / "cure", error_attempts=3)
    with guild_with(free_port, spec) as (_, guild):
        tell(guild, "fail_twice", 5)
        wait_until(lambda: answers(guild) == [(5, 3)])
        assert guild.get_dead_letters() == []
        assert guild.get_messages(GuildTopics.ERROR_TOPIC) == []


def test_messages_wait_while_their_agent_is_dead(free_port: int, tmp_path: Path) -> None:
    """Killed, reported, launched again: what was sent meanwhile is handled, in order."""
    spec = patient(tmp_path / "cure")
    with guild_with(free_port, spec) as (engine, guild):
        tell(guild, "handle", 0)
        wait_until(lambda: len(answers(guild)) == 1)
        os.kill(engine.get_process_info("g", "a")["pid"], signal.SIGKILL)
        wait_until(lambda: not engine.is_agent_running("g", "a"))
        for n in (1, 2, 3):
            tell(guild, "handle", n)
        engine.stop_agent("g", "a")
        guild.launch_agent(spec)
        wait_until(lambda: [n for n, _ in answers(guild)] == [0, 1, 2, 3])


def test_messages_wait_for_an_agent_that_was_never_there(free_port: int, tmp_path: Path) -> None:
    """What was sent to an agent's inbox before its first launch is handled after it."""
    with (
        MultiProcessExecutionEngine("g", 2) as engine,
        Guild("g", engine, embedded(free_port)) as guild,
    ):
        for n in range(3):
            tell(guild, "handle", n)
        guild.launch_agent(patient(tmp_path / "cure"))
        wait_until(lambda: [n for n, _ in answers(guild)] == [0, 1, 2])


def test_what_a_crash_interrupts_comes_again(free_port: int, tmp_path: Path) -> None:
    """The message in hand at a kill is delivered again, and says for the how-manieth time."""
    spec = patient(tmp_path / "cure")
    with guild_with(free_port, spec, restart_policy=BACK_AT_ONCE) as (engine, guild):
        tell(guild, "wait_for_cure", 1)
        wait_until(lambda: engine.get_process_info("g", "a")["busy_for"])
        os.kill(engine.get_process_info("g", "a")["pid"], signal.SIGKILL)
        (tmp_path / "cure").touch()
        wait_until(lambda: answers(guild) == [(1, 2)])


def test_nothing_of_an_interrupted_handler_was_sent(free_port: int, tmp_path: Path) -> None:
    """A handler that dies after it has sent something has sent nothing: it is all or none."""
    spec = patient(tmp_path / "cure")
    with guild_with(free_port, spec, restart_policy=BACK_AT_ONCE) as (_, guild):
        tell(guild, "answer_and_die", 1)
        wait_until(lambda: len(guild.get_dead_letters()) == 1, timeout=30)
        assert answers(guild) == []


def test_who_is_removed_leaves_nothing_waiting(free_port: int, tmp_path: Path) -> None:
    """After `remove_agent` the server keeps no messages for it."""
    with guild_with(free_port, patient(tmp_path / "cure")) as (_, guild):
        guild.remove_agent("a")
        topics = guild.get_messaging_statistics()["topics"].values()
        assert [t["subscribers"] for t in topics if "a" in t["subscribers"]] == []


def test_the_same_holds_without_processes(tmp_path: Path) -> None:
    """Dead letters and replays on the sync engine, in memory."""
    messaging = {
        "backend_module": "rustic_ai.core.messaging.backend.in_memory_backend",
        "backend_class": "InMemoryMessagingBackend",
    }
    with SyncExecutionEngine("g") as engine, Guild("g", engine, messaging) as guild:
        guild.launch_agent(patient(tmp_path / "cure"))
        tell(guild, "fail", 3)
        (dead,) = guild.get_dead_letters()
        assert dead.topic_published_to == INBOX
        (tmp_path / "cure").touch()
        guild.replay(dead)
        assert answers(guild) == [(3, 2)]


def test_one_of_many_subscribers_may_die(free_port: int, tmp_path: Path) -> None:
    """A message to all is handled by all others, and by the one that died when it is back."""
    with (
        MultiProcessExecutionEngine("g", 4, restart_policy=BACK_AT_ONCE) as engine,
        Guild("g", engine, embedded(free_port)) as guild,
    ):
        guild.launch_agents([spec_of(ObedientAgent, name) for name in "bcd"])
        os.kill(engine.get_process_info("g", "b")["pid"], signal.SIGKILL)
        with guild.collect(GuildTopics.DEFAULT_TOPICS[0]) as box:
            guild.publish({"do": "tell"})
            got = box.take(4, timeout=20)
        assert sorted(m.sender.id or "" for m in got[1:]) == ["b", "c", "d"]
