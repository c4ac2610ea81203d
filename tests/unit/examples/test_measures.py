"""The measures of the census, against cases counted by hand."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from examples.census.measures import (
    ModuleMeasures,
    Unparsable,
    measure_file,
    measure_source,
    module_name,
)


def measured(source: str) -> ModuleMeasures:
    return measure_source(dedent(source).lstrip("\n"), "some/module.py")


def complexity(body: str) -> int:
    """Return the complexity of a function with that body."""
    lines = "\n".join(f"    {line}" for line in dedent(body).strip("\n").split("\n"))
    return measured(f"def f(a, b, c):\n{lines}\n").max_complexity


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return 1", 1),
        ("if a:\n    return 1\nreturn 2", 2),
        ("if a:\n    pass\nelif b:\n    pass\nelse:\n    pass", 3),
        ("for x in a:\n    pass\nelse:\n    pass", 2),
        ("while a:\n    pass", 2),
        ("try:\n    pass\nexcept A:\n    pass\nexcept B:\n    pass\nfinally:\n    pass", 3),
        ("try:\n    pass\nexcept* A:\n    pass", 2),
        ("with a as b:\n    assert b", 1),
        ("return a and b and c", 3),
        ("return a and (b or c)", 3),
        ("return a if b else c", 2),
        ("return [x for x in a]", 1),
        ("return [x for x in a if x if b for y in x if y]", 4),
        ("return lambda x: x if a else b", 2),
        ("match a:\n    case 1:\n        pass\n    case _:\n        pass", 2),
        ("match a:\n    case 1 | 2:\n        pass\n    case x if x and b:\n        pass", 4),
        ("if a and b:\n    for x in a:\n        while x or c:\n            pass", 6),
    ],
)
def test_complexity_is_one_and_the_decisions(body: str, expected: int) -> None:
    """Every decision adds one, as counted by hand."""
    assert complexity(body) == expected


def test_async_code_counts_like_other_code() -> None:
    """`async def`, `async for` and `async with` are functions, loops and blocks."""
    module = measured(
        """
        async def f(a):
            async for x in a:
                async with x:
                    pass
        """
    )
    assert (module.functions, module.max_complexity, module.max_nesting) == (1, 2, 2)


def test_every_function_counts_for_itself() -> None:
    """A nested function's decisions are its own, what it is defined with belongs outside."""
    module = measured(
        """
        def outer(a):
            if a:
                pass

            @decorate(1 if a else 2)
            def inner(b=a or 3):
                for x in b:
                    while x:
                        pass
        """
    )
    assert module.functions == 2
    assert module.complexity == 4 + 3
    assert (module.max_complexity, module.most_complex) == (4, "outer")


def test_decisions_outside_functions_are_in_no_sum() -> None:
    """The complexity of a module is that of its functions; methods are named with their class."""
    module = measured(
        """
        if a:
            pass

        class Outer:
            x = 1 if a else 2

            class Inner:
                def method(self):
                    return self and a

            def other(self): ...
        """
    )
    assert (module.functions, module.classes, module.complexity) == (2, 2, 3)
    assert module.most_complex == "Outer.Inner.method"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1", 0),
        ("if a:\n    x = 1", 1),
        ("if a:\n    pass\nelif b:\n    pass\nelif c:\n    pass", 1),
        ("if a:\n    pass\nelse:\n    if b:\n        pass", 2),
        (
            "for x in a:\n    with x:\n        try:\n            x\n        finally: y",
            3,
        ),
        ("try:\n    pass\nexcept A:\n    if a:\n        pass", 2),
        ("match a:\n    case 1:\n        if b:\n            pass", 2),
        ("if a:\n    def f():\n        if b:\n            pass", 1),
        ("while a:\n    pass\nelse:\n    for x in a:\n        pass", 2),
    ],
)
def test_nesting_counts_blocks_of_control_flow(source: str, expected: int) -> None:
    """Blocks around the deepest statement; elif adds none, a function begins anew."""
    assert measured(source).max_nesting == expected


def test_lines_are_counted_with_and_without_comments_and_blanks() -> None:
    """A docstring is code, a comment behind code too; the last line needs no end."""
    source = '"""Doc.\n\nMore.\n"""\n# comment\n\nx = 1  # why\n    \n  # more\ny = 2'
    module = measure_source(source, "m.py")
    assert (module.lines, module.code_lines) == (10, 5)
    assert measure_source(source + "\n", "m.py").lines == 10
    assert measure_source("", "m.py").lines == 0


def test_a_very_deep_tree_is_measured() -> None:
    """What the parser can read is measured, deeper than Python's own calls may nest."""
    source = "x = " + " + ".join(["1"] * 900) + "\ndef f():\n    return " + "a.b" + ".c" * 900
    assert measure_source(source, "m.py").complexity == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("json/decoder.py", "json.decoder"),
        ("json/__init__.py", "json"),
        ("this.py", "this"),
        ("__init__.py", "__init__"),
        ("json/__main__.py", "json.__main__"),
    ],
)
def test_a_module_is_named_by_its_path(path: str, expected: str) -> None:
    """A package is named without its `__init__`."""
    assert module_name(path) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"print 'two'\n", "SyntaxError"),
        (b"# coding: uft-8\n", "SyntaxError"),
        (b"x = '\xff'\n", "SyntaxError"),
        (b"x = 1\x00\n", "Error"),
        (b"(" * 300 + b")" * 300, "Error"),
    ],
)
def test_what_is_not_python_is_said_so(tmp_path: Path, content: bytes, reason: str) -> None:
    """A file that does not parse is reported with the reason, and is no failure."""
    (tmp_path / "bad.py").write_bytes(content)
    found = measure_file(tmp_path, "bad.py")
    assert isinstance(found, Unparsable)
    assert found.path == "bad.py"
    assert reason in found.reason


def test_a_file_that_is_gone_is_said_so(tmp_path: Path) -> None:
    """A file that cannot be read is reported, too."""
    found = measure_file(tmp_path, "gone.py")
    assert isinstance(found, Unparsable)
    assert found.reason.startswith("FileNotFoundError")


def test_a_declared_encoding_is_obeyed(tmp_path: Path) -> None:
    """A file in Latin-1 that says so, and one with a byte order mark, are measured."""
    (tmp_path / "latin.py").write_bytes("# coding: latin-1\nname = 'é'\n".encode("latin-1"))
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbfdef f(): pass\n")
    assert isinstance(measure_file(tmp_path, "latin.py"), ModuleMeasures)
    bom = measure_file(tmp_path, "bom.py")
    assert isinstance(bom, ModuleMeasures)
    assert bom.functions == 1


def test_warnings_of_the_measured_code_are_not_ours() -> None:
    """Source that the compiler warns about is measured without a warning (they are errors here)."""
    assert measured("x = '\\d'\ny = 1 is 1\n").lines == 2
