"""Names to classes and back.

A class is named ``package.module.Class``, or ``package.module:Outer.Inner``. A bare ``Class`` is
looked for, in this order:

1. in the modules that asked: the callers' globals, nearest first,
2. in ``__main__``, the program that was started,
3. among all classes of the wanted kind that this program has defined so far.

What is found is turned into its importable name, so that another process finds the same class.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, TypeVar

from rustic_ai.core.errors import ClassNotFoundError, SpecError

T = TypeVar("T")
_OWN_PACKAGE = "rustic_ai.core."


def name_of(cls: type) -> str:
    """Return the importable name of a class.

    Raises:
        SpecError: it is defined inside a function, where no other process can reach it.
    """
    if "<locals>" in cls.__qualname__:
        raise SpecError(
            summary=f"class {qualified_name(cls)!r} is defined inside a function",
            hint="move it to the top level of a module, so that other processes can import it",
        )
    return qualified_name(cls)


def qualified_name(cls: type) -> str:
    """Return module and name of a class; the same in a program and in its agents."""
    module = "__main__" if cls.__module__ == "__mp_main__" else cls.__module__
    separator = ":" if "." in cls.__qualname__ else "."
    return f"{module}{separator}{cls.__qualname__}"


def load_class(name: str, base: type[T]) -> type[T]:
    """Import the class of an importable name.

    Raises:
        ClassNotFoundError: there is none, or it is not a `base`.
    """
    module_name, _, path = name.partition(":") if ":" in name else name.rpartition(".")
    if not module_name or not path:
        raise ClassNotFoundError(
            name=name, summary=f"{name!r} is not an importable class name ('package.module.Class')"
        )
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name is None or not (module_name + ".").startswith(e.name + "."):
            raise  # the module is there; something that it imports is missing
        raise ClassNotFoundError(
            name=name, looked_in=[f"sys.path: no module {e.name!r}"], hint=_near_module(module_name)
        ) from e
    for part in path.split("."):
        scope, found = found, getattr(found, part, None)
        if found is None:
            near = difflib.get_close_matches(part, _class_names_in(vars(scope)), n=3)
            raise ClassNotFoundError(
                name=name,
                looked_in=[f"module {module_name!r}"],
                hint=f"did you mean {' or '.join(map(repr, near))}?" if near else "",
            )
    return _checked(found, name, base)


def find_class(name: str, base: type[T], callers: Sequence[Mapping[str, Any]] = ()) -> type[T]:
    """Find the class of an importable or bare name, by the rule of this module.

    Args:
        name: the name.
        base: what it must be a subclass of.
        callers: globals of the modules that asked, nearest first.

    Raises:
        ClassNotFoundError: nothing is found; the text says where it looked and what is near.
        SpecError: several classes have that bare name, or it is defined inside a function.
    """
    if "." in name or ":" in name:
        return load_class(name, base)
    main = vars(sys.modules["__main__"])
    for scope in (*callers, main):
        found = scope.get(name)
        if isinstance(found, type) and issubclass(found, base):
            return found
    defined = list(dict.fromkeys(_subclasses(base)))
    matches = [cls for cls in defined if cls.__name__ == name]
    importable = [cls for cls in matches if "<locals>" not in cls.__qualname__]
    if len(importable) > 1:
        raise SpecError(
            summary=f"several classes are called {name!r}: {', '.join(map(name_of, importable))}",
            hint="give the full name of the one you mean",
        )
    if matches:
        cls = (importable or matches)[0]
        name_of(cls)  # refuses a class inside a function, and says so
        return cls
    for scope in (*callers, main):
        if name in scope:
            return _checked(scope[name], name, base)
    raise _bare_name_error(name, base, callers, defined)


def caller_scopes() -> list[Mapping[str, Any]]:
    """Return the globals of the modules on the stack outside this package, nearest first."""
    scopes: list[Mapping[str, Any]] = []
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented for this use
    while frame is not None:
        own = str(frame.f_globals.get("__name__", "")).startswith(_OWN_PACKAGE)
        if not own and all(frame.f_globals is not scope for scope in scopes):
            scopes.append(frame.f_globals)
        frame = frame.f_back
    return scopes


def _checked(found: Any, name: str, base: type[T]) -> type[T]:
    if isinstance(found, type) and issubclass(found, base):
        return found
    what = f"a class, but no {base.__name__}" if isinstance(found, type) else "not a class"
    raise ClassNotFoundError(
        name=name,
        summary=f"{name!r} is {what}",
        hint=f"derive it from {base.__module__}.{base.__qualname__}",
    )


def _subclasses(base: type[T]) -> Iterator[type[T]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _subclasses(cls)


def _class_names_in(scope: Mapping[str, Any]) -> list[str]:
    return [key for key, value in scope.items() if isinstance(value, type)]


def _near_module(name: str) -> str:
    near = difflib.get_close_matches(name, list(sys.modules), n=1)
    return f"did you mean the module {near[0]!r}?" if near else ""


def _bare_name_error(
    name: str, base: type, callers: Sequence[Mapping[str, Any]], defined: list[type[T]]
) -> ClassNotFoundError:
    candidates = {cls.__name__: cls for cls in defined if "<locals>" not in cls.__qualname__}
    near = difflib.get_close_matches(name, list(candidates), n=3)
    modules = [str(scope.get("__name__", "?")) for scope in callers]
    return ClassNotFoundError(
        name=name,
        looked_in=[
            *(f"module {module!r}" for module in dict.fromkeys([*modules, "__main__"])),
            f"the {len(defined)} subclasses of {base.__name__} defined so far",
        ],
        hint=(
            f"did you mean {' or '.join(repr(name_of(candidates[n])) for n in near)}?"
            if near
            else "import its module first, or give the full name 'package.module.Class'"
        ),
    )
