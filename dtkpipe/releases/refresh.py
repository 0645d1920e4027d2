"""Many releases at once: what registries tell of them is compared with the lock, or added to it.

Work is written as it comes in, and what is known is not read again: an interrupted refresh goes on where it was.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from dtkpipe.clients.registry import Registry
from dtkpipe.errors import DtkpipeError, NotAllowedError, NotFoundError, UnreachableError, UnsupportedError
from dtkpipe.releases.images import CONTENT, release_image
from dtkpipe.releases.inspect import os_kernel, toolkit_kernels
from dtkpipe.releases.lock import Lock
from dtkpipe.releases.payload import read
from dtkpipe.releases.row import Row
from dtkpipe.values.arch import X86_64, Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.version import Version

CONNECTIONS = 16
_BATCH = 64
"""Releases between two writes."""
_HOPELESS = 20
"""Releases in a row that nobody answers for, before the rest is given up."""


@dataclass(frozen=True)
class Target:
    """One release to look at; `image` where the update graph says which it is."""

    version: Version
    arch: Arch
    image: ImageRef | None = None

    def __str__(self) -> str:
        return f"{self.version} {self.arch}"


@dataclass
class Report:
    """What a refresh did. A release that failed has its error, and changed nothing."""

    added: list[Row] = field(default_factory=list)
    filled: list[Row] = field(default_factory=list)
    same: int = 0
    """Releases that were read, and of which nothing is new."""
    complete: int = 0
    """Releases that were not read, because the lock knows all of them, and their image is still the one it says."""
    failed: dict[str, DtkpipeError] = field(default_factory=dict)


class Reader:
    """Reads releases, each image once: several releases have the same toolkit."""

    def __init__(self, registry: Registry, day: str, releases: ImageRef | None = None) -> None:
        """Make the reader. `day` is today, YYYY-MM-DD; `releases` a repository instead of the usual one."""
        self._registry, self._day, self._releases = registry, day, releases
        self._toolkit = functools.lru_cache(maxsize=4096)(self._read_toolkit)
        self._system = functools.lru_cache(maxsize=4096)(self._read_system)

    def rows(self, target: Target, known: Sequence[Row] = ()) -> list[Row]:
        """Return what registries tell of a release, a row for each stream. Raises what they raise.

        `known` rows come back as they are where the release still has the image that they are from; of those that lack
        kernels, only these are read.
        """
        image = target.image or release_image(target.version, target.arch, self._releases)
        told = {row.payload if row.toolkit else "" for row in known}
        # What has a digest cannot change: one small question is enough.
        if known and "" not in told and told == {image.digest or self._registry.digest(image)}:
            return [row if "std" in row.kernels else self._row(row) for row in known]
        payload = read(self._registry, image, target.arch, target.version)
        for stream in payload.streams:
            if stream.toolkit.name != CONTENT.name:
                raise UnsupportedError(
                    f"the toolkit of {target} is not in {CONTENT}", "the lock has digests of that repository only",
                    f"it is {stream.toolkit}", hint=f"dtkpipe resolve --release-image {image}",
                )  # fmt: skip
        return [
            self._row(
                Row(
                    version=payload.version, arch=payload.arch, stream=stream.name, payload=payload.image.digest,
                    toolkit=stream.toolkit.digest, os_image=stream.os_image.digest if stream.os_image else "",
                    rhcos=stream.rhcos,
                )
            )
            for stream in payload.streams
        ]  # fmt: skip

    def _row(self, row: Row) -> Row:
        """Return a row with the kernels of its images."""
        told = self._toolkit(CONTENT.at(row.toolkit), row.arch)
        system = self._system(CONTENT.at(row.os_image), row.arch) if row.os_image else None
        other = system if system and system != told.get("std") else None
        return replace(row, kernels=told, os_kernel=other, source=("registry",), date=self._day)

    def _read_toolkit(self, image: ImageRef, arch: Arch) -> Mapping[str, Kernel]:
        """Read the kernels of a toolkit. Without a pull secret they stay unknown: the digest is worth a row alone."""
        try:
            return toolkit_kernels(self._registry, image, arch, ("rt",) if arch == X86_64 else ())[0]
        except (NotAllowedError, NotFoundError):
            return {}

    def _read_system(self, image: ImageRef, arch: Arch) -> Kernel | None:
        try:
            return os_kernel(self._registry, image, arch)
        except (NotAllowedError, NotFoundError):
            return None


def refresh(
    lock: Lock,
    reader: Reader,
    targets: Iterable[Target],
    tell: Callable[[str], None],
    *,
    jobs: int = CONNECTIONS,
    write: bool = True,
) -> Report:
    """Read releases and add to the lock what is new; without `write`, only find out what would be.

    Without `write`, what is known is read too: it is what a registry may contradict. One release that fails, or
    contradicts the lock, does not stop the others. Raises UnreachableError when nothing answers any more.
    """
    report, waiting = Report(), list[Row]()
    todo = list(targets)
    known = {target: lock.find(target.version, target.arch) if write else [] for target in todo}
    silent = 0
    with ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[list[Row]], Target] = {}
        left = iter(todo)
        try:
            while True:
                # Only a few ahead: a list of thousands of futures would have to be cancelled at an interruption.
                for following in itertools.islice(left, 2 * jobs - len(running)):
                    running[pool.submit(reader.rows, following, known[following])] = following
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    target = running.pop(future)
                    try:
                        rows = future.result()
                        silent = 0
                        if rows == known[target] and all("std" in row.kernels for row in rows):
                            report.complete += 1
                        else:
                            waiting += _news(lock, rows, report, tell)
                    except DtkpipeError as error:
                        report.failed[str(target)] = error
                        tell(f"! {target}: {error.what}")
                        silent = silent + 1 if isinstance(error, UnreachableError) else 0
                        if silent >= _HOPELESS:
                            raise UnreachableError(
                                f"given up: {silent} releases in a row got no answer", error.what, *error.details
                            ) from error
                if write and len(waiting) >= _BATCH:
                    lock.add(waiting)
                    waiting = []
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            if write:
                lock.add(waiting)
    report.failed = {str(one): report.failed[str(one)] for one in todo if str(one) in report.failed}
    return report


def _news(lock: Lock, rows: list[Row], report: Report, tell: Callable[[str], None]) -> list[Row]:
    """Return the rows that say more than the lock; raises ConflictError before any of them counts."""
    news: list[tuple[Row, Row | None]] = []
    for row in rows:
        before = next((one for one in lock.find(row.version, row.arch) if one.stream == row.stream), None)
        if before is None or before.merged(row) is not before:
            news.append((row, before))
    for row, before in news:
        (report.filled if before else report.added).append(before.merged(row) if before else row)
        kernel = row.kernels.get("std")
        tell(f"{'~' if before else '+'} {row.name}: kernel {kernel}, toolkit {row.toolkit}")
    if not news:
        report.same += 1
    return [row for row, _ in news]
