"""The guest's file system, written as the kernel reads it: a cpio archive. The same files give the same bytes.

Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst (newc).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import PurePosixPath


class Initramfs:
    """Files to put into the archive. Paths are relative to the root; folders above them are made."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[int, bytes]] = {}

    def folder(self, path: str) -> None:
        """Add an empty folder."""
        self._above(f"{path}/x")

    def file(self, path: str, data: bytes | str, *, executable: bool = False) -> None:
        """Add a file."""
        self._above(path)
        mode = stat.S_IFREG | (0o755 if executable else 0o644)
        self._members[path] = (mode, data.encode() if isinstance(data, str) else data)

    def link(self, path: str, target: str) -> None:
        """Add a symlink."""
        self._above(path)
        self._members[path] = (stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._above(path)
        self._members[path] = (stat.S_IFCHR | 0o600, f"{major}:{minor}".encode())

    def _above(self, path: str) -> None:
        for folder in reversed(PurePosixPath(path).parents[:-1]):
            self._members.setdefault(str(folder), (stat.S_IFDIR | 0o755, b""))

    def archive(self) -> bytes:
        """Return the archive, uncompressed."""
        return b"".join(self._parts())

    def _parts(self) -> Iterator[bytes]:
        # A folder's name sorts before what it holds.
        for number, path in enumerate(sorted(self._members), start=1):
            mode, data = self._members[path]
            yield from _member(number, path, mode, data)
        yield from _member(0, "TRAILER!!!", 0, b"")


def _member(number: int, path: str, mode: int, data: bytes) -> Iterator[bytes]:
    major = minor = 0
    if stat.S_ISCHR(mode):
        major, minor = (int(part) for part in data.split(b":"))
        data = b""
    name = path.encode(errors="surrogateescape") + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name), 0)
    yield b"070701" + b"".join(b"%08X" % field for field in fields) + name
    yield bytes(-(110 + len(name)) % 4)
    yield data
    yield bytes(-len(data) % 4)
