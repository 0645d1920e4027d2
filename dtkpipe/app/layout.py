"""A folder that Argo CD, Flux or kubectl applies as it is: kept to what it should hold, and to nothing of others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dtkpipe.engines.installed import header
from dtkpipe.errors import AnswerIsNoError, ExistsError, InvalidError

_OTHER_NAMES = ("kustomization.yaml", "kustomization.yml")
"""With one of them beside ours kustomize refuses the folder."""


def write(files: Mapping[str, str], folder: Path, origin: str) -> list[str]:
    """Make the folder hold `files` of `origin`, and none that was written for it before; return what changed, by name.

    Each file is replaced as a whole; the Kustomization, the last of `files`, once all that it lists is there, and what
    it lists no more goes last. So whoever reads the folder meanwhile, or after we were killed, finds it complete.
    Raises ExistsError for a file that somebody else wrote, before anything changes.
    """
    head = header(origin)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [name for name in files if _exists(folder / name) and not _begins(folder / name, head)]
        taken += [name for name in _OTHER_NAMES if _exists(folder / name)]
        if taken:
            raise ExistsError(
                f"`{folder}` has files that dtkpipe did not write for {origin}", *taken,
                hint="give it a folder of its own, which a kustomization.yaml of yours can list",
            )  # fmt: skip
        changed = [name for name, text in files.items() if _read(folder / name) != text]
        for name in changed:
            _replace(folder / name, files[name])
        gone = stale(files, folder, origin)
        for name in gone:
            (folder / name).unlink()
    except OSError as error:
        raise InvalidError(f"`{folder}` cannot be written", f"{error.strerror}: {error.filename}") from error
    return changed + gone


def compare(files: Mapping[str, str], folder: Path, origin: str) -> None:
    """Raise AnswerIsNoError that names the files of `folder` which are not what they should be."""
    wrong = []
    for name, text in files.items():
        found = _read(folder / name)
        if found != text:
            wrong.append(f"{folder / name} {'is missing' if found is None else 'differs'}")
    wrong += [f"{folder / name} is written no more" for name in stale(files, folder, origin)]
    if wrong:
        raise AnswerIsNoError(f"`{folder}` is not up to date", *wrong, hint="compile again without --check")


def stale(files: Mapping[str, str], folder: Path, origin: str) -> list[str]:
    """Return the names of the files that were written into the folder for `origin` before, and are not any more."""
    head = header(origin)
    return [path.name for path in sorted(folder.glob("*.yaml")) if path.name not in files and _begins(path, head)]


def _begins(path: Path, head: str) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(head)) == head.encode()


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _read(path: Path) -> str | None:
    return path.read_bytes().decode(errors="replace") if path.is_file() else None


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        beside.write_text(text)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
