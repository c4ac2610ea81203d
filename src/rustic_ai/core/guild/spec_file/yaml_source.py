"""YAML text to nodes: the core schema of YAML 1.2, plain values only.

PyYAML scans and parses; what a scalar means is decided here, since PyYAML follows YAML 1.1, where
``no`` is false, ``12:30`` a number and a repeated key nothing to speak of. Nothing is ever
constructed but text, numbers, booleans, nulls, lists and mappings.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from rustic_ai.core.guild.spec_file.source import (
    Findings,
    Node,
    Path,
    list_node,
    mapping_node,
    path_text,
)

_PREFIX = "tag:yaml.org,2002:"

CORE_SCHEMA = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
)
"""Name, pattern and first characters of what is not text, in the order of their trial."""


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """Everything of PyYAML up to its node tree, and nothing that makes objects."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)


for _name, _pattern, _first in CORE_SCHEMA:
    _Loader.add_implicit_resolver(_PREFIX + _name, _pattern, _first)


def compose_yaml(text: str, findings: Findings) -> Node | None:
    """Return the top node; None where the text is empty or cannot be parsed."""
    try:
        tree = _Loader(text).get_single_node()
        return _Converter(findings).convert(tree, ()) if tree is not None else None
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        message = ", ".join(part for part in (e.context, e.problem) if part)
        hint = "indent with spaces, not with tabs" if "'\\t'" in message else ""
        findings.add(f"not valid YAML: {message}", (), mark.index if mark else 0, hint)
    except ReaderError as e:
        code = e.character if isinstance(e.character, int) else ord(e.character)
        what = f"a character that YAML does not allow: U+{code:04X}"
        findings.add(what, (), e.position, "write it as an escape in double quotes")
    except RecursionError:
        findings.add("nested too deeply", (), 0)
    return None


class _Converter:
    """Turns PyYAML's tree into ours; what several aliases name is converted once."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._done: dict[int, Node | None] = {}

    def convert(self, node: yaml.Node, path: Path) -> Node:
        start = node.start_mark.index
        if id(node) in self._done:
            known = self._done[id(node)]
            if known is None:
                self._findings.add("an alias leads back into itself", path, start)
            return known or Node(start, None)
        self._done[id(node)] = None
        self._done[id(node)] = result = self._convert(node, path, start)
        return result

    def _convert(self, node: yaml.Node, path: Path, start: int) -> Node:
        if node.tag == _PREFIX + "map" and isinstance(node, yaml.MappingNode):
            items = [
                (key.value, key.start_mark.index, self.convert(value, (*path, key.value)))
                for key, value in node.value
                if self._is_text(key, path)
            ]
            return mapping_node(start, items, path, self._findings)
        if node.tag == _PREFIX + "seq" and isinstance(node, yaml.SequenceNode):
            items_of = enumerate(node.value)
            return list_node(start, [self.convert(item, (*path, i)) for i, item in items_of])
        if isinstance(node, yaml.ScalarNode):
            try:
                return Node(start, _scalar(node.tag.removeprefix(_PREFIX), node.value))
            except ValueError:
                tag = node.tag.replace(_PREFIX, "!!")
                what = f"{path_text(path) or 'the file'}: cannot be read as {tag!r}"
                self._findings.add(what, path, start)
                return Node(start, node.value.encode(errors="replace").decode())
        tag = node.tag.replace(_PREFIX, "!!")
        self._findings.add(f"the tag {tag!r} is not allowed here", path, start)
        return Node(start, None)

    def _is_text(self, key: yaml.Node, path: Path) -> bool:
        if key.tag == _PREFIX + "str" and isinstance(key, yaml.ScalarNode):
            return True
        what = f"the key {key.value}" if isinstance(key, yaml.ScalarNode) else "this key"
        self._findings.add(f"{what} is not text", path, key.start_mark.index, "put it in quotes")
        return False


def _scalar(kind: str, text: str) -> Any:
    """Return the value of a scalar.

    Raises:
        ValueError: the text is none of that kind, or the kind is unknown.
    """
    match kind:
        case "str":
            text.encode()  # refuses escapes of half a character
            return text
        case "null":
            return None
        case "bool" if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        case "int":
            return int(text, 0 if text[:2] in {"0o", "0x"} else 10)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        case _:
            raise ValueError(kind)
