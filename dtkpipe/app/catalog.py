"""The catalogue of releases: list, show, refresh, verify and compare the lock; which releases a kernel serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dtkpipe.errors import NotFoundError, NothingSelectedError, UsageError
from dtkpipe.releases.lock import Lock
from dtkpipe.releases.row import ConflictError, Row
from dtkpipe.values.arch import ARCHES, Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.version import Version, Wanted, nearest, spans

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry
    from dtkpipe.releases.refresh import Report, Target
    from dtkpipe.values.access import RegistryAccess

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which releases: versions and architectures. No bounds are all versions."""

    wanted: Wanted
    arches: tuple[Arch, ...]

    @classmethod
    def parse(cls, minor: str, arch: str) -> Selection:
        """Parse `--minor` (4.16, 4.16..4.22; "" is all) and `--arch` (a name, or all). Raises NotFoundError."""
        wanted = Wanted.parse(minor) if minor else Wanted("all")
        return cls(wanted=wanted, arches=ARCHES if arch == "all" else (Arch.parse(arch),))

    def takes(self, row: Row) -> bool:
        """Tell whether a row is selected."""
        return row.arch in self.arches and self.wanted.covers(row.version)

    def lines(self, known: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the minor versions to ask for: known ones, what may come after them, and the one that was named."""
        newest = max(known, default=(4, 15))
        ahead = [(newest[0], newest[1] + 1), (newest[0] + 1, 0)]
        named = [self.wanted.line] if self.wanted.line else []
        return sorted({line for line in (*known, *ahead, *named) if self.wanted.may_be_in(line)})


def selected(lock: Lock, selection: Selection) -> list[Row]:
    """Return the rows that are selected, oldest release first. Raises NothingSelectedError."""
    rows = [row for line in selection.lines(lock.lines) for row in lock.rows(line) if selection.takes(row)]
    if not rows:
        raise NothingSelectedError(
            f"the lock has no release that is {selection.wanted} for {', '.join(map(str, selection.arches))}",
            f"looked in: {lock.folder}",
        )
    return rows


def shown(lock: Lock, text: str) -> list[Row]:
    """Return the rows of one release, all architectures. Raises NotFoundError with the nearest releases."""
    wanted = Wanted.parse(text)
    version = wanted.exact or lock.newest(wanted)
    rows = [row for row in lock.rows(version.line) if row.version == version] if version else []
    if not rows:
        known = [row.version for row in lock]
        near = ", ".join(map(str, nearest(version, known))) if version else ""
        raise NotFoundError(
            f"the lock does not know OpenShift {text}", f"nearest: {near}" if near else f"looked in: {lock.folder}",
            hint=f"ask the registry: dtkpipe resolve --release {text}",
        )  # fmt: skip
    return rows


@dataclass(frozen=True, kw_only=True)
class Online:
    """Where to ask: registries, the update graph, and which channel of it."""

    registry: Registry
    access: RegistryAccess
    channel: str
    """stable, fast, candidate, eus; or `tags`: every tag of the repository of releases."""
    graph: str = ""
    releases: ImageRef | None = None
    """Repository of the images of releases, instead of the usual one."""


def targets(lock: Lock, selection: Selection, online: Online, say: Say) -> list[Target]:
    """Return the releases that there are, by the update graph or by the tags. Raises what these raise."""
    from dtkpipe.releases.images import RELEASES

    if online.channel == "tags":
        repo = online.releases or RELEASES
        return sorted(_tagged(online.registry.tags(repo), selection), key=lambda one: (one.version, one.arch.name))
    found: list[Target] = []
    for line in selection.lines(lock.lines):
        for arch in selection.arches:
            offered = in_channel(online.access, online.graph, online.channel, line, arch, say)
            found += [one for one in offered if selection.wanted.covers(one.version)]
    if not found:
        raise NothingSelectedError(f"the update graph has no release that is {selection.wanted}")
    return sorted(found, key=lambda one: (one.version, one.arch.name))


def in_channel(
    access: RegistryAccess, url: str, channel: str, line: tuple[int, int], arch: Arch, say: Say
) -> list[Target]:
    """Ask the update graph at `url` ("": the public one) for the releases of a minor version in a channel: `stable`.

    A channel that does not exist is told, and has none. Raises what `dtkpipe.clients.graph.read` raises besides.
    """
    from dtkpipe.clients.graph import PUBLIC, read
    from dtkpipe.releases.refresh import Target

    try:
        graph = read(access, f"{channel}-{line[0]}.{line[1]}", arch, url or PUBLIC)
    except NotFoundError as error:
        say(f"note: {error.what}")
        return []
    # A channel holds the releases that one can come from too.
    return [Target(node.version, arch, node.payload) for node in graph.nodes.values() if node.version.line == line]


def _tagged(tags: Iterable[str], selection: Selection) -> Iterator[Target]:
    from dtkpipe.releases.refresh import Target

    for tag in tags:
        text, _, name = tag.rpartition("-")
        arch = next((one for one in selection.arches if one.name == name), None)
        try:
            version = Version.parse(text)
        except NotFoundError:
            continue
        if arch and selection.wanted.covers(version):
            yield Target(version, arch)


def update(lock: Lock, selection: Selection, online: Online, day: str, say: Say, *, jobs: int) -> Report:
    """Add to the lock what registries know besides. `day` is today, YYYY-MM-DD."""
    from dtkpipe.releases.refresh import Reader, refresh

    todo = targets(lock, selection, online, say)
    return refresh(lock, Reader(online.registry, day, online.releases), todo, say, jobs=jobs)


def verify(lock: Lock, selection: Selection, online: Online, say: Say, *, jobs: int) -> Report:
    """Read the selected releases again and compare; nothing is written. Contradictions are among the failures."""
    from dtkpipe.releases.refresh import Reader, Target, refresh

    names = dict.fromkeys((row.version, row.arch) for row in selected(lock, selection))
    reader = Reader(online.registry, "", online.releases)
    return refresh(lock, reader, [Target(*name) for name in names], say, jobs=jobs, write=False)


def drifted(report: Report) -> list[str]:
    """Return the releases of which a registry says something else than the lock, or that are gone."""
    return [name for name, error in report.failed.items() if isinstance(error, ConflictError | NotFoundError)]


@dataclass
class Difference:
    """How one lock differs from another."""

    added: list[Row] = field(default_factory=list)
    filled: list[Row] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Contradictions, in words. A lock that was only added to has none."""
    removed: list[Row] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """The difference, a line for each row."""
        return [
            *[f"- {row.name}" for row in self.removed],
            *[f"! {text}" for text in self.changed],
            *[f"~ {row.name}: kernel {row.kernels.get('std', 'not known')}" for row in self.filled],
            *[f"+ {row.name}: kernel {row.kernels.get('std', 'not known')}" for row in self.added],
        ]


def difference(before: Lock, after: Lock) -> Difference:
    """Compare two locks."""
    if not before.lines:
        raise UsageError(f"there is no lock in {before.folder}", "expected files such as 4.16.yaml")
    old, new = ({row.key: row for row in lock} for lock in (before, after))
    found = Difference(
        added=[row for key, row in new.items() if key not in old],
        removed=[row for key, row in old.items() if key not in new],
    )
    for key in old.keys() & new.keys():
        try:
            merged = old[key].merged(new[key])
            gone = new[key].merged(old[key]) is not new[key]
        except ConflictError as error:
            found.changed.append(f"{error.what}: {'; '.join(error.details)}")
            continue
        if gone:
            found.changed.append(f"{old[key].name}: something that was known is gone")
        elif merged is not old[key]:
            found.filled.append(new[key])
    found.filled.sort(key=lambda row: row.order)
    found.changed.sort()
    return found


def by_kernel(lock: Lock, text: str = "") -> dict[Kernel, str]:
    """Return the releases that each kernel serves, oldest kernel first; of one kernel when it is named.

    Raises NotFoundError with the nearest kernels.
    """
    rows: Iterable[Row] = lock
    if text:
        kernel = Kernel.parse(text)
        rows = lock.with_kernel(kernel)
        if not rows:
            near = ", ".join(lock.kernels_near(kernel)) or "none"
            raise NotFoundError(f"no release is known to have kernel {kernel}", f"nearest: {near}")
    found: dict[Kernel, list[Version]] = {}
    for row in rows:
        for one in row.kernels.values():
            if not text or one.release == text:
                found.setdefault(one, []).append(row.version)
    return {one: spans(found[one]) for one in sorted(found, key=lambda one: one.order)}


def as_dict(row: Row) -> dict[str, Any]:
    """Return a row as `-o json` prints it: the keys of the lock."""
    import json

    found: dict[str, Any] = json.loads(row.to_json())
    return found
