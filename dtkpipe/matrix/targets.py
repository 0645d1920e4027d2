"""The kernels of a matrix: releases, chosen by lists and ranges, rolled up onto the kernels that they have.

`4.16..4.22,stable` is every release from 4.16 to 4.22 that is in a stable channel; `4.14` is every release of 4.14;
`4.14.38` is that one; `latest` the newest; `debian-12` the newest kernel of each flavour.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dtkpipe.errors import NotFoundError, NothingSelectedError, UsageError
from dtkpipe.releases.answer import choose_kernel
from dtkpipe.releases.lock import Lock
from dtkpipe.releases.row import Row
from dtkpipe.values.arch import Arch
from dtkpipe.values.cell import Target
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.release import DistributionRelease, parse_release
from dtkpipe.values.version import Version, Wanted, nearest, spans

CHANNELS = ("stable", "fast", "candidate", "eus")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which releases are wanted. What `channel` names narrows every item that is no channel itself."""

    wanted: tuple[Wanted, ...]
    distributions: tuple[DistributionRelease, ...]
    channel: str = ""

    @classmethod
    def parse(cls, text: str, distributions: Sequence[str]) -> Selection:
        """Parse `--releases`. Raises UsageError, NotFoundError for what is no release."""
        wanted: list[Wanted] = []
        chosen: list[DistributionRelease] = []
        channels: list[str] = []
        for item in _items(text):
            if item in CHANNELS:
                channels.append(item)
                continue
            found = parse_release(item, distributions)
            if isinstance(found, DistributionRelease):
                chosen.append(found)
            else:
                wanted.append(found)
        if len(channels) > 1:
            raise UsageError(f"--releases: {' and '.join(channels)} are two channels", hint="name one of them")
        if channels and not wanted:
            wanted.append(Wanted("all"))
        if not wanted and not chosen:
            raise UsageError("--releases names no release", hint="--releases '4.16..4.22,stable'")
        return cls(wanted=tuple(wanted), distributions=tuple(chosen), channel="".join(channels))

    @property
    def growing(self) -> tuple[tuple[str, Wanted], ...]:
        """What a new release may fit, each with the channel that would list it: `stable` where none is named."""
        return tuple(
            (one.channel.partition("-")[0] or self.channel or CHANNELS[0], one) for one in self.wanted if not one.exact
        )


def _items(text: str) -> list[str]:
    """Split at commas, but not between the two bounds of a range: `>=4.14.3, <4.15`."""
    return [part.strip() for part in re.split(r",(?!\s*[<>])", text) if part.strip()]


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where it is looked up. The functions are only called when they are needed."""

    lock: Lock
    channel: Callable[[str, Arch], list[Version]]
    """Returns the releases of a channel, `stable-4.16`. Raises NotFoundError for one that does not exist."""
    newest: Callable[[str, str, Arch], tuple[Kernel, str]]
    """Returns a distribution's newest kernel of a flavour, and the tag of its toolkit. Raises NotFoundError."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The kernels, and what could not be made one, in words."""

    targets: tuple[Target, ...]
    notices: tuple[str, ...] = ()


def select(
    selection: Selection, arches: Sequence[Arch], variants: Sequence[str], places: Places, only: Sequence[Kernel] = ()
) -> Targets:
    """Return the kernels of the chosen releases, oldest first; with `only`, of these those that it names.

    Raises NothingSelectedError, NotFoundError.
    """
    notices: list[str] = []
    kernels: dict[tuple[Kernel, Arch], list[Row]] = {}
    unknown: dict[str, list[Version]] = {}
    for row in _rows(selection, arches, places, notices):
        if row.os_kernel:
            unknown.setdefault("their toolkit is not for the kernel of their operating system", []).append(row.version)
            continue
        for variant in variants:
            try:
                kernel, _ = choose_kernel(row.kernels, variant, row.arch, row.name)
            except NotFoundError:
                words = f"no {variant} kernel of theirs is known for {row.arch}; `dtkpipe catalog update` asks for it"
                unknown.setdefault(words, []).append(row.version)
                continue
            kernels.setdefault((kernel, row.arch), []).append(row)
    notices += [f"left out: OpenShift {spans(versions)}: {why}" for why, versions in unknown.items()]
    if bare := [row.version for rows in kernels.values() if not any(row.toolkit for row in rows) for row in rows]:
        notices.append(f"the toolkit of OpenShift {spans(bare)} is not known; `dtkpipe catalog update` asks for it")
    targets = [_target(kernel, arch, rows) for (kernel, arch), rows in kernels.items()]
    targets += _of_distributions(selection, arches, variants, places, notices)
    if not targets:
        raise NothingSelectedError(
            f"no kernel of {', '.join(variants)} on {', '.join(map(str, arches))} is known for the chosen releases",
            *notices, hint="dtkpipe releases lists the kernels that are known",
        )  # fmt: skip
    if only:
        targets = _narrowed(targets, only, places.lock, notices)
    return Targets(targets=tuple(sorted(targets, key=_order)), notices=tuple(notices))


