"""Prints what was promised for clusters and what was measured, as a table. Exit code 1 when a goal is missed.

`make bench-e2e`, or `python -m tests.e2e.bench WORD...` for the rows of the groups that contain one of the words. On
the tests' own cluster, or on the one that KUBECONFIG names. Another measurement is another function in GROUPS.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from tests.bench.row import Row, table
from tests.e2e.bench import many_runs, pushes, rollout, runs
from tests.e2e.cluster import bringup, layout, target
from tests.e2e.cluster.processes import Box
from tests.e2e.cluster.target import Cluster


def listing(cluster: Cluster, namespace: str) -> Iterator[Row]:
    """`list` in a namespace with very many runs."""
    for one in many_runs.measure(cluster.kubeconfig, namespace):
        command = f"dtkpipe list --engine {one.engine}"
        yield Row(f"list with {one.runs} runs, {one.engine}", "s", 1.5, one.seconds, command)
        yield Row(f"its API calls, {one.engine}", "", 3, one.requests, command)


def published_to_live(cluster: Cluster, namespace: str) -> Iterator[Row]:
    """A driver on its way to the nodes."""
    seconds = rollout.measure(cluster, namespace)
    yield Row("image published to module Live on all nodes", "s", 15, seconds, "dtkpipe deploy, once for each kernel")


def whole_runs(cluster: Cluster, _namespace: str) -> Iterator[Row]:
    """`submit`, and a run of `prebuild`."""
    for one in runs.whole(cluster):
        yield Row(f"submit to run object created, {one.engine}", "s", 1.0, one.submit, "dtkpipe submit --engine ...")
        what = f"a run without its steps, {one.engine}: of {one.wall:.0f} s"
        yield Row(what, "%", 25, one.overhead, "dtkpipe submit --pipeline prebuild --wait")


def pushes_to_runs(cluster: Cluster, _namespace: str) -> Iterator[Row]:
    """What receives pushes, and the planner after it."""
    for receiver, seconds in pushes.measure(cluster):
        yield Row(f"push received to run created, {receiver}", "s", 3, seconds, "dtkpipe trigger create --on push")


def twenty_cells(cluster: Cluster, _namespace: str) -> Iterator[Row]:
    """Twenty runs, all at once."""
    return _cells(cluster, 20, 20)


def three_hundred_cells(cluster: Cluster, _namespace: str) -> Iterator[Row]:
    """More runs than Tekton takes combinations of a matrix (256)."""
    return _cells(cluster, 300, 12)


def _cells(cluster: Cluster, count: int, jobs: int) -> Iterator[Row]:
    command = f"dtkpipe matrix submit --jobs {jobs}"
    for one in runs.cells_at_once(cluster, count=count, jobs=jobs):
        what = f"{count} cells, {jobs} at once, {one.engine}"
        yield Row(f"{what}: not built, after {one.seconds:.0f} s", "", 0, one.not_built, command)
        yield Row(f"{what}: errors of the controller", "", 0, one.errors, command)


Group = Callable[[Cluster, str], Iterator[Row]]
GROUPS: tuple[Group, ...] = (listing, published_to_live, whole_runs, pushes_to_runs, twenty_cells)
LONG: tuple[Group, ...] = (three_hundred_cells,)
"""Only when they are named."""


@contextlib.contextmanager
def _cluster(rows: list[Row]) -> Iterator[Cluster]:
    """A cluster that is up: as it was found afterwards. Coming up is measured where it has to come up."""
    if named := target.foreign():
        yield target.other(named)
        return
    bringup.make(_say)
    was_up = bringup.is_up(Box(layout.run()))
    started = time.perf_counter()
    bringup.up(_say)
    if not was_up:
        took = time.perf_counter() - started
        rows.append(Row("cluster up, everything cached", "s", 75, took, "python -m tests.e2e.cluster up"))
    try:
        yield target.ours()
    finally:
        if not was_up:
            bringup.down(_say)


@contextlib.contextmanager
def _namespace(cluster: Cluster) -> Iterator[str]:
    name = f"bench-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name)  # and wait: five hundred runs that go burden what is measured next


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(words: Sequence[str]) -> int:
    """Measure, print, and return the exit code."""
    rows: list[Row] = []
    with _cluster(rows) as cluster:
        for group in (*GROUPS, *(LONG if words else ())):
            if not words or any(word in group.__name__ for word in words):
                _say(f"measuring: {group.__name__.replace('_', ' ')}")
                with _namespace(cluster) as namespace:
                    rows += group(cluster, namespace)
    print(table(rows))
    print(f"\n{os.cpu_count()} cores.")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
