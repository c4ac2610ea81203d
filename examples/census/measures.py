"""Measures of one module, from its source text; pure but for reading the file."""

from __future__ import annotations

import ast
import tokenize
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ModuleMeasures(BaseModel):
    """What is counted in one module."""

    model_config = ConfigDict(frozen=True)

    module: str = Field(description="Dotted name.")
    path: str = Field(description="Relative to the folder of the census.")
    lines: int
    code_lines: int = Field(description="Lines that are neither blank nor only a comment.")
    functions: int = Field(description="Functions and methods, nested ones included.")
    classes: int
    complexity: int = Field(description="Cyclomatic complexity, summed over the functions.")
    max_complexity: int = Field(description="That of the most complex function; 0 without any.")
    most_complex: str = Field(description="Name of that function; empty without any.")
    max_nesting: int = Field(description="Control-flow blocks around the deepest statement.")


class Unparsable(BaseModel):
    """A file that is not a module this Python could run."""

    model_config = ConfigDict(frozen=True)

    path: str = Field(description="Relative to the folder of the census.")
    reason: str


def measure_file(folder: Path, path: str) -> ModuleMeasures | Unparsable:
    """Measure the file at `path`, relative to `folder`; what cannot be parsed is said so."""
    try:
        with tokenize.open(folder / path) as file:
            source = file.read()
        return measure_source(source, path)
    # Beside SyntaxError the parser gives up with ValueError (null bytes), and with the last two
    # on nesting that is too deep for it.
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as e:
        return Unparsable(path=path, reason=f"{type(e).__name__}: {e}")


def measure_source(source: str, path: str) -> ModuleMeasures:
    """Measure a module's source text.

    Raises:
        SyntaxError: it is not Python of this version.
        ValueError: it holds a null byte.
        RecursionError: it is nested too deeply; or MemoryError, as the parser likes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the code that is measured, not about ours
        tree = ast.parse(source)
    count = _Count.of(tree)
    lines = source.split("\n")
    if not lines[-1]:
        lines.pop()
    top = max(count.functions, key=lambda f: f.complexity, default=_Function("", 0))
    return ModuleMeasures(
        module=module_name(path),
        path=path,
        lines=len(lines),
        code_lines=sum(1 for line in lines if (text := line.strip()) and text[0] != "#"),
        functions=len(count.functions),
        classes=count.classes,
        complexity=sum(f.complexity for f in count.functions),
        max_complexity=top.complexity,
        most_complex=top.name,
        max_nesting=count.nesting,
    )


def module_name(path: str) -> str:
    """Return the dotted name of the module at a relative POSIX path."""
    pure = PurePosixPath(path)
    package = pure.parent.parts
    return ".".join(package if package and pure.stem == "__init__" else (*package, pure.stem))


# Fields that hold no code: identifiers, operators and the like.
_PLAIN = {"ctx", "op", "ops", "id", "attr", "name", "names", "kind", "type_comment", "module"}
_LEAVES = (ast.Name, ast.Constant, ast.alias, ast.expr_context)
_CHILDREN: dict[type, tuple[str, ...]] = {
    node: tuple(name for name in node._fields if name not in _PLAIN)
    for node in vars(ast).values()
    if isinstance(node, type) and issubclass(node, ast.AST) and not issubclass(node, _LEAVES)
}
_BLOCKS = frozenset({"body", "orelse", "finalbody"})
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_NESTING = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.ExceptHandler,
    ast.match_case,
)


@dataclass(slots=True)
class _Function:
    name: str
    complexity: int = 1


@dataclass(frozen=True, slots=True)
class _Block:
    """Statements side by side: in one function (None: the module), at one depth."""

    nodes: list[ast.AST]
    function: _Function | None
    prefix: str
    depth: int


@dataclass(slots=True)
class _Count:
    """Walks a tree without recursion: generated modules nest deeper than Python calls may."""

    functions: list[_Function] = field(default_factory=list)
    classes: int = 0
    nesting: int = 0
    _blocks: list[_Block] = field(default_factory=list)

    @classmethod
    def of(cls, tree: ast.Module) -> _Count:
        count = cls()
        count._blocks.append(_Block([*tree.body], None, "", 0))
        while count._blocks:
            count._walk(count._blocks.pop())
        return count

    def _walk(self, block: _Block) -> None:
        self.nesting = max(self.nesting, block.depth)
        nodes, decisions = block.nodes, 0
        while nodes:
            node = nodes.pop()
            kind = type(node)
            names = _CHILDREN.get(kind)
            if names is None:
                continue
            if kind in _DECISIONS:
                decisions += _DECISIONS[kind](node)
            if isinstance(node, _DEFINITIONS):
                self._define(node, block)
                names = tuple(name for name in names if name != "body")
            elif isinstance(node, _NESTING):
                names = self._nest(node, block, names)
            for name in names:
                child = getattr(node, name)
                if type(child) is list:
                    nodes += child
                else:
                    nodes.append(child)
        if block.function is not None:
            block.function.complexity += decisions

    def _define(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, block: _Block
    ) -> None:
        name, function = f"{block.prefix}{node.name}", block.function
        if isinstance(node, ast.ClassDef):
            self.classes += 1
        else:
            function = _Function(name)
            self.functions.append(function)
        self._blocks.append(_Block([*node.body], function, f"{name}.", 0))

    def _nest(self, node: ast.AST, block: _Block, names: Iterable[str]) -> tuple[str, ...]:
        """Set the inner blocks aside, and return the other fields."""
        here = []
        for name in names:
            inner = getattr(node, name)
            if name not in _BLOCKS or (name == "orelse" and _is_elif(node, inner)):
                here.append(name)
            elif inner:
                self._blocks.append(_Block([*inner], block.function, block.prefix, block.depth + 1))
        return tuple(here)


def _case_decisions(case: ast.match_case) -> int:
    """Count a case, but not one that takes whatever is left, like an else."""
    takes_all = isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None
    return 0 if takes_all and case.guard is None else 1


def _is_elif(node: ast.AST, orelse: list[ast.stmt]) -> bool:
    """Tell ``elif`` from ``else: if``, which the tree does not, by the column."""
    if not isinstance(node, ast.If) or len(orelse) != 1:
        return False
    inner = orelse[0]
    return isinstance(inner, ast.If) and inner.col_offset == node.col_offset


_DECISIONS: dict[type, Callable[[Any], int]] = {
    ast.If: lambda _: 1,
    ast.IfExp: lambda _: 1,
    ast.For: lambda _: 1,
    ast.AsyncFor: lambda _: 1,
    ast.While: lambda _: 1,
    ast.ExceptHandler: lambda _: 1,
    ast.BoolOp: lambda node: len(node.values) - 1,
    ast.comprehension: lambda node: len(node.ifs),
    ast.match_case: _case_decisions,
}
