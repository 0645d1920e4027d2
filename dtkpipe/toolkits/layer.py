"""Image layers out of Debian packages: unpacked as streams, without root, the same bytes every time."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self, cast

from dtkpipe.errors import InvalidError, RunFailedError
from dtkpipe.tools import process

_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
"""Links into /usr, as Debian has them since 12: what packages put there is written to its real place."""


@dataclass(frozen=True)
class Written:
    """What a finished layer is: digest of the file, digest of the tar in it, size of the file in bytes."""

    digest: str
    diff_id: str
    size: int


class _Sink(Protocol):
    def write(self, data: bytes, /) -> int: ...


class _Hashing(io.BytesIO):
    """A file that is only written to, and knows the digest and the length of what went through it."""

    def __init__(self, sink: _Sink) -> None:
        super().__init__()
        self._sink = sink
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # both writers give bytes
        self._hash.update(data)
        self.size += len(data)
        return self._sink.write(data)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


class LayerWriter:
    """Writes one layer (a tar, gzipped or plain). Everything belongs to root; a path that was written stays.

    Use it as a context manager: the file is complete after the block, and `written` says what it is.
    """

    def __init__(self, path: Path, *, compress: bool = True) -> None:
        self._file = path.open("wb")
        self._outer = _Hashing(self._file)
        self._gzip = gzip.GzipFile("", "wb", 6, self._outer, mtime=0) if compress else None
        self._inner = _Hashing(self._gzip or self._outer)
        self._tar = tarfile.open(fileobj=self._inner, mode="w|", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        self._seen: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._file, self._gzip or contextlib.nullcontext(), self._tar:
            pass

    @property
    def written(self) -> Written:
        """What the finished layer is."""
        return Written(self._outer.digest, self._inner.digest, self._outer.size)

    def has(self, path: str) -> bool:
        """Tell whether `path` (`usr/bin/sh`) is in the layer already."""
        return path in self._seen

    def package(
        self, deb: Path, wanted: Callable[[str], bool], seen: Callable[[str, bytes], None] | None = None
    ) -> None:
        """Add the files of a package whose path (`usr/bin/make`) is `wanted`. `seen` gets each file's content."""
        running = process.start(["dpkg-deb", "--fsys-tarfile", deb])
        stream = cast("IO[bytes]", running.stdout)
        with running, tarfile.open(fileobj=stream, mode="r|") as tar:
            for entry in tar:
                entry.name = _merged(entry.name)
                if not entry.name or not wanted(entry.name):
                    continue
                if entry.islnk():
                    entry.linkname = _merged(entry.linkname)
                    if not self.has(entry.linkname):
                        raise InvalidError(f"{entry.name} of {deb.name} is the same file as {entry.linkname}, left out")
                content = tar.extractfile(entry) if entry.isreg() else None
                if content and seen:
                    data = content.read()
                    seen(entry.name, data)
                    content = io.BytesIO(data)
                self._add(entry, content)
            # What follows the end mark is padding; dpkg-deb wants it read.
            while stream.read(65536):
                pass
        if running.returncode != 0:
            raise RunFailedError(f"{deb.name} cannot be unpacked", hint="delete it and try again")

    def tree(self, folder: Path, prefix: str = "") -> None:
        """Add everything under `folder`, in the order of the names, below `prefix` (`usr/`)."""
        for path in sorted(folder.rglob("*")):
            entry = tarfile.TarInfo(_merged(prefix + str(path.relative_to(folder))))
            status = path.lstat()
            # The modes that we made depend on the umask.
            entry.mtime, entry.mode = int(status.st_mtime), 0o755 if status.st_mode & 0o100 else 0o644
            if path.is_symlink():
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
                self._add(entry, None)
            elif path.is_dir():
                entry.type = tarfile.DIRTYPE
                self._add(entry, None)
            else:
                entry.size = status.st_size
                with path.open("rb") as content:
                    self._add(entry, content)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add one file of ours."""
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = len(data), mode
        self._add(entry, io.BytesIO(data))

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        entry = tarfile.TarInfo(path)
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
        self._add(entry, None)

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Add an empty folder."""
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        self._add(entry, None)

    def merged_usr(self) -> None:
        """Add the links into /usr."""
        for name in _MERGED:
            self.folder(f"usr/{name}")
            self.link(name, f"usr/{name}")

    def _add(self, entry: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        if entry.name in self._seen:
            return
        self._parents(entry.name)
        self._seen.add(entry.name)
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.pax_headers = {}
        self._tar.addfile(entry, content)

    def _parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent and parent not in self._seen:
            self.folder(parent)


def _merged(path: str) -> str:
    """Return a package's path as it is in a system with a merged /usr: no leading `./`, no final slash."""
    path = re.sub(r"^(\./)+", "", path).strip("/")
    if path == ".":
        return ""
    first, _, rest = path.partition("/")
    return f"usr/{path}" if first in _MERGED and (rest or first) else path
