"""The report as Markdown, made from saved results only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.charts import number
from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.results import Book, PeerResult, WorkloadResult
from benchmarks.statistics import Spread
from benchmarks.verdicts import verdicts
from benchmarks.workloads.catalogue import WORKLOADS, load
from benchmarks.workloads.workload import Measure, Workload

CHARTS = "benchmarks"
"""The folder of the charts, beside the document."""
_ABSENT = "-"
_INTRODUCTION = """# Side by side with the peers

Made by `python -m benchmarks` from [results.json](benchmarks/results.json); nothing here is
written by hand. How to make it anew, and add a peer: [benchmarks](../benchmarks/README.md).

## How to read it

A figure is the median of the rounds, with the lowest and the highest behind it. In each round every
peer takes its turn at a workload before the next workload begins, so that what disturbs the machine
hits all alike. Every run is a fresh process in the peer's own environment, and whatever it leaves
behind is ended before the next. An agent is a process of the operating system, everywhere; the same
work is done by the same code, and its result is checked. A dash means that the peer does not offer
it; the reason stands below the table. Compare figures of one table; absolute ones belong to the
machine. *Level* means within a tenth.

The peers do not promise the same. What each is, and how it is used here:

"""


def document(book: Book) -> str:
    """Write the report of all results."""
    results = {name: book.results[name] for name in WORKLOADS if name in book.results}
    parts = [_INTRODUCTION, *_peers(results), "\n", *_standing(results)]
    for name, result in results.items():
        parts += ["\n", *_section(name, load(name), result)]
    return "".join(parts)


def _peers(results: Mapping[str, WorkloadResult]) -> Iterator[str]:
    yield "| peer | versions | how |\n| --- | --- | --- |\n"
    for name, entry in PEERS.items():
        versions: dict[str, str] = {}
        for result in results.values():
            if name in result.peers:
                versions |= result.peers[name].versions
        told = ", ".join(f"{package} {version}" for package, version in versions.items())
        told = told or ("" if entry.packages else "of Python")
        yield f"| {entry.title} | {told or 'not measured'} | {entry.how} |\n"


def _standing(results: Mapping[str, WorkloadResult]) -> Iterator[str]:
    """Say where ours is behind first: that is what somebody who chooses must know."""
    found: dict[str, list[str]] = {"behind": [], "level": [], "ahead": []}
    missing = []
    for name, result in results.items():
        workload = load(name)
        for verdict in verdicts(workload, result):
            link = f"[{workload.title}](#{_anchor(workload.title)})"
            text = f"- {link}, {verdict.measure.name}: {verdict}\n"
            found[verdict.standing].append(text)
        if OURS in result.peers:
            absent = result.peers[OURS].absent
            missing += [f"- {workload.title}, {name}: {why}\n" for name, why in absent.items()]
    if missing:
        yield f"## What is not there\n\n{''.join(missing)}\n"
    for title, standing in (
        ("Where a peer is ahead", "behind"),
        ("Where it is level", "level"),
        ("Where ours is ahead", "ahead"),
    ):
        yield f"## {title}\n\n{''.join(found[standing]) or 'Nowhere.' + chr(10)}\n"


def _section(name: str, workload: Workload, result: WorkloadResult) -> Iterator[str]:
    yield f"## {workload.title}\n\n{workload.text}\n\n"
    yield f"![{workload.title}]({CHARTS}/{name}.svg)\n\n"
    names = [peer for peer in PEERS if peer in result.peers]
    columns = "".join(f" {m.name}, {m.unit} |" for m in workload.measures)
    yield f"| peer |{columns}\n| --- |{' ---: |' * len(workload.measures)}\n"
    for peer in names:
        yield _row(peer, workload.measures, result.peers[peer])
    judged = list(verdicts(workload, result))
    if judged:
        yield "\n"
    for verdict in judged:
        yield f"- {verdict.measure.name}: {verdict}\n"
    notes = list(_notes(result))
    if notes:
        yield "\n" + "".join(notes)
    rounds = max((len(v) for p in result.peers.values() for v in p.values.values()), default=0)
    yield (
        f"\n`{result.command}`, {result.date}, {rounds} round{'s' if rounds != 1 else ''}, load "
        f"{result.load:.1f} at its beginning; {result.machine}{_smallness(result)}\n"
    )


def _row(peer: str, measures: tuple[Measure, ...], result: PeerResult) -> str:
    title = PEERS[peer].title
    cells = (_cell(result.spread(measure.name)) for measure in measures)
    return f"| {f'**{title}**' if peer == OURS else title} | {' | '.join(cells)} |\n"


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return _ABSENT
    if spread.low == spread.high:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)} - {number(spread.high)})"


def _notes(result: WorkloadResult) -> Iterator[str]:
    for peer, entry in PEERS.items():
        if peer in result.left_out:
            yield f"- {entry.title} was left out: {result.left_out[peer]}.\n"
        elif peer in result.peers:
            yield from _notes_on(entry.title, result.peers[peer])


def _notes_on(title: str, found: PeerResult) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for measure, why in found.absent.items():
        reasons.setdefault(why, []).append(measure)
    for why, measures in reasons.items():
        what = ", ".join(filter(None, measures))
        yield f"- {title}{f' ({what})' if what else ''}: {why}.\n"
    for failure in dict.fromkeys(found.failed):
        yield f"- {title} failed in {found.failed.count(failure)} of its runs: {failure}\n"
    if found.left:
        count = len(found.left)
        yield f"- {title} left {count} processes 10 s after its runs, which were killed.\n"


def _smallness(result: WorkloadResult) -> str:
    return "; **small sizes, which only prove that it runs**" if "--quick" in result.command else ""


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
