"""What gets imported, and how much of it."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import rustic_ai.core

HEAVY = ["typer", "rich", "textual", "yaml", "psutil", "multiprocessing", "redis", "nats", "ray"]
CHILD = "rustic_ai.core.guild.execution.multiprocess.child"


def modules_after(code: str) -> set[str]:
    """Return what a fresh interpreter has imported after running code."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    out = subprocess.check_output([sys.executable, "-c", script], text=True)
    return set(out.split())


def test_a_child_imports_only_what_it_runs() -> None:
    """An agent's process loads no command, no engine, no server, and nothing heavy."""
    loaded = modules_after(
        f"import {CHILD}; import rustic_ai.core.messaging.backend.embedded_backend.backend"
    )
    assert loaded.isdisjoint(HEAVY)
    ours = {name for name in loaded if name.startswith("rustic_ai.core.")}
    parts = {part for name in ours for part in name.split(".")}
    assert parts.isdisjoint({"engine", "supervisor", "builders", "server", "cli", "launcher"})


def test_importing_the_guild_package_is_lazy() -> None:
    """`import rustic_ai.core.guild` loads none of what its names stand for."""
    loaded = modules_after("import rustic_ai.core.guild")
    assert loaded.isdisjoint([*HEAVY, "pydantic", "msgspec"])


@pytest.mark.parametrize(
    "package",
    ["rustic_ai.core.guild", "rustic_ai.core.messaging", "rustic_ai.core.guild.execution"],
)
def test_lazy_packages_export_what_they_say(package: str) -> None:
    """Every name of `__all__` can be had, and `dir` lists the same; others are refused."""
    module = importlib.import_module(package)
    assert sorted(module.__all__) == dir(module)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = module.Nonsense


def test_every_module_can_be_imported() -> None:
    """No module of the package fails to import on its own."""
    found = pkgutil.walk_packages(rustic_ai.core.__path__, "rustic_ai.core.")
    names = [module.name for module in found if not module.name.endswith("__main__")]
    assert len(names) > 50
    for name in names:
        importlib.import_module(name)
