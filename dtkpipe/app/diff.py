"""What is different between a compiled pipeline and files."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from dtkpipe.app.compile import as_files
from dtkpipe.engines.dump import dump
from dtkpipe.engines.rendered import Rendered
from dtkpipe.errors import NotFoundError


def unified(rendered: Rendered, path: Path) -> str:
    """Return what would change in a folder (a file for each object), one of its files, or a file with everything.

    An empty text when nothing would. Raises NotFoundError for a path that does not exist.
    """
    files = as_files(rendered)
    if path.is_dir():
        return "".join(_changes(path, files))
    if not path.is_file():
        raise NotFoundError(f"there is no file or folder `{path}`", f"looked in: {Path.cwd()}")
    old = path.read_text()
    return _one(path, old, files[path.name] if path.name in files and old.startswith("#") else dump(rendered.objects))


def _changes(folder: Path, files: Mapping[str, str]) -> list[str]:
    found = []
    for name, text in files.items():
        path = folder / name
        found.append(_one(path, path.read_text() if path.is_file() else "", text))
    return found


def _one(path: Path, old: str, new: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"{path}", f"{path} (compiled)"
    )
    return "".join(lines)
