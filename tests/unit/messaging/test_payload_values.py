"""Payloads that are one value: bytes and arrays."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustic_ai.core.errors import PayloadError, PayloadGoneError
from rustic_ai.core.guild.agent import JsonDict, processor
from rustic_ai.core.guild.agent.outbox import Outbox
from rustic_ai.core.guild.agent.processor import Processor
from rustic_ai.core.messaging.core.attachment import InBody, LostPart
from rustic_ai.core.messaging.core.codec import decode_message, encode_message
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.payload import Encoding
from rustic_ai.core.messaging.core.payloads.nested import encode_nest
from rustic_ai.core.messaging.core.payloads.piece import Piece
from rustic_ai.core.messaging.core.payloads.reading import payload_as
from tests.unit.messaging.parcels import Post, outgoing, passed

numpy = pytest.importorskip("numpy")
arrays = pytest.importorskip("hypothesis.extra.numpy")

SAMPLE = numpy.arange(24, dtype="int32").reshape(2, 3, 4)


def forged(piece: object, size: int = 8) -> Message:
    """Make a message whose envelope says something about a part of so many zeros."""
    told = outgoing(b"\0" * size)
    envelope = type(told.envelope)(
        *(getattr(told.envelope, name) for name in ("id", "sender", "topics", "format")),
        Encoding.VALUE,
        encode_nest(piece),  # type: ignore[arg-type]
    )
    message = Message.from_envelope(envelope, None)
    message.parts = told.parts
    return decode_message(encode_message(message), "t")


@given(st.binary(), st.integers(0, 15))
def test_bytes_arrive_as_bytes_or_as_a_view(data: bytes, shift: int) -> None:
    """Bytes-like payloads have one format; who wants it gets a read-only view instead of a copy."""
    for sent in (data, bytearray(data), memoryview(data)):
        message = passed(sent, shift=shift)
        assert message.format == "bytes"
        assert message.payload == payload_as(message, bytes, pickle=False, trusted=True) == data
        assert type(message.payload) is bytes
        view = payload_as(message, memoryview, pickle=False, trusted=True)
        assert (view.readonly, bytes(view)) == (True, data)
        assert message.to_dict()["payload"] == {"bytes": f"{len(data):,} bytes"}


def test_views_of_anything_are_sent_as_their_bytes() -> None:
    """A memoryview may have items of any format, dimensions, or gaps."""
    assert passed(memoryview(SAMPLE)).payload == SAMPLE.tobytes()
    assert passed(memoryview(SAMPLE.astype(">i4"))).payload == SAMPLE.astype(">i4").tobytes()
    assert passed(memoryview(SAMPLE.T)).payload == SAMPLE.T.tobytes()
    assert passed(memoryview(b"abcdef")[::2]).payload == b"ace"


dtypes = (
    arrays.scalar_dtypes()
    | arrays.array_dtypes(arrays.scalar_dtypes(), allow_subarrays=True)
    | arrays.nested_dtypes(arrays.scalar_dtypes(), max_leaves=4)
).filter(lambda dtype: dtype.subdtype is None)
layouts = st.sampled_from(["C", "F", "every second", "turned round"])


@given(
    arrays.arrays(dtypes, arrays.array_shapes(min_dims=0, min_side=0, max_side=4)),
    layouts,
    st.integers(0, 15),
)
def test_arrays_of_any_dtype_shape_and_layout(array: Any, layout: str, shift: int) -> None:
    """They arrive equal, to the bit, read-only, and in Fortran order where they were."""
    if layout == "F":
        array = numpy.asfortranarray(array).reshape(array.shape, order="A")
    elif array.ndim and layout != "C":
        array = array[::2] if layout == "every second" else array[::-1]
    message = passed(array, shift=shift)
    got = message.payload
    assert message.format == "numpy.ndarray"
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    assert got.tobytes() == array.tobytes()
    assert got.flags.aligned
    assert not got.flags.writeable
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        assert got.flags.f_contiguous
    assert "array" in message.to_dict()["payload"]


@pytest.mark.parametrize(
    "array",
    [
        numpy.array(["2026-01-01", "NaT"], "datetime64[ns]"),
        numpy.array([1, 2], "timedelta64[s]"),
        numpy.array([1 + 2j]),
        numpy.array([True, False]),
        numpy.array(["ä", "long text"]),
        numpy.array([b"a\0b"]),
        numpy.array(3.5),
        numpy.zeros((0, 3)),
        numpy.array([(1, 2.5, [3, 4])], [("a", ">i2"), ("b", "f8"), ("c", "i4", (2,))]),
        numpy.zeros(2, numpy.dtype([("a", "i1"), ("b", "f8")], align=True)),
        numpy.zeros(2, [(("a title", "a"), "i4"), ("b", [("c", "f4"), ("d", "U3")])]),
        SAMPLE.astype(">f8"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_of_special_dtypes(array: Any) -> None:
    """Dates, text, records and foreign byte orders stay what they are."""
    got = passed(array).payload
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    assert got.tobytes() == array.tobytes()


def test_an_aligned_array_is_not_copied_anywhere() -> None:
    """It is sent from where it lies, and received over what has arrived."""
    (part,) = outgoing(SAMPLE).parts
    assert isinstance(part, memoryview)
    assert numpy.shares_memory(numpy.frombuffer(part, "u1"), SAMPLE)
    assert isinstance(outgoing(SAMPLE.T).parts[0], memoryview)
    assert not isinstance(outgoing(SAMPLE[:, ::2]).parts[0], memoryview)
    message = passed(SAMPLE)
    assert numpy.shares_memory(message.payload, numpy.frombuffer(message.parts[0], "u1"))


def test_a_memory_map_is_sent_as_an_array(tmp_path: Any) -> None:
    """A mapped file is an array like others."""
    mapped = numpy.memmap(tmp_path / "file", "i4", "w+", shape=(3,))
    mapped[:] = [1, 2, 3]
    assert passed(mapped).payload.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (numpy.array([object()]), r"dtype object .* pickle=True"),
        (numpy.zeros(1, [("a", "O")]), r"they travel only with pickle=True"),
        (numpy.ma.masked_array([1], [True]), r"MaskedArray is more than its elements: send numpy"),
        (numpy.rec.array([(1,)]), r"recarray is more than"),
        ("text", "a dict or a pydantic model, not a str; wrap it"),
        (3, "not a int; wrap it: .* anything else is one with pickle=True"),
        ([b"x"], "not a list"),
        (numpy.float32(3), "not a float32"),
        ({"a": [numpy.array([None])]}, r"payload\['a'\]\[0\] \(a ndarray\) cannot travel .*pickle"),
    ],
)
def test_what_cannot_travel_is_refused(value: object, text: str) -> None:
    """The error says what it is and what to do."""
    with pytest.raises(TypeError, match=text):
        outgoing(value)


@pytest.mark.parametrize("wrong", [int, list, numpy.ma.MaskedArray, bytearray, "bytes", list[int]])
def test_processors_of_nothing_that_can_be_a_payload(wrong: Any) -> None:
    """They are refused where they are defined."""
    with pytest.raises(TypeError, match=r"takes a pydantic model, JsonDict or Message, not .*"):
        processor(wrong)


@pytest.mark.parametrize("wrong", [Message, JsonDict])
def test_pickles_need_a_class(wrong: Any) -> None:
    """A processor of pickles says of which class."""
    with pytest.raises(TypeError, match=r"takes the class of what was pickled, such as dict"):
        processor(wrong, pickle=True)


def test_formats_of_processors() -> None:
    """A class stands for the format of what is sent as such."""

    def formats(cls: Any, **options: Any) -> str | None:
        marked = processor(cls, **options)(lambda self, ctx: None)
        found: Processor = marked.__rustic_processors__[0]  # type: ignore[attr-defined]
        return found.format

    assert formats(bytes) == formats(memoryview) == "bytes"
    assert formats(numpy.ndarray) == formats(numpy.ndarray, pickle=True) == "numpy.ndarray"
    assert formats(dict, pickle=True) == "builtins.dict"


@pytest.mark.parametrize(
    ("piece", "text"),
    [
        (Piece("numpy.ndarray", 8, ["|O", [1], "C"]), "pickle"),
        (Piece("numpy.ndarray", 8, [[["a", "|O"]], [1], "C"]), "pickle"),
        (Piece("numpy.ndarray", 8, ["<f8", [2], "C"]), "TypeError: buffer is too small"),
        (Piece("numpy.ndarray", 8, ["<f4", [1], "C"]), "8 bytes for 1 elements of float32"),
        (Piece("numpy.ndarray", 8, ["<f8", [2, -1], "C"]), "ValueError"),
        (Piece("numpy.ndarray", 8, ["nonsense", [1], "C"]), "TypeError"),
        (Piece("numpy.ndarray", 8, None), "TypeError"),
        (Piece("pyarrow.Table", 8, [1, 1]), "Arrow|No module"),
        (Piece("of.tomorrow", 8), "it holds a 'of.tomorrow': unknown here"),
        (Piece("bytes", 9), "a part has 8 bytes instead of 9"),
        (7, "Expected `array`"),
    ],
    ids=repr,
)
def test_an_envelope_that_lies(piece: object, text: str) -> None:
    """Whatever an envelope says of its part, the payload is refused, and logs can show it."""
    message = forged(piece)
    with pytest.raises(PayloadError, match=text):
        _ = message.payload
    assert isinstance(message.to_dict()["payload"], dict)


def test_a_lost_part() -> None:
    """A payload whose part is lost says so, also after it was stored once more."""
    message = passed(SAMPLE)
    message.parts = (LostPart("the wind took it"),)
    with pytest.raises(PayloadGoneError, match=r"of a numpy\.ndarray is gone: the wind took it"):
        _ = message.payload
    with pytest.raises(PayloadGoneError, match="lost before the message was stored here"):
        _ = decode_message(encode_message(message), "t").payload
    assert message.to_dict()["payload"] == {"array": "int32[2, 3, 4]"}


def test_parts_can_be_stored_with_their_message() -> None:
    """`store` keeps every part in the body."""
    message = outgoing({"a": SAMPLE, "b": SAMPLE[:, ::2]}, store=True)
    assert all(isinstance(part, InBody) for part in message.parts)
    assert decode_message(encode_message(message), "t").payload["b"].tolist() == (
        SAMPLE[:, ::2].tolist()
    )


@pytest.mark.parametrize("whole", [True, False])
def test_allocated_arrays_are_frozen_when_they_are_sent(whole: bool) -> None:
    """What was allocated cannot be changed any more once it, or a view of it, was sent."""
    outbox = Outbox(Post())
    mine = numpy.ones(3)
    array, other = outbox.allocate((4, 3), "int16"), outbox.allocate(3, "f8")
    array[:] = 7
    view = array.T if whole else array[1:3]
    outbox.post(view, "t")
    assert not array.flags.writeable
    assert not view.flags.writeable
    outbox.post({"deep": [other[::2]], "mine": mine}, "t", store=True)
    assert not other.flags.writeable
    assert mine.flags.writeable
    assert outbox.allocate(0, int).shape == (0,)
    with pytest.raises(TypeError, match="dtype object"):
        outbox.allocate(1, object)


def test_a_process_without_arrays_loads_nothing_for_them() -> None:
    """Handlers of models and dicts do without all of this; bytes do without numpy."""
    code = """
import sys
import rustic_ai.core.guild.execution.multiprocess.child
assert not [name for name in sys.modules if "core.payloads" in name]
from tests.unit.messaging.parcels import passed
assert passed(b"x").payload == b"x"
assert not {"numpy", "pyarrow"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
