"""What the command shows, without a guild."""

from __future__ import annotations

import io
import os
import re
from typing import Any

from rich.console import Console

from rustic_ai.core.cli.display import LiveDisplay, PlainDisplay
from rustic_ai.core.cli.errors_shown import describe
from rustic_ai.core.cli.output import relayed, result_kept_apart
from rustic_ai.core.guild import AgentSpec
from rustic_ai.core.guild.system_messages import ProgressReport
from rustic_ai.core.messaging import AgentTag, Message
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator

ANNA, BERT = AgentTag("a", "anna"), AgentTag("b", "bert")


def info(agent_id: str) -> dict[str, Any]:
    """Stand in for a guild's process information."""
    return {"pid": 123, "status": "RUNNING", "memory_mb": 35.4} if agent_id else {}


def test_plain_progress_is_told_at_every_tenth() -> None:
    """A log is not flooded: a line for each tenth, for each agent that reports."""
    out = io.StringIO()
    display = PlainDisplay(Console(file=out), info)
    for done in range(1, 1001):
        display.progress(ProgressReport(done=done, total=1000, note="files"), ANNA)
    display.progress(ProgressReport(done=1, total=2), BERT)
    lines = out.getvalue().splitlines()
    assert lines[0] == "anna: 1 of 1000 files"
    assert lines[-2:] == ["anna: 1000 of 1000 files", "bert: 1 of 2"]
    assert len(lines) == 12


def test_plain_progress_without_a_total_is_told_now_and_then() -> None:
    """Reports whose end is not known do not flood a log either."""
    out = io.StringIO()
    display = PlainDisplay(Console(file=out), info)
    for done in range(1000):
        display.progress(ProgressReport(done=done), ANNA)
    assert 1 <= len(out.getvalue().splitlines()) <= 3


def test_quiet_shows_only_what_everybody_has_to_see() -> None:
    """Quiet keeps the course of things to itself, but not errors."""
    out = io.StringIO()
    display = PlainDisplay(Console(file=out), info, quiet=True)
    display.started(AgentSpec(name="anna", class_name="x.Y"))
    display.progress(ProgressReport(done=1), ANNA)
    display.tell("error: [red]")
    assert out.getvalue() == "error: [red]\n"


def test_live_lines_have_state_pid_and_memory() -> None:
    """A live line tells name, state, pid and memory, whatever brackets the name holds."""
    out = io.StringIO()
    display = LiveDisplay(Console(file=out, force_terminal=True, width=80), info)
    with display.updated():
        display.starting(AgentSpec(id="a", name="[b]anna", class_name="x.Y"))
        display.progress(ProgressReport(done=1, total=4, note="[i]files"), ANNA)
        display.progress(ProgressReport(done=3, total=4), BERT)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"\[b\]anna +running +123 +35 MB", text)
    assert re.search(r"anna: \[i\]files .* 1/4", text)
    assert re.search(r"bert .* 3/4", text)


def test_a_live_line_of_an_agent_that_is_gone() -> None:
    """After the end of its guild an agent's line says that it has ended."""
    out = io.StringIO()
    infos = [{"pid": 123, "status": "RUNNING", "memory_mb": 35.4}]
    display = LiveDisplay(
        Console(file=out, force_terminal=True, width=80), lambda _: infos[0] if infos else {}
    )
    agent = AgentSpec(id="a", name="anna", class_name="x.Y")
    with display.updated():
        display.starting(agent)
        display.started(agent)
        assert re.search(r"anna +running +123 +35 MB", out.getvalue())
        infos.clear()
    assert re.search(r"anna +exited +123 ", out.getvalue())


def test_output_is_relayed_line_by_line(capfd: Any) -> None:
    """All that is written to both descriptors arrives, the unfinished last line, too."""
    lines: list[str] = []
    with relayed(lines.append):
        os.write(1, b"first\nsec")
        os.write(2, b"ond\n" + b"x" * 200_000 + b"\n\xff")
    os.write(2, b"not relayed")
    assert lines == ["first", "second", "x" * 200_000, "\ufffd"]
    assert capfd.readouterr().err == "not relayed"


def test_the_result_has_standard_output_for_itself(capfd: Any) -> None:
    """Prints go to standard error while a result is awaited."""
    with result_kept_apart() as stdout:
        os.write(1, b"printed")
        os.write(stdout, b"result")
    os.write(1, b" and more")
    assert capfd.readouterr() == ("result and more", "printed")


def test_an_agents_own_errors_are_described() -> None:
    """An error answer of any model is shown by its name and content."""
    message = Message(
        id_obj=GemstoneGenerator().get_id(),
        sender=ANNA,
        topics="error_topic",
        payload={"disk": "söda"},
        format="module.DiskFull",
    )
    text = describe(message)
    assert text == 'error[agent-error]: agent \'anna\' reports DiskFull: {"disk": "söda"}'
