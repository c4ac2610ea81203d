"""Payloads with arrays in them: models, dicts, tables, pickles."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_serializer
from pydantic_core import PydanticSerializationError

from rustic_ai.core.errors import PayloadError, PayloadGoneError, PickleRefusedError
from rustic_ai.core.guild.agent.outbox import Outbox
from rustic_ai.core.messaging.core.attachment import LostPart
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.payload import Encoding
from rustic_ai.core.messaging.core.payloads import nested, pickled
from rustic_ai.core.messaging.core.payloads.reading import payload_as
from tests.unit.messaging.parcels import Post, outgoing, passed

numpy = pytest.importorskip("numpy")
ITEMS = TypeVar("ITEMS")


class Base(BaseModel):
    """May hold arrays."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


class Sub(Base):
    """A model in a model."""

    points: numpy.ndarray
    text: str = "\0 \u2028 ü"


class MoreSub(Sub):
    """One with more."""

    more: int = 7


class Frame(Base):
    """A bit of everything."""

    image: numpy.ndarray
    optional: numpy.ndarray | None = None
    several: list[numpy.ndarray] = []
    named: dict[str, Any] = {}
    sub: Sub | None = None
    anything: SerializeAsAny[Sub] | None = None
    view: memoryview | None = None
    at: dt.datetime = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    pair: tuple[int, str] = (1, "x")
    ids: set[uuid.UUID] = {uuid.UUID(int=3)}
    price: decimal.Decimal = decimal.Decimal("1.10")
    ratio: float = 0.5
    data: bytes = b"text"


class Renamed(Base):
    """Goes by another name."""

    model_config = ConfigDict(serialize_by_alias=True)
    array: numpy.ndarray = Field(alias="the-array")


class Strict(Base):
    """Takes no text for a date."""

    model_config = ConfigDict(strict=True)
    array: numpy.ndarray
    day: dt.date
    pair: tuple[int, int]


class Listed(Base):
    """Writes its array itself."""

    array: numpy.ndarray

    @field_serializer("array")
    def _as_list(self, array: Any) -> list[float]:
        return [float(x) for x in array]


class Boxed(Base, Generic[ITEMS]):
    """Of some type."""

    items: ITEMS


class Hexed(Base):
    """Bytes as base64."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    array: numpy.ndarray
    data: bytes


class Pair:
    """No model, and a payload only as a pickle."""

    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right = left, right


class Trap:
    """Raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return (int, ("no number",))


def reread(model: BaseModel, *, wanted: type | None = None, **options: Any) -> Any:
    """Pass a model on, and read it as what it was."""
    message = passed(model, **options)
    return payload_as(message, wanted or type(model), pickle=False, trusted=False)


def test_a_model_with_arrays_everywhere() -> None:
    """In fields, lists, dicts and models of models; the rest is as it always is."""
    a = numpy.arange(6.0).reshape(2, 3)
    sent = Frame(
        image=a,
        several=[a[0], a[:, 1]],
        named={"x": {"y": [a.T, "plain"]}, "z": 1},
        sub=Sub(points=a[::-1]),
        anything=MoreSub(points=a[1]),
        view=memoryview(b"raw"),
        ratio=math.pi,
    )
    message = passed(sent)
    assert message.envelope.encoding is Encoding.JSON_PARTS
    got = payload_as(message, Frame, pickle=False, trusted=False)
    numpy.testing.assert_array_equal(got.image, a)
    numpy.testing.assert_array_equal(got.several[0], a[0])
    numpy.testing.assert_array_equal(got.several[1], a[:, 1])
    numpy.testing.assert_array_equal(got.named["x"]["y"][0], a.T)
    numpy.testing.assert_array_equal(got.sub.points, a[::-1])
    assert not got.image.flags.writeable
    assert (got.view, got.named["x"]["y"][1], got.named["z"]) == (b"raw", "plain", 1)
    plain = {"optional", "at", "pair", "ids", "price", "ratio", "data"}
    assert got.model_dump(include=plain) == sent.model_dump(include=plain)
    assert got.sub.text == "\0 \u2028 ü"
    assert message.payload["anything"]["more"] == 7
    shown = message.to_dict()["payload"]
    assert shown["image"] == {"array": "float64[2, 3]"}
    assert shown["view"] == {"bytes": "3 bytes"}


