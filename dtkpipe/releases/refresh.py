"""Many releases at once: what registries tell of them is compared with the lock, or added to it.

Work is written as it comes in, and what is complete is not asked again: an interrupted refresh goes on where it was.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from dtkpipe.clients.registry import Registry
from dtkpipe.errors import DtkpipeError, NotAllowedError, NotFoundError, UnreachableError, UnsupportedError
from dtkpipe.releases.images import CONTENT, Stream, release_image
from dtkpipe.releases.inspect import os_kernel, toolkit_kernels
from dtkpipe.releases.lock import Lock
from dtkpipe.releases.payload import Payload, read
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
    """Releases that were not asked for, because the lock knows all of them."""
    failed: dict[str, DtkpipeError] = field(default_factory=dict)


class Reader:
    """Reads releases, each image once: several releases have the same toolkit."""

    def __init__(self, registry: Registry, day: str, releases: ImageRef | None = None) -> None:
        """Make the reader. `day` is today, YYYY-MM-DD; `releases` a repository instead of the usual one."""
        self._registry, self._day, self._releases = registry, day, releases
        self._toolkit = functools.lru_cache(maxsize=4096)(self._read_toolkit)
        self._system = functools.lru_cache(maxsize=4096)(self._read_system)

    def rows(self, target: Target) -> list[Row]:
        """Return what registries tell of a release, a row for each stream. Raises what they raise."""
        image = target.image or release_image(target.version, target.arch, self._releases)
        payload = read(self._registry, image, target.arch, target.version)
        for stream in payload.streams:
            if stream.toolkit.name != CONTENT.name:
                raise UnsupportedError(
                    f"the toolkit of {target} is not in {CONTENT}", "the lock has digests of that repository only",
                    f"it is {stream.toolkit}", hint=f"dtkpipe resolve --release-image {image}",
                )  # fmt: skip
        return [self._row(payload, stream) for stream in payload.streams]

    def _row(self, payload: Payload, stream: Stream) -> Row:
        told = self._toolkit(stream.toolkit, payload.arch)
        system = self._system(stream.os_image, payload.arch) if stream.os_image else None
        return Row(
            version=payload.version, arch=payload.arch, stream=stream.name, payload=payload.image.digest,
            toolkit=stream.toolkit.digest, os_image=stream.os_image.digest if stream.os_image else "",
            kernels=told, os_kernel=system if system and system != told.get("std") else None, rhcos=stream.rhcos,
            source=("registry",), date=self._day,
        )  # fmt: skip

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

    Without `write`, complete rows are read too: they are what a registry may contradict. One release that fails, or
    contradicts the lock, does not stop the others. Raises UnreachableError when nothing answers any more.
    """
    report, waiting = Report(), list[Row]()
    todo: list[Target] = []
    for target in targets:
        known = lock.find(target.version, target.arch)
        if write and known and all(row.complete for row in known):
            report.complete += 1
        else:
            todo.append(target)
    silent = 0
    with ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[list[Row]], Target] = {}
        left = iter(todo)
        try:
            while True:
                # Only a few ahead: a list of thousands of futures would have to be cancelled at an interruption.
                for following in itertools.islice(left, 2 * jobs - len(running)):
                    running[pool.submit(reader.rows, following)] = following
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    target = running.pop(future)
                    try:
                        waiting += _news(lock, future.result(), report, tell)
                        silent = 0
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
