"""Settings that come from the environment."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from rustic_ai.core.errors import GuildError
from rustic_ai.core.settings import RUNTIME_DIR_VARIABLE, runtime_dir


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_runtime_directory_that_others_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """The error names the directory, its mode and what to do."""
    tmp_path.chmod(mode)
    monkeypatch.setenv(RUNTIME_DIR_VARIABLE, str(tmp_path))
    text = f"others can write to the runtime directory {tmp_path} (mode {mode:04o})\nhint: chmod"
    with pytest.raises(GuildError, match=re.escape(text)):
        runtime_dir()


def test_a_runtime_directory_of_our_making_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask, it is made so that the next program takes it."""
    monkeypatch.setenv(RUNTIME_DIR_VARIABLE, str(tmp_path / "new"))
    old = os.umask(0)
    try:
        assert stat.S_IMODE(runtime_dir().stat().st_mode) == 0o700
    finally:
        os.umask(old)
    assert runtime_dir() == tmp_path / "new"
