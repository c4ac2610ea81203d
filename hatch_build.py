"""Compiles the way of a message to machine code, with mypyc, when a wheel is built.

The modules, which ``pyproject.toml`` lists, are ordinary Python, and run as they are where nothing
was compiled: in an editable installation, so that what is edited is what runs, and where there is
no C compiler.

``RUSTIC_COMPILE`` is ``auto`` (as said; the default), ``always`` (fail where it cannot be done), or
``never``.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_LIBRARY = "rustic_ai_core"
"""Names the library that all compiled modules are in; each has a small one of its own beside it."""
_OPTIONS = (
    "--config-file=",  # what holds for the sources is checked elsewhere
    "--namespace-packages",
    "--explicit-package-bases",
    "--follow-imports=silent",
    "--no-site-packages",  # where another version of these very modules may be
    "--ignore-missing-imports",
)


class CompilingHook(BuildHookInterface[Any]):
    """Puts the compiled modules into a wheel, beside their sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, where that is wanted and can be done."""
        wish = os.environ.get("RUSTIC_COMPILE", "auto")
        if wish not in {"auto", "always", "never"}:
            raise ValueError(f"RUSTIC_COMPILE is auto, always or never, not {wish!r}")
        if version == "editable" or wish == "never":
            return
        self._scratch = tempfile.TemporaryDirectory(prefix="rustic-compile-")
        scratch = Path(self._scratch.name)
        try:
            self._compile(scratch)
        except (Exception, SystemExit) as e:
            if wish == "always":
                raise
            self.app.display_warning(f"Nothing is compiled, so messages will be slower: {e!r}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        libraries = (path for path in (scratch / "lib").rglob("*") if path.is_file())
        for path in libraries:
            build_data["force_include"][str(path)] = str(path.relative_to(scratch / "lib"))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what only the build needed."""
        del version, build_data, artifact_path
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()

    def _compile(self, scratch: Path) -> None:
        """Leave the libraries in ``lib``, as they are to lie in a wheel."""
        from mypyc.build import mypycify
        from setuptools import Distribution
        from setuptools.command.build_ext import build_ext

        sources = [f"{name.replace('.', '/')}.py" for name in self.config["modules"]]
        options = [*_OPTIONS, f"--cache-dir={scratch / 'cache'}"]
        said = io.StringIO()
        with contextlib.chdir(Path(self.root, "src")):
            try:
                with contextlib.redirect_stdout(said):
                    extensions = mypycify(
                        [*options, *sources], target_dir=str(scratch / "c"), group_name=_LIBRARY
                    )
            except SystemExit as e:
                raise RuntimeError(f"mypyc: {said.getvalue().strip()}") from e
            command = build_ext(Distribution({"name": _LIBRARY, "ext_modules": extensions}))
            command.build_lib, command.build_temp = str(scratch / "lib"), str(scratch / "o")
            command.parallel = os.cpu_count()
            command.ensure_finalized()
            command.run()
