"""A matrix for people and machines: its document, its cells folded into rows, its counts in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from dtkpipe.matrix.causes import Group
from dtkpipe.matrix.modules import Broken
from dtkpipe.matrix.plan import Plan, Planned
from dtkpipe.report.card import Table
from dtkpipe.values.cell import State

SCHEMA = "dtkpipe/matrix/v1"


def document(plan: Plan) -> dict[str, Any]:
    """Return the matrix as `-o json` prints it."""
    return {
        "schema": SCHEMA,
        "summary": {state.value: count for state in State if (count := plan.count(state))},
        "stale": len(plan.stale),
        "cells": [_cell(one) for one in plan.cells],
        "broken": [
            {"file": one.file.name, "error": one.error.what, "details": list(one.error.details)} for one in plan.broken
        ],
        "notices": list(plan.notices),
    }


def _cell(one: Planned) -> dict[str, Any]:
    target = one.target
    facts = {
        "module": one.module, "kernel": target.kernel.release, "arch": target.arch.name,
        "variant": target.kernel.variant, "releases": target.serves, "state": one.state.value, "reason": one.reason,
        "key": str(one.key or ""), "image": one.image, "until": one.until.isoformat() if one.until else "",
    }  # fmt: skip
    return {name: value for name, value in facts.items() if value}


def of_groups(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return the causes of red cells as `-o json` prints them."""
    return [
        {
            "id": group.fingerprint.id, "kind": group.fingerprint.kind, "cause": group.fingerprint.text,
            "cells": [{"module": one.module, "kernel": one.target.kernel.release, "record": one.image}
                      for one in group.cells],
            "firstBad": group.first_bad.target.kernel.release,
            "lastGreen": group.last_green.target.kernel.release if group.last_green else "",
            "said": list(group.sample.lines),
        }
        for group in groups
    ]  # fmt: skip


def summary(plan: Plan) -> str:
    """Return how many cells are in each state: `50 cells: 41 current, 9 missing`."""
    counts = [f"{count} {state.value}" for state in State if (count := plan.count(state))]
    return f"{len(plan.cells)} cell{'s' if len(plan.cells) != 1 else ''}: {', '.join(counts) or 'none'}" + (
        f"; {len(plan.broken)} module spec{'s' if len(plan.broken) > 1 else ''} cannot be read" if plan.broken else ""
    )


HEAD = ("module", "arch", "cells", "kernels", "releases", "state", "reason")


def folded(plan: Plan) -> Table:
    """Return a row for each run of kernels of a module that are in the same state for the same cause."""
    rows = [_broken(one) for one in plan.broken]
    for _, group in groupby(plan.cells, key=_alike):
        cells = list(group)
        reasons = list(dict.fromkeys(one.reason for one in cells))
        rows.append(
            (
                cells[0].module, cells[0].target.arch.name, str(len(cells)),
                _span([one.target.kernel.release for one in cells]), _span(_releases(cells)), said(cells[0]),
                reasons[0] + (f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""),
            )
        )  # fmt: skip
    return Table(HEAD, tuple(rows))


def every(plan: Plan) -> Table:
    """Return a row for each cell."""
    cells = (
        (one.module, one.target.arch.name, "1", one.target.kernel.release, one.target.serves, said(one), one.reason)
        for one in plan.cells
    )
    return Table(HEAD, (*(_broken(one) for one in plan.broken), *cells))


def said(cell: Planned) -> str:
    """Return a cell's state in words: `quarantined until 2027-03-31`."""
    return f"{cell.state} until {cell.until}" if cell.until else cell.state.value


def _broken(one: Broken) -> tuple[str, ...]:
    return one.file.name, "", "", "", "", "broken", one.error.what.removeprefix(f"{one.file.name}: ")


def _alike(one: Planned) -> tuple[object, ...]:
    # Each cell has a time and a toolkit of its own: these keep no rows apart.
    reason = one.reason if one.state in (State.QUARANTINED, State.UNKNOWN) else ""
    return one.module, one.target.arch, one.target.kernel.variant, one.state, one.until, reason


def _releases(cells: Sequence[Planned]) -> list[str]:
    return [part for one in cells for part in one.target.serves.split(", ")]


def _span(items: Sequence[str]) -> str:
    """Write the first and the last."""
    return items[0] if len(set(items)) == 1 else f"{items[0]} .. {items[-1]}"
