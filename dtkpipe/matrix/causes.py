"""Red cells grouped by their cause, with the first kernel that is bad and the last one before it that is green."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtkpipe.matrix.failure import Failure
from dtkpipe.matrix.fingerprint import OTHER, Fingerprint
from dtkpipe.matrix.plan import Planned
from dtkpipe.values.cell import State


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cells that are red for one cause; the first is the oldest kernel."""

    fingerprint: Fingerprint
    cells: tuple[Planned, ...]
    sample: Failure
    """What was said when the first bad cell failed."""
    last_green: Planned | None
    """The newest current cell of the same module and line of kernels that is older than the first bad one."""

    @property
    def first_bad(self) -> Planned:
        """The cell with the oldest kernel."""
        return self.cells[0]

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that it is about."""
        return tuple(dict.fromkeys(one.module for one in self.cells))


def grouped(cells: Sequence[Planned], failures: Mapping[str, Failure]) -> tuple[Group, ...]:
    """Group what failed, the most frequent cause first. `failures` are the records by their image reference.

    Cells whose record is not among them are red as well: that it cannot be read is their cause.
    """
    failures = {one.image: failures.get(one.image) or _unread(one) for one in cells if one.state is State.FAILED_BEFORE}
    found: dict[Fingerprint, list[Planned]] = {}
    for one in cells:
        if one.state is State.FAILED_BEFORE:
            found.setdefault(failures[one.image].fingerprint, []).append(one)
    groups = []
    for cause, mine in found.items():
        ordered = sorted(mine, key=lambda one: (one.target.kernel.order, one.module))
        groups.append(
            Group(
                fingerprint=cause, cells=tuple(ordered), sample=failures[ordered[0].image],
                last_green=_last_green(ordered[0], cells),
            )
        )  # fmt: skip
    return tuple(sorted(groups, key=lambda group: (-len(group.cells), str(group.fingerprint))))


def _unread(one: Planned) -> Failure:
    cause = "the record of the failure cannot be read"
    return Failure(
        module=one.module, kernel=one.target.kernel.release, arch=one.target.arch.name, step="", kind=OTHER,
        cause=cause, lines=(cause, one.image), run="", by="", when=0, tool="",
    )  # fmt: skip


def _last_green(bad: Planned, cells: Sequence[Planned]) -> Planned | None:
    line = _line(bad)
    order = bad.target.kernel.order
    green = [one for one in cells if one.state is State.CURRENT and _line(one) == line
             and one.target.kernel.order < order]  # fmt: skip
    return max(green, key=lambda one: one.target.kernel.order, default=None)


def _line(one: Planned) -> tuple[str, str, str]:
    return one.module, one.target.arch.name, one.target.kernel.variant


def headline(groups: Sequence[Group]) -> str:
    """Return the failures in one line: `41 red cells, 3 causes, first bad kernel 5.14.0-503.11.1.el9_5.x86_64`."""
    if not groups:
        return "no red cells"
    cells = sum(len(group.cells) for group in groups)
    first = min((group.first_bad for group in groups), key=lambda one: one.target.kernel.order)
    return (
        f"{cells} red cell{'s' if cells > 1 else ''}, {len(groups)} cause{'s' if len(groups) > 1 else ''}, "
        f"first bad kernel {first.target.kernel}"
    )
