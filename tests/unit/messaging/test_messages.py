"""Messages, their ids and payloads."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from rustic_ai.core.errors import GuildError, MessagingConfigError, ProtocolError
from rustic_ai.core.messaging import AgentTag, Message, MessagingConfig, Priority
from rustic_ai.core.messaging.core.codec import decode_message, encode_message
from rustic_ai.core.messaging.core.machine_number import SHORT_NUMBERS, MachineNumber
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator, GemstoneID
from rustic_ai.core.settings import RUNTIME_DIR_VARIABLE, runtime_dir

ids = GemstoneGenerator()
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.text()
    | st.floats(allow_nan=False)
    | st.binary()
)
payloads = st.dictionaries(
    st.text(),
    st.recursive(scalars, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8),
)


class Reading(BaseModel):
    """A model."""

    value: float


def make(payload: object, **fields: object) -> Message:
    """Make a message."""
    options: dict[str, object] = {"sender": AgentTag("a", "A"), "topics": "t", **fields}
    return Message(id_obj=ids.get_id(), payload=payload, **options)  # type: ignore[arg-type]


@given(payloads)
def test_dicts_survive_the_wire(payload: dict[str, object]) -> None:
    """A message comes back equal, with its payload, whatever a dict may hold."""
    message = make(
        payload, ttl=2.5, thread=[1, 2], recipient_list=[AgentTag("b")], in_response_to=7
    )
    back = decode_message(encode_message(message), "t")
    assert back == message
    assert back.payload == payload
    assert back.to_dict() == {**message.to_dict(), "topic_published_to": "t"}


def test_not_a_number_survives() -> None:
    """A dict keeps what JSON would lose."""
    back = decode_message(encode_message(make({"x": math.nan, "y": math.inf})), "t")
    assert math.isnan(back.payload["x"])
    assert back.payload["y"] == math.inf


def test_models_become_dicts_for_whoever_wants_one() -> None:
    """The payload of a model can be read as a dict."""
    assert make(Reading(value=1.5)).payload == {"value": 1.5}


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"a": [1, {"b": object()}]}, r"payload\['a'\]\[1\]\['b'\] \(a object\) cannot travel"),
        ({"big": 1 << 70}, r"payload\['big'\] \(a int\) cannot travel"),
        ([1], "a dict or a pydantic model, not a list"),
    ],
)
def test_what_cannot_travel_is_named(payload: object, text: str) -> None:
    """A value that a message cannot carry is refused with its path."""
    with pytest.raises(TypeError, match=text):
        make(payload)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"topics": []}, "at least one topic"),
        ({"topics": ["a", ""]}, "none may be empty"),
        ({"ttl": 0}, "must be positive"),
        ({"priority": Priority.LOW}, "the id says priority NORMAL, not LOW"),
    ],
)
def test_impossible_envelopes_are_refused(fields: dict[str, object], text: str) -> None:
    """A message without topic, with a dead ttl or two priorities is refused."""
    with pytest.raises(ValueError, match=text):
        make({}, **fields)


def test_garbage_is_no_message() -> None:
    """Bytes that are not an envelope raise a protocol error that names the topic."""
    for garbage in (b"", b"\xc1", b"\x93\x01\x02\x03"):
        with pytest.raises(ProtocolError, match="topic 't'"):
            decode_message(garbage, "t")


def test_ids_are_unique_and_ascend() -> None:
    """Ids of one process never repeat and never go back, whatever generator or thread asks."""
    made: list[list[int]] = []

    def generate() -> None:
        own = GemstoneGenerator(300)
        made.append([own.get_id().value for _ in range(20_000)])

    threads = [threading.Thread(target=generate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({i for ids_ in made for i in ids_}) == 80_000
    assert all(ids_ == sorted(ids_) for ids_ in made)


def test_ids_sort_by_priority_then_time() -> None:
    """An urgent id goes before all normal ones, and each knows its parts."""
    low, urgent = ids.get_id(Priority.LOW), ids.get_id(Priority.URGENT)
    assert urgent < low
    assert urgent.to_int() < low.to_int() < 1 << 64
    assert (urgent.priority, low.priority) == (Priority.URGENT, Priority.LOW)
    assert 0 <= urgent.timestamp - low.timestamp < 5000
    assert urgent.machine_id == low.machine_id
    assert GemstoneID.from_int(urgent.value) == urgent
    with pytest.raises(ValueError, match="64 bits"):
        GemstoneID.from_int(1 << 64)
    with pytest.raises(ValueError, match="9"):
        ids.get_id(9)  # type: ignore[arg-type]


GENERATE = """
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator
print(*[GemstoneGenerator().get_id().value for _ in range(2000)])
"""


def test_ids_are_unique_across_processes_and_restarts() -> None:
    """Processes beside and after each other make no id twice."""
    seen: list[str] = []
    for _ in range(2):
        running = [
            subprocess.Popen([sys.executable, "-c", GENERATE], stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        for process in running:
            seen += process.communicate()[0].split()
    assert len(set(seen)) == len(seen) == 16_000


def test_a_fork_takes_a_number_of_its_own() -> None:
    """A forked child does not go on with its parent's machine number."""
    ids.get_id()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, str(ids.get_id().machine_id).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    child = int(os.read(reader, 100))
    os.close(reader)
    os.close(writer)
    assert child != ids.get_id().machine_id


def test_machine_numbers_go_on_beyond_the_short_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all short numbers may still be in use, long ones are leased."""
    monkeypatch.setenv(RUNTIME_DIR_VARIABLE, str(tmp_path))
    reserved = (1 << 62).to_bytes(8, "little") * SHORT_NUMBERS
    (tmp_path / "machine-numbers").write_bytes(reserved)
    lease = MachineNumber.lease(now_ms=1000)
    assert lease.number == SHORT_NUMBERS
    assert lease.reserved_until > 1000
    os.close(lease._fd)


def test_a_runtime_directory_that_cannot_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the directory and the variable to set."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(RUNTIME_DIR_VARIABLE, str(tmp_path / "file" / "below"))
    with pytest.raises(GuildError, match=r"file/below cannot be made.*\n.*RUSTIC_RUNTIME_DIR"):
        runtime_dir()


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"backend_module": "no.such", "backend_class": "X"}, "cannot import 'no.such'"),
        (
            {
                "backend_module": "rustic_ai.core.messaging",
                "backend_class": "InMemoryMessagingBacken",
            },
            "did you mean 'InMemoryMessagingBackend'",
        ),
        (
            {
                "backend_module": "rustic_ai.core.messaging.backend.embedded_backend",
                "backend_class": "EmbeddedMessagingBackend",
                "backend_config": {"prt": 1},
            },
            "no setting 'prt' .*\n.*did you mean 'port'",
        ),
        ({"backend_module": "x"}, "backend_class"),
    ],
)
def test_wrong_configurations_are_named(config: dict[str, object], text: str) -> None:
    """A messaging configuration says what is wrong with it, and what is near."""
    with pytest.raises(MessagingConfigError, match=text):
        MessagingConfig.of(config).create_backend()
    with pytest.raises(MessagingConfigError, match="not a int"):
        MessagingConfig.of(3)  # type: ignore[arg-type]
