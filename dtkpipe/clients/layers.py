"""One layer of an image as a stream of tar members, whatever it is compressed with, and with bounds on its size.

Format: OCI image specification 1.1, "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import errno
import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Self, cast

from dtkpipe.errors import RunFailedError, UnsupportedError

Compression = Literal["gzip", "zstd", "none"]
Kind = Literal["file", "directory", "symlink", "hardlink", "whiteout", "other"]

LIMIT = 16 * 2**30
"""Bytes that one layer may unpack to. The largest Driver Toolkits are at 2 GiB."""
_EXTRA = 2**20
"""Bytes that an extra header of a member may have."""
_EXTRA_HEADERS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE
)  # fmt: skip
MEMBERS = 1_000_000
"""Files and folders that one layer may hold."""
_WINDOW = 128 * 2**20
"""The largest window of zstd that is taken: what `zstd -d` takes without being told otherwise."""
_LATEST = 2**33
"""Seconds since the epoch: a time stamp that every file system can hold."""

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One member of a layer. `path` has neither a leading slash nor `..`; the layer's own root is ""."""

    path: str
    kind: Kind
    size: int
    """Bytes."""
    mode: int
    mtime: float
    """Seconds since the epoch."""
    target: str = ""
    """Where a symlink leads, as it is written; the path that a hard link is another name of."""

    @property
    def parent(self) -> str:
        """The folder it lies in."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


class _Bounded(io.RawIOBase):
    """A source that ends in an error beyond `limit` bytes: the defence against decompression bombs."""

    def __init__(self, source: IO[bytes], limit: int, name: str) -> None:
        super().__init__()
        self._source, self._left, self._limit, self._name = source, limit, limit, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise RunFailedError(
                f"{self._name} unpacks to more than {self._limit // 2**20} MiB", "no image for a kernel module does"
            )
        buffer[: len(data)] = data
        return len(data)


def compression_of(start: bytes) -> Compression:
    """Tell the compression from the first four bytes; media types are not always right about it."""
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    return "zstd" if start == b"\x28\xb5\x2f\xfd" else "none"


@contextmanager
def unpacked(blob: io.RawIOBase, name: str, limit: int = LIMIT) -> Iterator[tuple[IO[bytes], Compression]]:
    """Give the layer's tar as a file, and its compression. `name` says in errors which layer it is.

    At the end of the block the blob is read to its end, so that its digest is checked.
    """
    source = io.BufferedReader(blob, 2**18)
    kind = compression_of(source.peek(4)[:4])
    plain: IO[bytes]
    if kind == "gzip":
        plain = cast("IO[bytes]", gzip.GzipFile(fileobj=source, mode="rb"))
    elif kind == "zstd":
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        plain = cast("IO[bytes]", decompressor.stream_reader(source, read_across_frames=True, closefd=False))
    else:
        plain = source
    with readable(name):
        yield cast("IO[bytes]", io.BufferedReader(_Bounded(plain, limit, name), 2**18)), kind
        while source.read(2**18):
            pass


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what broken archives raise into RunFailedError."""
    try:
        yield
    except (
        tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError, LookupError, ArithmeticError,
    ) as error:  # fmt: skip
        raise RunFailedError(f"{name} is damaged", repr(error)[:200]) from error
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # of a module that is imported only when it is needed
            raise
        raise RunFailedError(f"{name} is damaged", str(error)) from error


class _Member(tarfile.TarInfo):
    """A member whose extra headers (long names, PAX) stay small: tarfile reads them whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _EXTRA_HEADERS and member.size > _EXTRA:
            raise tarfile.ReadError(f"an extra header of {member.size} bytes")
        return member


def members(
    tar: IO[bytes], name: str, *, seekable: bool = False
) -> Iterator[tuple[Entry, tarfile.TarInfo, tarfile.TarFile]]:
    """Go through the members of a tar. Raises RunFailedError for a path that leads out of the image."""
    with tarfile.open(fileobj=tar, mode="r:" if seekable else "r|", tarinfo=_Member) as archive:
        for count, member in enumerate(archive):
            if count == MEMBERS:
                raise RunFailedError(f"{name} holds more than {MEMBERS} files")
            yield _entry(member, name), member, archive
            if not seekable:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all


def _entry(member: tarfile.TarInfo, name: str) -> Entry:
    kind: Kind = "other"
    if member.name.rpartition("/")[2].startswith(WHITEOUT):
        kind = "whiteout"
    elif member.isreg():
        kind = "file"
    elif member.isdir():
        kind = "directory"
    elif member.issym():
        kind = "symlink"
    elif member.islnk():
        kind = "hardlink"
    if member.size < 0:
        raise RunFailedError(f"{name} is damaged", f"a size below zero: {member.name!r}"[:200])
    return Entry(
        path=clean(member.name, name),
        kind=kind,
        size=member.size,
        mode=member.mode & 0o7777,
        mtime=float(member.mtime) if 0 <= member.mtime < _LATEST else 0.0,
        target=clean(member.linkname, name) if kind == "hardlink" else member.linkname,
    )


def clean(path: str, name: str) -> str:
    """Return a path of a layer in one spelling. Raises RunFailedError for one that leads out of the image."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise RunFailedError(f"{name} holds a path that leads out of the image", repr(path)[:200])
    return "/".join(parts)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in plain words why files of a layer cannot be written: no space, or names that no file can have."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UnsupportedError(
                f"no space left on this machine for {folder}", error.strerror or "", hint=f"df -h {folder}"
            ) from error
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise RunFailedError("a layer holds a name that no file can have", error.strerror or "") from error
        raise
