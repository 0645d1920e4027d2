"""The kernels whose packages an image has, read from its RPM database.

Format: a table `Packages` whose column `blob` holds headers (rpm-software-management/rpm, lib/backend/sqlite.c); a
header is two counts, an index of four numbers for each tag, then the values (docs/manual/format_header.md).
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import tempfile
from pathlib import Path

from dtkpipe.errors import InvalidError
from dtkpipe.values.arch import Arch
from dtkpipe.values.kernel import Kernel

DATABASES = ("usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite")
"""Where RHEL 10 and RHEL 9 have it."""
BERKELEY = "var/lib/rpm/Packages"
"""Where RHEL 8 has it, in a format that nothing on today's machines reads."""
SIZE = 64 * 2**20
"""Bytes that a database may have; that of a Driver Toolkit has about 20 MiB."""
# What modules are built against, and what the kernel's name has besides version and architecture.
_PACKAGES = {"kernel-devel": "", "kernel-rt-devel": "+rt", "kernel-64k-devel": "+64k"}
_NAME, _VERSION, _RELEASE, _ARCH = 1000, 1001, 1002, 1022
_STRING = 6
_HEADER = 8 * 2**20
_STEPS = 10_000
"""Calls, each after a thousand steps of the database engine, before a query is given up."""


def kernels_installed(database: bytes, arch: Arch | None) -> dict[str, Kernel]:
    """Return the kernels that a database has packages of, by variant.

    Raises InvalidError for content that is no database, and where several kernels of one variant are installed.
    """
    found: dict[str, Kernel] = {}
    for name, version, release, machine in _packages(database):
        if name not in _PACKAGES or (arch and machine != arch.name):
            continue
        # Up to RHEL 9.2 the real-time kernel has a release of its own, which says it already.
        suffix = "" if ".rt" in release else _PACKAGES[name]
        kernel = Kernel.parse(f"{version}-{release}.{machine}{suffix}")
        other = found.setdefault(kernel.variant, kernel)
        if other != kernel:
            raise InvalidError("its package database has several kernels", f"it has: {other}, {kernel}")
    return found


def _packages(database: bytes) -> list[tuple[str, str, str, str]]:
    """Return name, version, release and architecture of all packages."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rpmdb.sqlite"
        file.write_bytes(database)
        try:
            # Immutable: what a running rpm would keep beside it is not there.
            with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as connection:
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _HEADER)
                steps = iter(range(_STEPS))
                connection.set_progress_handler(lambda: next(steps, -1) < 0, 1000)
                # A view of that name could compute for ever.
                table = "SELECT 1 FROM sqlite_master WHERE name = 'Packages' AND type = 'table' AND rootpage > 0"
                if not connection.execute(table).fetchone():
                    raise InvalidError("its package database has no packages")
                return [_package(blob) for (blob,) in connection.execute("SELECT blob FROM Packages")]
        except (sqlite3.Error, struct.error, ValueError, TypeError, MemoryError) as error:
            raise InvalidError("its package database is damaged", str(error)[:200]) from error


def _package(blob: bytes) -> tuple[str, str, str, str]:
    entries, size = struct.unpack_from(">II", blob)
    start = 8 + 16 * entries
    values = blob[start : start + size]
    if len(values) != size:
        raise ValueError("a header is cut off")
    found = dict.fromkeys((_NAME, _VERSION, _RELEASE, _ARCH), "")
    for tag, kind, offset, _ in struct.iter_unpack(">IIII", blob[8:start]):
        if tag in found and kind == _STRING:
            found[tag] = values[offset : values.index(b"\0", offset)].decode()
    return found[_NAME], found[_VERSION], found[_RELEASE], found[_ARCH]
