"""Source trees that may be hostile: listed, measured, digested and copied without following anything out of them.

Only files, folders and links that stay inside are a source. Everything is checked before the first byte is written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dtkpipe.errors import InvalidError, NotFoundError

MAX_BYTES = 1024**3
MAX_FILES = 100_000
MAX_TEXT = 1024 * 1024
"""Bytes of a file that is read as text: makefiles, dkms.conf and the like."""
_SKIPPED = (".git", ".hg", ".svn")
_KINDS = {stat.S_IFIFO: "a fifo", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}


@dataclass(frozen=True)
class Entry:
    """One file (`link` empty) or symbolic link of a source; `path` is relative, with `/`."""

    path: str
    size: int = 0
    executable: bool = False
    link: str = ""


class Budget:
    """Counts what a source adds up to, and refuses one that is too large or not a plain tree."""

    def __init__(self) -> None:
        self._bytes, self._files = 0, 0

    def add(self, entry: Entry) -> Entry:
        """Count `entry`. Raises InvalidError."""
        parts = PurePosixPath(entry.path).parts
        if not parts or entry.path.startswith("/") or ".." in parts or any(len(part.encode()) > 255 for part in parts):
            raise InvalidError(f"the source holds a file with an impossible name: {shown(entry.path)}")
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in entry.path):
            raise InvalidError(f"the source holds a file with control characters in its name: {shown(entry.path)}")
        if any(part.lower() == ".git" for part in parts):
            raise InvalidError(f"the source holds git's own files: {shown(entry.path)}")
        if entry.link and not _stays_inside(entry):
            raise InvalidError(
                f"the source holds a link that leads out of it: {shown(entry.path)} -> {shown(entry.link)}"
            )
        self._bytes += entry.size
        self._files += 1
        if self._bytes > MAX_BYTES:
            raise InvalidError(
                f"the source is larger than {MAX_BYTES // 1024**2} MiB",
                f"the limit was passed at {shown(entry.path)} ({entry.size // 1024**2} MiB)",
                hint="point --path or --repo at the module's own folder",
            )
        if self._files > MAX_FILES:
            raise InvalidError(f"the source has more than {MAX_FILES} files")
        return entry


def read_text(path: Path) -> str:
    """Return a recipe file's text. Raises InvalidError for one that is larger than any that people write."""
    if path.stat().st_size > MAX_TEXT:
        raise InvalidError(f"{path.name} is larger than {MAX_TEXT // 1024} KiB")
    return path.read_text(errors="replace")


def shown(text: str) -> str:
    """Return a name from a source as it can be printed: no control characters, not too long."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    return clean if len(clean) <= 120 else clean[:117] + "..."


def _stays_inside(entry: Entry) -> bool:
    """Only leading `..` may lead upwards: after a name, that name may be a link itself."""
    if entry.link.startswith("/") or "\0" in entry.link:
        return False
    depth, named = len(PurePosixPath(entry.path).parts) - 1, False
    for part in filter(lambda part: part not in ("", "."), entry.link.split("/")):
        if part == "..":
            if named or depth == 0:
                return False
            depth -= 1
        else:
            named = True
    return True


def _entry(root: Path, path: str) -> Entry | None:
    """Look at one path without following it; None for a folder."""
    facts = (root / path).lstat()
    if stat.S_ISDIR(facts.st_mode):
        return None
    if stat.S_ISLNK(facts.st_mode):
        return Entry(path, link=str((root / path).readlink()))
    if not stat.S_ISREG(facts.st_mode):
        raise InvalidError(f"the source holds {_KINDS.get(stat.S_IFMT(facts.st_mode), 'something')}: {shown(path)}")
    return Entry(path, facts.st_size, bool(facts.st_mode & 0o100))


def _walk(root: Path, below: str = "") -> Iterator[str]:
    with os.scandir(root / below) as found:
        items = sorted(found, key=lambda item: item.name)
    for item in items:
        if item.name in _SKIPPED:
            continue
        path = f"{below}/{item.name}" if below else item.name
        if item.is_dir(follow_symlinks=False):
            yield from _walk(root, path)
        else:
            yield path


def scan(root: Path, files: Sequence[str] | None = None) -> list[Entry]:
    """Return the entries of the source at `root`, sorted; of `files` only, if given (folders among them whole).

    A relative link that leads out is left out: sources taken from a package have links to the package's other files.
    Raises InvalidError for what is not a source, NotFoundError for a folder that is not there.
    """
    if not root.is_dir():
        raise NotFoundError(f"there is no folder {root}")
    budget, entries = Budget(), []
    for path in _walk(root) if files is None else _expanded(root, files):
        try:
            entry = _entry(root, path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # deleted in the work tree, still known to git
        if entry and (_stays_inside(entry) or not entry.link.startswith("../")):
            entries.append(budget.add(entry))
    return sorted(entries, key=lambda entry: entry.path)


def _expanded(root: Path, files: Iterable[str]) -> Iterator[str]:
    for path in files:
        if (root / path).is_dir() and not (root / path).is_symlink():
            yield from _walk(root, path.rstrip("/"))
        else:
            yield path


def digest(root: Path, entries: Sequence[Entry]) -> str:
    """Return `sha256:...` over names, kinds, executable bits and contents: nothing else of a source counts."""
    total = hashlib.sha256()
    for entry in entries:
        if entry.link:
            kind, content = "link", hashlib.sha256(os.fsencode(entry.link))
        else:
            kind = "executable" if entry.executable else "file"
            with (root / entry.path).open("rb") as file:
                content = hashlib.file_digest(file, "sha256")
        total.update(f"{kind} {content.hexdigest()} {entry.path}\0".encode(errors="surrogateescape"))
    return f"sha256:{total.hexdigest()}"


def copy(root: Path, entries: Sequence[Entry], into: Path) -> None:
    """Copy the entries below `into`: plain modes, no owners, no set-uid bits, nothing followed."""
    for entry in entries:
        target = into / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.link:
            target.symlink_to(entry.link)
            continue
        descriptor = os.open(root / entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as source, target.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        target.chmod(0o755 if entry.executable else 0o644)
