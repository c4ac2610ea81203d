"""JSON text to nodes. Not left to the YAML side, which stumbles over tabs and escaped pairs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from rustic_ai.core.guild.spec_file.source import (
    Findings,
    Node,
    Path,
    list_node,
    mapping_node,
    path_text,
)

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_Tokens = Iterator[re.Match[str]]


def is_json(text: str) -> bool:
    """Say whether the text is valid JSON with a mapping or a list at its top."""
    if text.lstrip()[:1] not in {"{", "["}:
        return False
    try:
        _check(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    return True


def compose_json(text: str, findings: Findings) -> Node | None:
    """Return the top node; None where the text is empty or cannot be parsed."""
    if not text.strip():
        return None
    try:
        _check(text)
        tokens = _TOKEN.finditer(text)
        return _value(next(tokens), tokens, (), findings)
    except json.JSONDecodeError as e:
        findings.add(f"not valid JSON: {e.msg[:1].lower()}{e.msg[1:]}", (), e.pos)
    except RecursionError:
        findings.add("nested too deeply", (), 0)
    return None


def _check(text: str) -> None:
    json.loads(text, parse_int=str)  # a number of 5,000 digits is no matter of syntax


def _value(token: re.Match[str], tokens: _Tokens, path: Path, findings: Findings) -> Node:
    """Return the node that begins with `token`. The text is known to be valid."""
    start = token.start()
    if token[0] == "{":
        return mapping_node(start, list(_items(tokens, path, findings)), path, findings)
    if token[0] == "[":
        return list_node(start, list(_elements(tokens, path, findings)))
    try:
        value = json.loads(token[0])
        if isinstance(value, str):
            value.encode()  # refuses escapes of half a character
    except ValueError:  # or more digits than Python converts
        findings.add(f"{path_text(path)}: cannot be read", path, start)
        return Node(start, token[0])
    return Node(start, value)


def _items(tokens: _Tokens, path: Path, findings: Findings) -> Iterator[tuple[str, int, Node]]:
    for token in tokens:
        if token[0] == "}":
            return
        if token[0] != ",":
            key = json.loads(token[0])
            next(tokens)  # the colon
            yield key, token.start(), _value(next(tokens), tokens, (*path, key), findings)


def _elements(tokens: _Tokens, path: Path, findings: Findings) -> Iterator[Node]:
    count = 0
    for token in tokens:
        if token[0] == "]":
            return
        if token[0] != ",":
            yield _value(token, tokens, (*path, count), findings)
            count += 1
