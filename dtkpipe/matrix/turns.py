"""Whose turn it is: modules take turns, so that one with many kernels keeps no other waiting."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, zip_longest

from dtkpipe.matrix.plan import Planned


def in_turns(cells: Iterable[Planned]) -> list[Planned]:
    """Return the cells so that each module has its turn before one has its second; of each the newest kernel first."""
    by_module: dict[str, list[Planned]] = {}
    for one in cells:
        by_module.setdefault(one.module, []).append(one)
    for mine in by_module.values():
        mine.sort(key=lambda one: one.target.kernel.order, reverse=True)
    return [one for one in chain.from_iterable(zip_longest(*by_module.values())) if one is not None]