def test_the_same_model_without_an_array_goes_the_plain_way() -> None:
    """Nothing is spent on what is not there; nor on a model that writes its arrays itself."""
    plain: BaseModel = Boxed[numpy.ndarray | int](items=3)
    assert passed(plain).envelope.encoding is Encoding.JSON
    assert passed(Listed(array=numpy.arange(2.0))).payload == {"array": [0.0, 1.0]}


def test_aliases_strict_models_and_generic_ones() -> None:
    """Names, strictness and type variables do not stand in the way of arrays."""
    assert reread(Renamed(**{"the-array": numpy.arange(2)})).array.tolist() == [0, 1]
    strict = Strict(array=numpy.arange(2), day=dt.date(2026, 1, 2), pair=(1, 2))
    assert reread(strict).model_dump(exclude={"array"}) == strict.model_dump(exclude={"array"})
    box = Boxed[list[numpy.ndarray]](items=[numpy.arange(2)])
    assert reread(box).items[0].tolist() == [0, 1]


def test_text_that_looks_like_a_stand_in() -> None:
    """What stands for an array cannot be guessed: whatever a text says, it stays a text."""
    text = "\x000123456789abcdef:0"
    got = reread(Sub(points=numpy.arange(2), text=text))
    assert got.text == text


def test_values_that_a_model_cannot_carry() -> None:
    """Of what is no array pydantic says so, as ever; an array says why it cannot travel."""
    with pytest.raises(PydanticSerializationError, match="unknown type: <class 'object'>"):
        outgoing(Boxed[Any](items=[numpy.arange(2), object()]))
    with pytest.raises(TypeError, match="dtype object"):
        outgoing(Boxed[Any](items=numpy.array([None])))
    with pytest.raises(TypeError, match="ser_json_bytes='base64'"):
        outgoing(Hexed(array=numpy.arange(2), data=b"x"))


def test_a_payload_that_is_not_the_model() -> None:
    """What does not fit is refused with the model's own words."""
    with pytest.raises(PayloadError, match=r"day\s+Field required"):
        reread(Sub(points=numpy.arange(2)), wanted=Strict)
    with pytest.raises(PayloadError, match="it is a ndarray, not a Sub"):
        payload_as(passed(numpy.arange(2)), Sub, pickle=False, trusted=False)
    with pytest.raises(PayloadError, match="it is a dict, not a bytes"):
        payload_as(passed({"a": 1}), bytes, pickle=False, trusted=False)


def test_dicts_with_arrays() -> None:
    """They hold arrays at any depth, beside what a dict could hold before."""
    a = numpy.arange(3)
    sent = {"a": a, "deep": [{"b": a[::2]}], "nan": math.nan, "raw": b"\xff", "n": None, "t": (1,)}
    message = passed(sent)
    got = message.payload
    assert message.format == "generic_json"
    assert got["a"].tolist() == [0, 1, 2]
    assert got["deep"][0]["b"].tolist() == [0, 2]
    assert math.isnan(got["nan"])
    assert (got["raw"], got["n"], got["t"]) == (b"\xff", None, [1])
    assert message.to_dict()["payload"]["a"] == {"array": "int64[3]"}
    assert passed({"points": a}, format="f").payload["points"].tolist() == [0, 1, 2]


def test_a_dict_can_become_a_model_with_arrays() -> None:
    """A dict that was sent in a model's format is read as that model."""
    message = passed({"points": numpy.arange(2)}, format="x.Sub")
    assert payload_as(message, Sub, pickle=False, trusted=False).points.tolist() == [0, 1]


def test_one_lost_part_makes_the_payload_unreadable() -> None:
    """But logs can still show what it was."""
    message = passed({"a": numpy.arange(2), "b": numpy.arange(3)})
    message.parts = (message.parts[0], LostPart("overwritten"))
    with pytest.raises(PayloadGoneError, match="a generic_json is gone: overwritten"):
        _ = message.payload
    assert message.to_dict()["payload"]["b"] == {"array": "int64[3]"}


def test_a_message_with_a_part_too_few() -> None:
    """Envelope and parts that do not belong together are refused."""
    message = passed({"a": numpy.arange(2)})
    message.parts = ()
    with pytest.raises(PayloadError, match="not a valid generic_json: zip"):
        _ = message.payload


# Pickles


def opened(message: Message, wanted: type = object, *, trusted: bool = True) -> Any:
    """Unpickle."""
    return payload_as(message, wanted, pickle=True, trusted=trusted)


