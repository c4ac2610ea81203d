"""Check that every relative link and anchor in the project's Markdown leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors that headings get, as GitHub makes them."""
    headings = re.findall(r"^#+\s+(.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading).strip().lower() for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def dead_links(file: Path) -> list[str]:
    """Return a line for every link of a file that leads nowhere."""
    problems = []
    for target in _LINK.findall(_CODE.sub("", file.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        goal = (file.parent / path) if path else file
        if not goal.exists():
            problems.append(f"{file}: no such file: {target}")
        elif anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text("utf-8")):
            problems.append(f"{file}: no such heading: {target}")
    return problems


def main() -> int:
    """Check all Markdown files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    )
    names = listed.stdout.splitlines()
    files = [Path(name) for name in names if not name.startswith("tests/")]  # a document of others
    problems = [problem for file in files for problem in dead_links(file)]
    for problem in problems:
        print(problem)
    print(f"{len(files)} documents, {len(problems)} dead links")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
