"""Handlers: which method of an agent takes which messages."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel

from rustic_ai.core.class_names import qualified_name
from rustic_ai.core.messaging.core.message import JsonDict, Message, MessageConstants

F = TypeVar("F", bound=Callable[..., Any])
Predicate = Callable[[Any, Message], bool]
_MARK = "__rustic_processors__"


@dataclass(frozen=True, slots=True)
class Processor:
    """One handler of an agent class."""

    method: str
    format: str | None
    """Format it takes; None: every format."""
    wanted: type | None
    """What the payload is made into, a model or another class; None: what `Message` has."""
    predicate: Predicate | None
    depends_on: tuple[str, ...]
    pickle: bool = False
    """Whether it takes pickles."""


def processor(
    payload_type: Any,
    *,
    predicate: Predicate | None = None,
    depends_on: Sequence[str] = (),
    pickle: bool = False,
) -> Callable[[F], F]:
    """Mark a method of an agent as the handler of some messages.

    Args:
        payload_type: a pydantic model: messages of that format, parsed into it; `JsonDict`:
            messages sent as plain dicts; `Message`: every message, its payload as the message has
            it. `bytes`, or `memoryview` for the same messages without a copy; `numpy.ndarray`;
            `pyarrow.Table`, `pyarrow.RecordBatch`. With `pickle`: any class.
        predicate: called with the agent and the message; False: not for this handler.
        depends_on: keys of dependencies, passed as arguments of that name.
        pickle: messages of exactly that class that were sent with `pickle=True` are taken, too.
            Unpickling runs what the sender wrote, so it is refused where not all senders are known
            to be this user (`Capabilities.trusted`).

    Raises:
        TypeError: the payload type is none of these, or the method lacks an argument.

    Example::

        class Greeter(Agent):
            @agent.processor(GreetRequest)
            def greet(self, ctx: ProcessContext[GreetRequest]) -> None:
                ctx.send(Greeting(text=f"Hello {ctx.payload.name}"))
    """
    format_name, wanted = _wanted(payload_type, pickle=pickle)

    def mark(function: F) -> F:
        missing = set(depends_on) - set(inspect.signature(function).parameters)
        if missing:
            raise TypeError(
                f"{function.__qualname__} depends on {', '.join(map(repr, sorted(missing)))} "
                "and needs an argument of that name"
            )
        found = Processor(
            function.__name__,
            format_name,
            wanted,
            predicate,
            tuple(depends_on),
            pickle,
        )
        setattr(function, _MARK, (*getattr(function, _MARK, ()), found))
        return function

    return mark


def _wanted(payload_type: Any, *, pickle: bool) -> tuple[str | None, type | None]:
    """Return the format that is taken, and the class that payloads are made into."""
    is_class = isinstance(payload_type, type) and get_origin(payload_type) is None
    if is_class and issubclass(payload_type, BaseModel):
        return format_of(payload_type), payload_type
    if payload_type is Message or payload_type == JsonDict:
        if pickle:
            raise TypeError(
                "@processor(..., pickle=True) takes the class of what was pickled, such as dict, "
                f"not {payload_type!r}"
            )
        return (None if payload_type is Message else MessageConstants.RAW_JSON_FORMAT), None
    if is_class:
        from rustic_ai.core.messaging.core.payloads.kinds import format_for

        format_name = format_for(payload_type)
        if format_name is None and pickle:
            format_name = qualified_name(payload_type)
        if format_name is not None:
            return format_name, payload_type
    raise TypeError(
        "@processor takes a pydantic model, JsonDict or Message, not "
        f"{payload_type!r}; bytes, memoryview, numpy.ndarray, pyarrow.Table and "
        "pyarrow.RecordBatch, too, and any other class with pickle=True"
    )


@functools.cache
def format_of(model: type[BaseModel]) -> str:
    """Return the message format of a model: its qualified class name."""
    return qualified_name(model)


def processors_of(cls: type) -> tuple[Processor, ...]:
    """Collect the handlers of a class: base classes first, each in the order of its definition."""
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    return tuple(p for name in names for p in getattr(getattr(cls, name, None), _MARK, ()))
