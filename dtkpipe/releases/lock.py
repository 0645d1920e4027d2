"""The lock, catalog/releases/: one file for each minor version, one line for each row, only ever added to.

Every file is YAML whose rows are JSON objects, a line each: a look-up reads one small file without a YAML parser, a
refresh shows in a diff as the lines that it added, and an error can name the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dtkpipe.errors import DtkpipeError, InvalidError
from dtkpipe.releases.row import Row
from dtkpipe.values.arch import Arch
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.version import Version, Wanted

_FILE = re.compile(r"(\d+)\.(\d+)\.yaml")
_SIZE = 16 * 2**20
_HEAD = """\
# OpenShift {line}: the toolkits and kernels of its releases. Written by `dtkpipe catalog update`, only ever added to.
# What is not known is absent. docs/reference/lock-format.md
"""


@dataclass
class Changes:
    """What an addition to the lock did."""

    added: list[Row] = field(default_factory=list)
    filled: list[Row] = field(default_factory=list)
    """Rows of which more is known than before."""


class Lock:
    """The rows of one folder. Files are read when they are needed, once."""

    def __init__(self, folder: Path) -> None:
        """Make the lock's handle. Raises InvalidError, when something is read, for a file that is not as written."""
        self.folder = folder
        self._rows: dict[tuple[int, int], list[Row]] = {}

    @cached_property
    def lines(self) -> tuple[tuple[int, int], ...]:
        """The minor versions that have a file, oldest first."""
        found = (_FILE.fullmatch(path.name) for path in self.folder.glob("*.yaml"))
        return tuple(sorted((int(one[1]), int(one[2])) for one in found if one))

    def rows(self, line: tuple[int, int]) -> list[Row]:
        """Return the rows of a minor version, oldest first; none where the lock has none."""
        if line not in self._rows:
            path = self.path(line)
            self._rows[line] = parse(path.read_bytes(), path, line) if line in self.lines else []
        return self._rows[line]

    def path(self, line: tuple[int, int]) -> Path:
        """Return the file of a minor version."""
        return self.folder / f"{line[0]}.{line[1]}.yaml"

    def __iter__(self) -> Iterator[Row]:
        for line in self.lines:
            yield from self.rows(line)

    def find(self, version: Version, arch: Arch) -> list[Row]:
        """Return the rows of a release, one for each stream of the operating system."""
        return [row for row in self.rows(version.line) if row.version == version and row.arch == arch]

    def versions(self, line: tuple[int, int]) -> list[Version]:
        """Return the releases of a minor version that are known on any architecture and stand, oldest first."""
        return list(dict.fromkeys(row.version for row in self.rows(line) if not row.withdrawn))

    def newest(self, wanted: Wanted) -> Version | None:
        """Return the newest known release that was asked for; a pre-release only where there is nothing else."""
        lines = [line for line in reversed(self.lines) if wanted.may_be_in(line)]
        released = (max(filter(wanted.admits, self.versions(line)), default=None) for line in lines)
        return next(filter(None, released), None) or wanted.pick(one for line in lines for one in self.versions(line))

    def with_kernel(self, kernel: Kernel) -> list[Row]:
        """Return the rows whose kernel, in any variant, is `kernel`."""
        return [row for row in self if kernel in row.kernels.values()]

    def kernels_near(self, kernel: Kernel) -> list[str]:
        """Return the known kernels next to one that is not known: two older ones and a newer one."""
        known = sorted({one for row in self for one in row.kernels.values()}, key=lambda one: one.order)
        after = next((number for number, one in enumerate(known) if one.order > kernel.order), len(known))
        return [one.release for one in known[max(0, after - 2) : after + 1]]

    def add(self, rows: Iterable[Row]) -> Changes:
        """Add rows, or what they know besides, and write the files that this changes.

        Raises ConflictError for a row that contradicts the lock; then nothing is written.
        """
        changes, touched = Changes(), dict[tuple[int, int], dict[object, Row]]()
        for row in rows:
            table = touched.setdefault(row.version.line, {one.key: one for one in self.rows(row.version.line)})
            before = table.get(row.key)
            after = before.merged(row) if before else row
            if after is not before:
                table[row.key] = after
                (changes.filled if before else changes.added).append(after)
        for line, table in touched.items():
            ordered = sorted(table.values(), key=lambda row: row.order)
            if ordered != self.rows(line):
                write(self.path(line), render(line, ordered))
                self._rows[line] = ordered
        self.__dict__.pop("lines", None)
        return changes


def render(line: tuple[int, int], rows: Iterable[Row]) -> str:
    """Write the text of one file."""
    return _HEAD.format(line=f"{line[0]}.{line[1]}") + "".join(f"- {row.to_json()}\n" for row in rows)


def parse(data: bytes, path: Path, line: tuple[int, int]) -> list[Row]:
    """Parse one file. Raises InvalidError that names file and line."""
    if len(data) > _SIZE:
        raise InvalidError(f"{path} is too large for a lock", f"{len(data)} bytes")
    rows: list[Row] = []
    places: dict[object, int] = {}
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            text = raw.decode()
            if not text.strip() or text.startswith("#"):
                continue
            if not text.startswith("- "):
                raise InvalidError("a row is one line that begins with `- {`", f"got: {text[:80]}")
            row = Row.parse(text[2:])
            if row.version.line != line:
                raise InvalidError(f"{row.version} belongs into another file")
            if row.key in places:
                raise InvalidError(f"{row.name} is there twice", f"first in line {places[row.key]}")
        except (DtkpipeError, UnicodeDecodeError) as error:
            what, *details = (error.what, *error.details) if isinstance(error, DtkpipeError) else ("it is not UTF-8",)
            raise InvalidError(f"{path}:{number}: {what}", *details, hint=f"git diff {path}") from error
        places[row.key] = number
        rows.append(row)
    return sorted(rows, key=lambda row: row.order)


def write(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
