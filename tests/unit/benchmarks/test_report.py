"""What benchmarks make of what was measured; nothing is measured here."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.charts import chart, number
from benchmarks.document import document
from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.results import Book
from benchmarks.statistics import Spread, percentile
from benchmarks.verdicts import verdicts
from benchmarks.workloads.catalogue import WORKLOADS, load

DOCS = Path(__file__).resolve().parents[3] / "docs"


def found(**values: float) -> dict[str, object]:
    return {"values": {k.replace("_", " "): v for k, v in values.items()}, "left": []}


@pytest.fixture
def book() -> Book:
    book = Book("python -m benchmarks")
    book.leave_out("xoscar", "it is not here")
    for ours, pipes, ray in ((1.0, 9.0, 400.0), (2.0, 11.0, 600.0), (3.0, 10.0, 500.0)):
        book.add("launch", OURS, found(**{"1 agent": ours}))
        book.add("launch", "multiprocessing", found(**{"1 agent": pipes}))
        book.add("launch", "ray", found(**{"1 agent": ray}))
    book.add("stop", OURS, found(**{"8 idle agents": 20.0}))
    book.add("stop", "multiprocessing", found(**{"8 idle agents": 10.0}))
    book.add("stop", "ray", found(**{"8 idle agents": 80.0}))
    return book


def test_median_and_range() -> None:
    """A figure is the middle of the rounds, with the lowest and the highest."""
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


def test_percentile_is_a_value_that_was_measured() -> None:
    """No percentile is made up between two values."""
    values = [float(n) for n in range(100)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50.0, 99.0)
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01234, "0.0123"), (12.34, "12.3"), (12345.6, "12,346")]
)
def test_numbers_have_no_more_digits_than_they_mean(value: float, text: str) -> None:
    """Three digits, or all before the point."""
    assert number(value) == text


def test_ahead_is_said_against_the_best_peer(book: Book) -> None:
    """The best one counts, not the slowest."""
    (verdict,) = verdicts(load("launch"), book.results["launch"])
    assert (verdict.best, verdict.standing, verdict.factor) == ("multiprocessing", "ahead", 5.0)


def test_behind_a_floor_is_said_and_the_frameworks_beside_it(book: Book) -> None:
    """Who is behind a bare pipe learns also how it stands among frameworks."""
    (verdict,) = verdicts(load("stop"), book.results["stop"])
    assert verdict.standing == "behind"
    assert verdict.beside is not None
    assert (verdict.beside.best, verdict.beside.factor) == ("ray", 4.0)
    assert "2.0 times worse than multiprocessing" in str(verdict)


def test_nothing_lost_beside_something_lost_is_no_division() -> None:
    """Zero is ahead of any number of lost calls, and level with zero."""
    book = Book("")
    book.add("crash", OURS, found(calls_lost_of_200=0.0))
    book.add("crash", "ray", found(calls_lost_of_200=0.0))
    (verdict,) = verdicts(load("crash"), book.results["crash"])
    assert verdict.standing == "level"
    book.results["crash"].peers["ray"].values["calls lost of 200"] = [5.0]
    (verdict,) = verdicts(load("crash"), book.results["crash"])
    assert str(verdict) == "**ahead**: 0, and 5 of Ray"


def test_results_survive_the_file_and_others_stay(book: Book, tmp_path: Path) -> None:
    """A workload that is measured anew takes the place of its own results only."""
    file = tmp_path / "results.json"
    book.save(file)
    again = Book("python -m benchmarks")
    again.add("stop", OURS, found(**{"8 idle agents": 5.0}))
    again.save(file)
    loaded = Book.load(file).results
    assert loaded["launch"] == book.results["launch"]
    assert loaded["stop"].peers[OURS].values == {"8 idle agents": [5.0]}


def test_charts_are_xml_for_light_and_dark(book: Book) -> None:
    """Each is well-formed, says who is who, and has colours for both schemes."""
    for name, result in book.results.items():
        text = chart(load(name), result)
        root = ET.fromstring(text)
        assert "prefers-color-scheme: light" in text
        assert "prefers-color-scheme: dark" in text
        labels = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
        assert {PEERS[peer].title for peer in result.peers} <= labels


def test_a_wide_range_is_drawn_on_a_logarithmic_axis(book: Book) -> None:
    """A bar from zero would hide the small ones."""
    assert "logarithmic" in chart(load("launch"), book.results["launch"])
    assert "logarithmic" not in chart(load("stop"), book.results["stop"])


def test_document_names_command_spread_and_who_was_left_out(book: Book) -> None:
    """Each figure can be made again by what stands beside it."""
    text = document(book)
    assert "`python -m benchmarks --only launch`" in text
    assert "| **Rustic Multiprocess** | 2 (1 - 3) |" in text
    assert "xoscar was left out: it is not here." in text
    assert text.index("Where a peer is ahead") < text.index("Where ours is ahead")


def test_document_says_what_failed_and_what_was_left_behind() -> None:
    """A peer that fails is not simply missing."""
    book = Book("")
    book.add("stop", "ray", {"failed": "OSError: no", "left": ["raylet"]})
    text = document(book)
    assert "Ray failed in 1 of its runs: OSError: no" in text
    assert "Ray left 1 processes" in text


def test_the_saved_document_is_made_from_the_saved_results() -> None:
    """Nobody has written a figure by hand."""
    book = Book.load(DOCS / "benchmarks" / "results.json")
    assert (DOCS / "benchmarks.md").read_text() == document(book)


def test_what_peers_say_that_they_do_is_there() -> None:
    """A misspelt workload would silently not be measured."""
    for entry in PEERS.values():
        assert {*entry.does, *entry.does_quickly} <= WORKLOADS.keys()
