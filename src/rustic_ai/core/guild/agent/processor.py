"""Handlers: which method of an agent takes which messages."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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
    model: type[BaseModel] | None
    """What the payload is parsed into; None: it stays a dict."""
    predicate: Predicate | None
    depends_on: tuple[str, ...]


def processor(
    payload_type: Any,
    *,
    predicate: Predicate | None = None,
    depends_on: Sequence[str] = (),
) -> Callable[[F], F]:
    """Mark a method of an agent as the handler of some messages.

    Args:
        payload_type: a pydantic model: messages of that format, parsed into it; `JsonDict`:
            messages sent as plain dicts; `Message`: every message, its payload a dict.
        predicate: called with the agent and the message; False: not for this handler.
        depends_on: keys of dependencies, passed as arguments of that name.

    Raises:
        TypeError: the payload type is none of these, or the method lacks an argument.

    Example::

        class Greeter(Agent):
            @agent.processor(GreetRequest)
            def greet(self, ctx: ProcessContext[GreetRequest]) -> None:
                ctx.send(Greeting(text=f"Hello {ctx.payload.name}"))
    """
    if isinstance(payload_type, type) and issubclass(payload_type, BaseModel):
        wanted: tuple[str | None, type[BaseModel] | None] = (format_of(payload_type), payload_type)
    elif payload_type == JsonDict:
        wanted = (MessageConstants.RAW_JSON_FORMAT, None)
    elif payload_type is Message:
        wanted = (None, None)
    else:
        raise TypeError(
            f"@processor takes a pydantic model, JsonDict or Message, not {payload_type!r}"
        )

    def mark(function: F) -> F:
        missing = set(depends_on) - set(inspect.signature(function).parameters)
        if missing:
            raise TypeError(
                f"{function.__qualname__} depends on {', '.join(map(repr, sorted(missing)))} "
                "and needs an argument of that name"
            )
        found = Processor(
            function.__name__,
            *wanted,
            predicate,
            tuple(depends_on),
        )
        setattr(function, _MARK, (*getattr(function, _MARK, ()), found))
        return function

    return mark


@functools.cache
def format_of(model: type[BaseModel]) -> str:
    """Return the message format of a model: its qualified class name."""
    return qualified_name(model)


def processors_of(cls: type) -> tuple[Processor, ...]:
    """Collect the handlers of a class: base classes first, each in the order of its definition."""
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    return tuple(p for name in names for p in getattr(getattr(cls, name, None), _MARK, ()))
