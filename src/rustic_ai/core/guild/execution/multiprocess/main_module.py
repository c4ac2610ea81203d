"""Makes classes of the program's ``__main__`` importable in its agents.

Works like `multiprocessing` with spawn: the file is run once more under the name ``__mp_main__``,
so what only the program should do stands behind ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import runpy
import sys
import types
from pathlib import Path

import msgspec

from rustic_ai.core.errors import SpecError


class MainModule(msgspec.Struct, frozen=True):
    """Where the program's ``__main__`` came from: a module's name, or a file."""

    name: str | None = None
    path: str | None = None

    @classmethod
    def of_this_program(cls) -> MainModule:
        """Find out.

        Raises:
            SpecError: it came from neither, as in an interactive session.
        """
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        if spec is not None and spec.name and main.__name__ == "__main__":
            return cls(name=spec.name)
        path = getattr(main, "__file__", None)
        if path and Path(path).is_file():
            return cls(path=str(Path(path).absolute()))
        raise SpecError(
            summary="the agent needs a class of this interactive session, which other processes "
            "cannot import",
            hint="put the class into a module, and import it from there",
        )

    def install(self) -> None:
        """Import it here as ``__main__``; in the agent's process."""
        content = (
            runpy.run_module(self.name, run_name="__mp_main__", alter_sys=True)
            if self.name
            else runpy.run_path(str(self.path), run_name="__mp_main__")
        )
        module = types.ModuleType("__mp_main__")
        module.__dict__.update(content)
        sys.modules["__main__"] = sys.modules["__mp_main__"] = module
