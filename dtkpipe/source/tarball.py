"""Tarballs: downloaded and unpacked within limits, nothing taken at its word."""

from __future__ import annotations

import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from dtkpipe.errors import InvalidError, NotAllowedError, NotFoundError, UnreachableError
from dtkpipe.source.tree import MAX_BYTES, Budget, Entry, shown


def download(url: str, into: Path) -> Path:
    """Fetch a tarball over https into folder `into`; return the file.

    Raises NotFoundError, NotAllowedError, UnreachableError, and InvalidError where it is larger than a source may be.
    """
    import urllib.error
    import urllib.request

    target = into / "source.tar"
    try:
        with urllib.request.urlopen(url, timeout=60) as reply, target.open("wb") as file:  # noqa: S310 - https only
            if not reply.url.startswith("https:"):
                raise InvalidError(f"{url} leads to a place without TLS: {reply.url}")
            while piece := reply.read(1 << 20):
                file.write(piece)
                if file.tell() > MAX_BYTES:
                    raise InvalidError(f"{url} is larger than {MAX_BYTES // 1024**2} MiB")
    except urllib.error.HTTPError as error:
        answer = f"the server answered {error.code} {error.reason}"
        if error.code in (401, 403):
            raise NotAllowedError(f"{url} may not be read", answer) from error
        if error.code in (404, 410):
            raise NotFoundError(f"there is nothing at {url}", answer) from error
        raise UnreachableError(f"{url} cannot be read", answer) from error
    except OSError as error:
        raise UnreachableError(f"{url} cannot be read", str(getattr(error, "reason", error))) from error
    return target


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    with file.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic == b"\x28\xb5\x2f\xfd":
            import zstandard

            stream = zstandard.ZstdDecompressor().stream_reader(raw)
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as archive:
                yield archive
        else:
            with tarfile.open(fileobj=raw, mode="r|*") as archive:
                yield archive


def unpack(file: Path, into: Path) -> None:
    """Unpack a tarball into the new folder `into`; one folder that holds everything is left out.

    Raises InvalidError for what is not a tarball or not a source, NotFoundError for a file that is not there.
    """
    if not file.is_file():
        raise NotFoundError(f"there is no tarball {file}")
    raw = into.with_name(f"{into.name}.unpacking")
    raw.mkdir()
    import lzma
    import zlib

    try:
        with _opened(file) as archive:
            _members(archive, raw)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise InvalidError(f"{file.name} is not a tarball that can be read", str(error)) from error
    items = list(raw.iterdir())
    if len(items) == 1 and items[0].is_dir() and not items[0].is_symlink():
        items[0].rename(into)
        raw.rmdir()
    else:
        raw.rename(into)


def _members(archive: tarfile.TarFile, root: Path) -> None:
    budget = Budget()
    for member in archive:
        path = "/".join(part for part in member.name.split("/") if part not in ("", "."))
        if member.name.startswith("/"):
            raise InvalidError(f"the tarball holds an absolute path: {shown(member.name)}")
        if not path:
            continue
        if ".git" in path.split("/"):
            continue
        if member.isdir():
            _parent(root, path, (root / path)).mkdir(exist_ok=True)
            continue
        target = _parent(root, path, root / path)
        if target.is_symlink() or target.exists():
            raise InvalidError(f"the tarball holds {shown(path)} twice")
        if member.issym():
            budget.add(Entry(path, link=member.linkname))
            target.symlink_to(member.linkname)
        elif member.islnk():
            _hard_link(root, path, member, budget)
        elif member.isreg():
            budget.add(Entry(path, member.size))
            source = archive.extractfile(member)
            assert source is not None  # noqa: S101 - a regular file has content
            with target.open("xb") as output:
                shutil.copyfileobj(source, output, 1 << 20)
            target.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)
        else:
            raise InvalidError(f"the tarball holds a device, a fifo or something else: {shown(path)}")


def _parent(root: Path, path: str, target: Path) -> Path:
    """Make the folders above `target`. Raises InvalidError where one of them is a link or a file."""
    Budget().add(Entry(path))
    folder = root
    for part in path.split("/")[:-1]:
        folder /= part
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise InvalidError(f"the tarball writes through a link: {shown(path)}")
        folder.mkdir(exist_ok=True)
    return target


def _hard_link(root: Path, path: str, member: tarfile.TarInfo, budget: Budget) -> None:
    name = "/".join(part for part in member.linkname.split("/") if part not in ("", "."))
    Budget().add(Entry(name))
    original = root / name
    if any(part.is_symlink() for part in (original, *original.parents) if part != root and root in part.parents) or (
        not original.is_file()
    ):
        raise InvalidError(f"the tarball links {shown(path)} to {shown(member.linkname)}, which it does not hold")
    budget.add(Entry(path, original.stat().st_size))
    shutil.copy(original, root / path)
