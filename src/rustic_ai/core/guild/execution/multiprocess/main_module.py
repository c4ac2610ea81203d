"""Makes classes of the program's ``__main__`` importable in its agents.

Works like `multiprocessing` with spawn: the file is run once more under the name ``__mp_main__``,
so what only the program should do stands behind ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import msgspec

from rustic_ai.core.errors import SpecError

_importing = False


def refuse_while_importing() -> None:
    """Refuse to start agents while a child imports the program: they would start each other.

    Raises:
        SpecError: names the line that the program lacks.
    """
    if _importing:
        raise SpecError(
            summary="the program starts agents when it is imported, and an agent's process has to "
            "import it for its classes",
            hint='put what starts agents behind: if __name__ == "__main__":',
        )


class MainModule(msgspec.Struct, frozen=True):
    """Where the program's ``__main__`` came from: a module's name, or a file; and its arguments."""

    arguments: list[str]
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
        if spec is not None and spec.name not in {"", "__main__"}:
            return cls(sys.argv, name=spec.name)
        path = getattr(main, "__file__", None)
        if path and Path(path).is_file():
            return cls(sys.argv, path=str(Path(path).absolute()))
        raise SpecError(
            summary="the agent needs a class of this interactive session, which other processes "
            "cannot import",
            hint="put the class into a module, and import it from there",
        )

    def install(self) -> None:
        """Import it here as ``__main__``; in the agent's process."""
        global _importing  # noqa: PLW0603 - there is one __main__
        module = types.ModuleType("__mp_main__")
        sys.modules["__main__"] = sys.modules["__mp_main__"] = module
        sys.argv[:] = self.arguments
        code = self._load(module)
        _importing = True
        exec(code, vars(module))  # noqa: S102 - the program's own file
        _importing = False

    def _load(self, module: types.ModuleType) -> types.CodeType:
        if self.name is None:
            path = str(self.path)
            module.__file__ = path
            return compile(Path(path).read_bytes(), path, "exec")
        spec = importlib.util.find_spec(self.name)
        assert spec is not None
        module.__spec__, module.__file__, module.__package__ = spec, spec.origin, spec.parent
        code: types.CodeType = spec.loader.get_code(self.name)  # type: ignore[union-attr]
        return code
