"""How long it takes from a push to the run that builds it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dtkpipe.app.clusters import ENGINES
from dtkpipe.engines.triggers import RECEIVERS
from tests.e2e.bells import SECRET, Bells, post, ringing
from tests.e2e.bench.runs import registry_of
from tests.e2e.cluster import git
from tests.e2e.cluster.target import Cluster
from tests.e2e.runner import runner
from tests.fixtures.webhooks import push


def measure(cluster: Cluster, *, turns: int = 3) -> Iterator[tuple[str, float]]:
    """Give each receiver with its seconds (median): nothing is at work when the push comes, and images are there."""
    with (
        tempfile.TemporaryDirectory(prefix="dtkpipe-bench-") as name,
        git.running(cluster, Path(name, "git")) as server,
    ):
        registry = registry_of(cluster)
        with ringing(cluster, registry, server, runner(registry.repo("runner")), Path(name)) as bells:
            for receiver in RECEIVERS:
                bells.cells.modules(receiver, "pushed")
                bells.create(receiver, receiver, receiver)
                url = bells.url(receiver, receiver)
                times = [_pushed(bells, receiver, url, turn) for turn in range(turns + 1)]
                yield receiver, statistics.median(times[1:])
                assert bells.trigger("delete", receiver).code == 0


def _pushed(bells: Bells, receiver: str, url: str, turn: int) -> float:
    bells.cells.commit()
    call = push("github", bells.path, number=turn).signed(SECRET)
    runs, namespace = ENGINES[RECEIVERS[receiver].engine].runs, bells.cells.namespace
    client = bells.cells.cluster.client
    seen = {one["metadata"]["uid"] for one in client.list(runs, namespace)}
    begun = time.perf_counter()
    assert post(url, call) < 300
    for _, one in client.watch(runs, namespace, until=time.monotonic() + 120):
        if one["metadata"]["uid"] not in seen and f"/{receiver}/" in str(one["spec"]):
            took = time.perf_counter() - begun
            bells.quiet(receiver, receiver, rung=1)
            time.sleep(20)  # the next planner is not started earlier
            return took
    raise AssertionError("no run within 120 s")
