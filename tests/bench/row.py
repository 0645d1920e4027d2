"""One row of the table of promises, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtkpipe.report.card import Table, aligned


@dataclass(frozen=True)
class Row:
    """One promise: `measured` and `goal` in `unit`."""

    what: str
    unit: str
    goal: float
    measured: float
    command: str

    @property
    def met(self) -> bool:
        return self.measured <= self.goal

    def cells(self) -> tuple[str, ...]:
        return (
            self.what, f"<= {self.goal:g} {self.unit}", f"{self.measured:.2f} {self.unit}",
            "yes" if self.met else "NO", self.command,
        )  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """All rows, as people read them."""
    return aligned(Table(("what", "goal", "measured", "met", "command"), tuple(row.cells() for row in rows)))
