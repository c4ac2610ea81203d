"""The text of a spec file, its values with their places, and what is wrong with them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rustic_ai.core.errors import Problem, SpecFileError

Path = tuple[str | int, ...]
"""Keys and list indexes from the top of the file down to a value."""

_LONGEST_SHOWN_LINE = 200
"""Characters; a longer line, as in JSON without line breaks, shows nothing to anybody."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file. Places are offsets in the text, in characters.

    Attributes:
        start: where it begins.
        value: what it is, in plain Python values.
        children: the nodes of a mapping by key, of a list by index.
        keys: where the keys of a mapping begin.
    """

    start: int
    value: Any
    children: Mapping[str | int, Node] = field(default_factory=dict)
    keys: Mapping[str | int, int] = field(default_factory=dict)

    def find(self, path: Path) -> Node:
        """Return the node at `path`, or the last one on the way there."""
        node = self
        for part in path:
            if part not in node.children:
                break
            node = node.children[part]
        return node

    def find_key(self, path: Path) -> int:
        """Return where the last key of `path` begins; without such a key, where its owner does."""
        owner = self.find(path[:-1])
        return owner.keys.get(path[-1], owner.start)


class Findings:
    """Collects the problems of one text."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._problems: list[Problem] = []

    def add(self, message: str, path: Path, start: int, hint: str = "") -> None:
        """Note a problem at an offset of the text."""
        line_start = self._text.rfind("\n", 0, start) + 1
        line = self._text[line_start:].partition("\n")[0].rstrip()
        self._problems.append(
            Problem(
                message=message,
                path=path_text(path),
                line=self.line_of(start),
                column=start - line_start + 1,
                hint=hint,
                # A tab is shown as one column, so that the caret stands where it should.
                source=line.replace("\t", " ") if len(line) <= _LONGEST_SHOWN_LINE else "",
            )
        )

    def line_of(self, start: int) -> int:
        """Return the line of an offset, counted from 1."""
        return self._text.count("\n", 0, start) + 1

    def raise_any(self) -> None:
        """Raise what was found, in the order of the text; nothing where nothing was.

        Raises:
            SpecFileError: with all problems.
        """
        if self._problems:
            ordered = sorted(self._problems, key=lambda p: (p.line, p.column))
            raise SpecFileError(file=self._file, problems=list(dict.fromkeys(ordered)))


def list_node(start: int, items: Sequence[Node]) -> Node:
    """Return the node of a list."""
    return Node(start, [item.value for item in items], dict(enumerate(items)))


def mapping_node(
    start: int, items: Iterable[tuple[str, int, Node]], path: Path, findings: Findings
) -> Node:
    """Return the node of a mapping; a key that is given again is a problem."""
    children: dict[str | int, Node] = {}
    keys: dict[str | int, int] = {}
    for key, key_start, child in items:
        if key in children:
            first = findings.line_of(keys[key])
            hint = f"it was given in line {first} already; keep one"
            findings.add(f"key {key!r} is given twice", (*path, key), key_start, hint)
            continue
        children[key], keys[key] = child, key_start
    value = {key: child.value for key, child in children.items()}
    return Node(start, value, children, keys)


def path_text(path: Path) -> str:
    """Write a path the way people do: ``agents[0].name``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the hint that names what `name` may have been meant to be; empty without any."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""
