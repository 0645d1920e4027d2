"""Whole runs: how long `submit` takes, what the engine adds to the steps' own time, and many cells at once."""

from __future__ import annotations

import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dtkpipe.errors import RunCancelledError
from dtkpipe.resources import cache_dir
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.run import RunCard
from tests.e2e.cells import cells
from tests.e2e.cluster import git, layout
from tests.e2e.cluster.target import Cluster
from tests.e2e.pipelines import ENGINES, Site, described, site_of
from tests.e2e.runner import runner
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.submit import HELLO
from tests.fixtures.toolkit import resolved


@dataclass(frozen=True, kw_only=True)
class Whole:
    """One engine's run of `prebuild`: seconds of `submit` (median), of the whole run, and of its steps together."""

    engine: str
    submit: float
    wall: float
    steps: float

    @property
    def overhead(self) -> float:
        """What is not steps, in percent of the wall."""
        return 100 * (self.wall - self.steps) / self.wall


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Many runs at once: seconds until all had ended, how many did not end well, and what the controllers logged."""

    engine: str
    seconds: float
    not_built: int
    errors: int


def whole(cluster: Cluster, *, turns: int = 5) -> Iterator[Whole]:
    """Submit and run the pipeline `prebuild` on each engine, one after the other: images are pulled before."""
    with _folder() as folder, git.running(cluster, folder / "git") as server:
        registry = registry_of(cluster)
        toolkit = resolved(registry, cache_dir(os.environ), release="debian-12", variant="cloud", arch="x86_64")
        with site_of(cluster, registry, server, toolkit, folder) as site:
            site.install(runner(registry.repo("runner")))
            for engine in ENGINES:
                site.run(engine, "first", HELLO)
                times = [_submitted(site, engine) for _ in range(turns)]
                ended = site.run(engine, "hello", HELLO)
                assert ended.code == 0, described(ended)
                card = ended.card
                _say_steps(card)
                yield Whole(
                    engine=engine, submit=statistics.median(times), wall=card.finished - card.created,
                    steps=sum(step.seconds for step in card.steps),
                )  # fmt: skip


def _submitted(site: Site, engine: str) -> float:
    """Seconds of the whole process; the run is deleted at once."""
    repo = f"github.com/{site.namespace}/first-{engine}"
    begun = time.perf_counter()
    said = site.cli(
        "submit", "--engine", engine, "-n", site.namespace, "--pipeline", "prebuild", "--force", "-o", "name",
        "--repo", repo, "--toolkit", str(site.toolkit.image), "--push-to", str(site.registry.repo(f"{repo}-timed")),
        "--insecure-registry", site.registry.host, env={**site.cluster.environ, **site.git.environ},
    )  # fmt: skip
    took = time.perf_counter() - begun
    assert said.code == 0, said.err
    run = said.out.strip().removeprefix("run/")
    for verb, code in (("cancel", 0), ("wait", RunCancelledError.exit_code), ("delete", 0)):
        done = site.cli(verb, run, "-n", site.namespace, env=site.cluster.environ)
        assert done.code == code, done.err
    return took


def _say_steps(card: RunCard) -> None:
    """Print where the time went, for who looks into a goal that is missed."""
    before = card.created
    for step in card.steps:
        print(f"  {card.engine} {step.name}: waits {step.started - before:.1f} s, takes {step.seconds:.1f} s")
        before = step.finished
    print(f"  {card.engine} after the last: {card.finished - before:.1f} s")


def cells_at_once(cluster: Cluster, *, count: int, jobs: int) -> Iterator[Cells]:
    """Submit a matrix of tiny cells, `jobs` at a time, on each engine."""
    with _folder() as folder, git.running(cluster, folder / "git") as server:
        registry = registry_of(cluster)
        with cells(cluster, registry, server, runner(registry.repo("runner")), folder) as site:
            site.kernels(1)
            for engine in ENGINES:
                site.modules(engine, *(f"good{number}" for number in range(count)))
                begun, since = time.perf_counter(), datetime.now(UTC)
                said = site.submit(engine, engine, "--jobs", str(jobs), timeout=5400)
                took = time.perf_counter() - begun
                built = json.loads(said.out)["summary"].get("built", 0)
                yield Cells(
                    engine=engine, seconds=took, not_built=count - built, errors=_errors(cluster, engine, since)
                )


_ERROR = re.compile(r"level=error|level=fatal|\"level\":\"(?:error|fatal|panic)\"|^E\d{4} ")


def _errors(cluster: Cluster, engine: str, since: datetime) -> int:
    """How many errors the engine's controller has logged since then."""
    when = since.strftime("%Y-%m-%dT%H:%M:%SZ")
    if engine == "argo" and cluster.own:
        lines = layout.run().log("argo-controller").read_text(errors="replace").splitlines()
        stamped = [(re.search(r'time="?(\S+?)"?[ Z]', line), line) for line in lines]
        lines = [line for found, line in stamped if found and found[1] >= when[:19]]
    else:
        place = (
            ("argo", "workflow-controller") if engine == "argo" else ("tekton-pipelines", "tekton-pipelines-controller")
        )
        lines = cluster.kubectl(
            "-n", place[0], "logs", f"deployment/{place[1]}", f"--since-time={when}"
        ).splitlines()  # fmt: skip
    found = [line for line in lines if _ERROR.search(line)]
    for line in found[:5]:
        print(f"  {line[:300]}")
    return len(found)


def registry_of(cluster: Cluster) -> LoopbackRegistry:
    """The cluster's registry, as tests have it."""
    run = layout.run()
    return LoopbackRegistry(
        cluster.registry, run.registry, RegistryAccess(insecure=(cluster.registry,)), run.log("registry")
    )


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dtkpipe-bench-") as name:
        yield Path(name)