def _narrowed(targets: Sequence[Target], only: Sequence[Kernel], lock: Lock, notices: list[str]) -> list[Target]:
    """Return the targets of some kernels, and note what has none. Raises NothingSelectedError where there are none."""
    there = {target.kernel for target in targets}
    missing = [_not_selected(kernel, lock) for kernel in only if kernel not in there]
    if not there.intersection(only):
        raise NothingSelectedError(
            "the chosen releases have none of these kernels" if len(only) > 1 else
            f"the chosen releases do not have kernel {only[0]}",
            *missing, hint="dtkpipe releases lists the kernels that are known",
        )  # fmt: skip
    notices += missing
    return [target for target in targets if target.kernel in only]


def _not_selected(kernel: Kernel, lock: Lock) -> str:
    if rows := lock.with_kernel(kernel):
        versions = spans([row.version for row in rows])
        return f"left out: kernel {kernel}: it is of OpenShift {versions}, or of a variant, that is not chosen"
    near = ", ".join(lock.kernels_near(kernel)) or "none"
    return f"left out: kernel {kernel}: no release is known to have it; nearest: {near}; see `dtkpipe catalog update`"


def _order(target: Target) -> tuple[str, str, tuple[tuple[int, int | str], ...]]:
    return target.arch.name, target.kernel.variant, target.kernel.order


def _rows(selection: Selection, arches: Sequence[Arch], places: Places, notices: list[str]) -> list[Row]:
    """Return the chosen rows of the lock, oldest first, each once."""
    found: dict[object, Row] = {}
    for wanted in selection.wanted:
        rows = [row for row in _of(wanted, places.lock) if row.arch in arches]
        name = wanted.channel.partition("-")[0] or ("" if wanted.exact else selection.channel)
        if name:
            rows = list(_in_channel(rows, name, places, notices))
        if not rows:
            if wanted.exact:
                raise _not_known(wanted.exact, places.lock)
            notices.append(f"the lock has no release that is {wanted} for {', '.join(map(str, arches))}")
        found |= {row.key: row for row in rows}
    return sorted(found.values(), key=lambda row: row.order)


def _of(wanted: Wanted, lock: Lock) -> Iterator[Row]:
    if not wanted.exact and not wanted.bounds and wanted.text == "latest":
        newest = lock.newest(wanted)
        wanted = Wanted(wanted.text, exact=newest) if newest else wanted
    for line in lock.lines:
        if wanted.may_be_in(line):
            for row in lock.rows(line):
                if wanted.admits(row.version) and (wanted.exact or not row.withdrawn):
                    yield row


def _in_channel(rows: Sequence[Row], name: str, places: Places, notices: list[str]) -> Iterator[Row]:
    members: dict[tuple[tuple[int, int], Arch], frozenset[Version]] = {}
    for row in rows:
        key = row.version.line, row.arch
        if key not in members:
            channel = f"{name}-{key[0][0]}.{key[0][1]}"
            try:
                members[key] = frozenset(places.channel(channel, row.arch))
            except NotFoundError as error:
                notices.append(f"left out: {error.what}")
                members[key] = frozenset()
        if row.version in members[key]:
            yield row


def _not_known(version: Version, lock: Lock) -> NotFoundError:
    near = ", ".join(map(str, nearest(version, [row.version for row in lock])))
    return NotFoundError(
        f"the lock does not know OpenShift {version}", f"nearest: {near or 'none'}",
        hint=f"dtkpipe catalog update --minor {version.major}.{version.minor}",
    )  # fmt: skip


def _target(kernel: Kernel, arch: Arch, rows: Sequence[Row]) -> Target:
    toolkits = dict.fromkeys(row.toolkit for row in rows if row.toolkit)
    first = next((row for row in rows if row.toolkit), rows[0])
    return Target(
        kernel=kernel, arch=arch, release=str(first.version), stream=first.stream, toolkits=tuple(toolkits),
        serves=spans([row.version for row in rows]),
    )  # fmt: skip


def _of_distributions(
    selection: Selection, arches: Sequence[Arch], variants: Sequence[str], places: Places, notices: list[str]
) -> Iterator[Target]:
    for name in dict.fromkeys(str(one) for one in selection.distributions):
        for arch in arches:
            for variant in variants:
                try:
                    kernel, tag = places.newest(name, variant, arch)
                except NotFoundError as error:
                    notices.append(f"left out: {error.what}")
                    continue
                yield Target(kernel=kernel, arch=arch, release=name, serves=name, toolkit_tag=tag)
