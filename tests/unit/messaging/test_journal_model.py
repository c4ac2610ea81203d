"""A journal beside a model of it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rustic_ai.core.messaging.backend.embedded_backend.journal import Journal
from tests.unit.messaging.journals import segments


@dataclass
class Model:
    """What a journal has to remember."""

    topics: dict[int, tuple[str, str]] = field(default_factory=dict)
    runs: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    cursors: dict[tuple[int, str], int] = field(default_factory=dict)
    crashes: dict[tuple[int, str], int] = field(default_factory=dict)
    producers: dict[int, int] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    swept: dict[int, int] = field(default_factory=dict)

    def copy(self) -> Model:
        """Return one that changes on its own."""
        return Model(
            dict(self.topics),
            list(self.runs),
            dict(self.ends),
            dict(self.cursors),
            dict(self.crashes),
            dict(self.producers),
            dict(self.starts),
            dict(self.swept),
        )


numbers = st.integers(1, 4)
names = st.sampled_from(["a", "b", "ü"])


class JournalAndModel(RuleBasedStateMachine):
    """Does the same to a journal and a model of it; after any life of the journal both agree."""

    @initialize(mode=st.sampled_from(["none", "interval"]), size=st.sampled_from([150, 600, 5000]))
    def begin(self, mode: str, size: int) -> None:
        """Open an empty one, with small segments."""
        self.directory = tempfile.TemporaryDirectory(prefix="journal-")
        self.options: dict[str, Any] = {"sync": mode, "segment_bytes": size}
        self.journal, recovered = Journal.open(Path(self.directory.name), **self.options)
        self.epoch = recovered.epoch
        self.now, self.kept = Model(), Model()

    @rule(number=numbers, namespace=names, name=names)
    def topic(self, number: int, namespace: str, name: str) -> None:
        self.journal.topic(number, namespace, name)
        self.now.topics[number] = (namespace, name)
        self.now.ends.setdefault(number, 0)

    @precondition(lambda self: self.now.topics)
    @rule(data=st.data(), count=st.integers(1, 5), body=st.binary(max_size=80))
    def run(self, data: st.DataObject, count: int, body: bytes) -> None:
        topic = data.draw(st.sampled_from(sorted(self.now.topics)))
        base = self.now.ends[topic]
        self.journal.run(topic, base, count, body)
        self.now.runs.append((topic, base, count, body))
        self.now.ends[topic] = base + count

    @rule(topic=numbers, name=names, position=st.integers(0, (1 << 64) - 1))
    def cursor(self, topic: int, name: str, position: int) -> None:
        self.journal.cursor(topic, name, position)
        self.now.cursors[topic, name] = position
        self.now.crashes.pop((topic, name), None)

    @precondition(lambda self: self.now.cursors)
    @rule(data=st.data(), count=st.integers(1, 4))
    def crashed(self, data: st.DataObject, count: int) -> None:
        place = data.draw(st.sampled_from(sorted(self.now.cursors)))
        self.journal.crashed(*place, count)
        self.now.crashes[place] = count

    @rule(topic=numbers, position=st.integers(0, (1 << 64) - 1))
    def swept(self, topic: int, position: int) -> None:
        self.journal.swept(topic, position)
        self.now.swept[topic] = position

    @rule(topic=numbers, name=names)
    def forget(self, topic: int, name: str) -> None:
        self.journal.forget(topic, name)
        self.now.cursors.pop((topic, name), None)
        self.now.crashes.pop((topic, name), None)

    @rule(client=numbers, accepted=st.integers(0, 3))
    def producer(self, client: int, accepted: int) -> None:
        self.journal.producer(client, accepted)
        self.now.producers[client] = accepted
        if not accepted:
            del self.now.producers[client]

    @precondition(lambda self: self.now.topics)
    @rule(data=st.data(), before_end=st.integers(-2, 8))
    def trimmed(self, data: st.DataObject, before_end: int) -> None:
        topic = data.draw(st.sampled_from(sorted(self.now.topics)))
        start = max(0, self.now.ends[topic] - before_end)
        self.journal.trimmed(topic, start)
        if start > self.now.starts.get(topic, 0):
            self.now.starts[topic] = start
            self.now.ends[topic] = max(self.now.ends[topic], start)

    @rule()
    def commit(self) -> None:
        self.journal.commit()
        self.kept = self.now.copy()

    @rule()
    def sync(self) -> None:
        self.journal.sync_if_due(monotonic() + 1)

    @rule(torn=st.binary(max_size=40))
    def die(self, torn: bytes) -> None:
        """Lose what was not committed, with the beginning of a batch written or not."""
        self.journal.close_in_fork()
        with segments(Path(self.directory.name))[-1].open("ab") as file:
            file.write(torn)
        self.now = self.kept.copy()
        self.reopen(len(torn))

    @rule()
    def close(self) -> None:
        """Stop and start in good order."""
        self.journal.close()
        self.kept = self.now.copy()
        self.reopen(0)

    def reopen(self, torn: int) -> None:
        """Open it again and compare."""
        self.journal, back = Journal.open(Path(self.directory.name), **self.options)
        assert (back.epoch, back.cut) == (self.epoch, torn)
        assert {number: tuple(rest) for number, *rest in back.topics} == self.kept.topics
        assert back.cursors == self.kept.cursors
        assert back.crashes == self.kept.crashes
        assert back.producers == self.kept.producers
        assert back.starts == self.kept.starts
        assert back.swept == self.kept.swept
        for topic in self.kept.topics:
            start = self.kept.starts.get(topic, 0)
            wanted = [r for r in self.kept.runs if r[0] == topic and r[1] + r[2] > start]
            assert [run for run in back.runs if run[0] == topic] == wanted

    @invariant()
    def statistics_are_true(self) -> None:
        """What is said about the files is so."""
        files = segments(Path(self.directory.name))
        said = self.journal.statistics()
        assert said["segments"] == len(files)
        assert said["bytes"] == sum(file.stat().st_size for file in files)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.journal.close()
        self.directory.cleanup()


JournalAndModel.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


class TestJournalAgainstItsModel(JournalAndModel.TestCase):  # type: ignore[misc,valid-type]
    """Any history of operations, deaths and restarts leaves what the model says."""