def test_pickles_with_their_buffers_apart() -> None:
    """Arrays of whatever was pickled travel as parts, and arrive read-only."""
    message = passed(Pair(numpy.arange(5), {"scattered": numpy.arange(8)[::2]}), pickle=True)
    assert message.format == f"{__name__}.Pair"
    got = opened(message, Pair)
    assert got.left.tolist() == [0, 1, 2, 3, 4]
    assert got.right["scattered"].tolist() == [0, 2, 4, 6]
    assert not got.left.flags.writeable
    assert len(message.parts) >= 2
    assert message.to_dict()["payload"]["pickle"].endswith(" bytes")


@pytest.mark.parametrize("value", [{"a": {1, 2}}, numpy.array([None, 1]), b"x", Sub.__doc__])
def test_anything_is_a_payload_as_a_pickle(value: Any) -> None:
    """Also what would be one without, and what could not travel otherwise."""
    got = opened(passed(value, pickle=True))
    assert type(got) is type(value)
    assert repr(got) == repr(value)


def test_more_buffers_than_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no room among the parts stays in a pickle; elsewhere it is an error."""
    monkeypatch.setattr(nested, "MAX_PARTS", 4)
    monkeypatch.setattr(pickled, "MAX_PARTS", 4)
    sent = [numpy.full(1, n) for n in range(5)]
    message = passed(sent, pickle=True)
    assert len(message.parts) == 4
    assert [int(x[0]) for x in opened(message)] == list(range(5))
    with pytest.raises(TypeError, match=r"payload\['a'\] \(a list\) cannot .* holds 4 arrays"):
        outgoing({"a": sent})


def test_pickles_only_where_both_ends_ask_and_all_are_one_user() -> None:
    """Else they are neither made nor opened."""
    message = passed(Pair(1, 2), pickle=True)
    with pytest.raises(PickleRefusedError, match=r"Pair is refused: .* nobody here has asked"):
        _ = message.payload
    with pytest.raises(PickleRefusedError, match=r"nobody here has asked"):
        payload_as(message, Pair, pickle=False, trusted=True)
    with pytest.raises(PickleRefusedError, match=r"does not prove that all who can publish"):
        opened(message, trusted=False)
    with pytest.raises(PickleRefusedError, match=r"does not prove that all who can publish"):
        Outbox(Post(trusted=False)).compose(Pair(1, 2), "t", pickle=True)


def test_pickles_that_are_not_what_is_wanted() -> None:
    """Another class, and what cannot be pickled or unpickled, is an error of the payload."""
    with pytest.raises(PayloadError, match="it is a Pair, not a Sub"):
        opened(passed(Pair(1, 2), pickle=True), Sub)
    with pytest.raises(PayloadError, match="cannot be unpickled: ValueError: invalid literal"):
        opened(passed(Trap(), pickle=True))
    with pytest.raises(TypeError, match="a function cannot be pickled"):
        outgoing(lambda: None, pickle=True)


# Arrow


@pytest.fixture
def arrow() -> Any:
    """Give pyarrow."""
    return pytest.importorskip("pyarrow")


@pytest.mark.parametrize("shift", range(0, 9, 4))
def test_arrow_tables_and_batches(arrow: Any, shift: int) -> None:
    """They arrive equal, with their schema's metadata, and without a copy where aligned."""
    columns = {"n": [1, None, 3], "s": ["a", "bb", None], "l": [[1], [], None]}
    table = arrow.table(columns).replace_schema_metadata({"k": "v"})
    table = arrow.concat_tables([table, table.slice(1)])
    message = passed(table, shift=shift)
    got = message.payload
    assert message.format == "pyarrow.Table"
    assert got.equals(table, check_metadata=True)
    assert message.to_dict()["payload"] == {"arrow": "5 rows, 3 columns"}
    batch = arrow.record_batch({"x": [1.5, 2.5]})
    message = passed(batch, shift=shift)
    assert message.format == "pyarrow.RecordBatch"
    assert message.payload.equals(batch)
    assert passed(table.slice(0, 0), shift=shift).payload.num_rows == 0


def test_arrow_tables_in_models_and_dicts(arrow: Any) -> None:
    """They stand wherever arrays may stand."""
    table = arrow.table({"x": [1, 2]})
    assert passed({"t": [table]}).payload["t"][0].equals(table)
    assert reread(Boxed[arrow.Table](items=table)).items.equals(table)
