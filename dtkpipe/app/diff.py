"""What is different between what would be compiled and files."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from dtkpipe.app.layout import stale
from dtkpipe.engines.installed import header
from dtkpipe.errors import NotFoundError


def is_of_folder(path: Path, origin: str) -> bool:
    """Whether `path` is a folder, or a file that was written into one for `origin`. Raises NotFoundError."""
    if not path.exists():
        raise NotFoundError(f"there is no file or folder `{path}`", f"looked in: {Path.cwd()}")
    return path.is_dir() or path.read_bytes().startswith(header(origin).encode())


def with_folder(files: Mapping[str, str], path: Path, origin: str) -> str:
    """Return what `dtkpipe compile --dir` would change in a folder, or in one file of it. Nothing gives no text."""
    if not path.is_dir():
        return with_file(files.get(path.name, ""), path)
    wanted = {**files, **dict.fromkeys(stale(files, path, origin), "")}
    return "".join(with_file(text, path / name) for name, text in wanted.items())


def with_file(text: str, path: Path) -> str:
    """Return what is different in `text`, as a unified diff. Nothing gives no text."""
    old = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), text.splitlines(keepends=True), f"{path}", f"{path} (compiled)"
    )
    return "".join(lines)
