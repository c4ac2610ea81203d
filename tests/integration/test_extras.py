"""What is installed beside the core is not needed, not imported, and asked for by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

EXTRAS = ("redis", "nats", "ray")


def run_python(code: str) -> str:
    """Run code in a fresh interpreter; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=45, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_imports_no_extra() -> None:
    """However much of the core is imported, nothing of the extras is."""
    code = f"""
import importlib, pkgutil, sys
import rustic_ai.core as core
for module in pkgutil.walk_packages(core.__path__, "rustic_ai.core."):
    if not module.name.endswith("__main__") and ".testing" not in module.name:
        importlib.import_module(module.name)
print(len(sys.modules), sorted(set({EXTRAS}) & sys.modules.keys()))
"""
    count, _, found = run_python(code).partition(" ")
    assert int(count) > 300
    assert found.strip() == "[]"


@pytest.mark.parametrize(
    ("extra", "use"),
    [
        ("redis", "MessagingConfig.of('redis://localhost').backend_type()"),
        ("nats", "MessagingConfig.of('nats://localhost').backend_type()"),
        ("ray", "find_engine('ray')('guild')"),
    ],
)
def test_a_missing_extra_is_asked_for(extra: str, use: str) -> None:
    """The error says how to install it."""
    code = f"""
import sys
sys.modules[{extra!r}] = None  # as if it were not installed
from rustic_ai.core.errors import GuildError
from rustic_ai.core.guild.execution.engine_names import find_engine
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
try:
    {use}
except GuildError as e:
    print(e)
"""
    assert f"pip install 'rustic-multiprocess[{extra}]'" in run_python(code)
