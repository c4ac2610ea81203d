"""What the documents show is what is there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from rustic_ai.core.messaging.core.capabilities import Capabilities
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_the_example_as_it_is() -> None:
    """The small agent of the README is the file that the tests run."""
    assert (ROOT / "examples" / "hello.py").read_text() in (ROOT / "README.md").read_text()


def test_every_decision_is_listed() -> None:
    """The index of decisions names every record."""
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    records = sorted(folder.glob("0*.md"))
    assert records
    assert [record.name for record in records if record.name not in index] == []


def test_every_promise_has_its_test() -> None:
    """Each sentence of the promises names tests, and there are tests of these names."""
    promised, _, _ = (
        (ROOT / "docs" / "promises.md").read_text().partition("## What is not promised")
    )
    sentences = promised.split("\n- ")[1:]
    assert len(sentences) > 25
    code = "".join(
        f.read_text()
        for top in ("tests", "src/rustic_ai/core/testing")
        for f in (ROOT / top).rglob("*.py")
    )
    for sentence in sentences:
        names = re.findall(r"`(test_\w+)`", sentence)
        assert names, sentence
        assert [name for name in names if f"def {name}(" not in code] == []


def test_modules_stay_small() -> None:
    """No module grows beyond 400 lines."""
    files = [f for top in ("src", "tests", "examples") for f in (ROOT / top).rglob("*.py")]
    assert [f.name for f in files if len(f.read_text().splitlines()) > 400] == []


@pytest.mark.parametrize(
    ("column", "url", "library"),
    [
        ("memory", "memory://", "msgspec"),
        ("embedded", "embedded://", "msgspec"),
        ("Redis", "redis://", "redis"),
        ("NATS", "nats://", "nats"),
    ],
)
def test_the_table_of_backends_is_true(column: str, url: str, library: str) -> None:
    """Each capability of the table is what the backend declares; none is missing."""
    pytest.importorskip(library, reason=f"needs {library}: make servers")
    lines = (ROOT / "docs" / "backends.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    head = next(row for row in rows if column in row and row[0] == "")
    said = {
        match[1]: row[head.index(column)] == "yes"
        for row in rows
        if len(row) == len(head) and (match := re.match(r"`(\w+)`:", row[0]))
    }
    assert said.keys() == {field.name for field in dataclasses.fields(Capabilities)}
    assert dataclasses.asdict(MessagingConfig.of(url).backend_type().capabilities) == said
