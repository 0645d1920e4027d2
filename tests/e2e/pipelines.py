"""Runs of whole pipelines as users start them, in a namespace where everything is installed."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.clients.registry import Registry
from dtkpipe.values.image import ImageRef
from dtkpipe.values.run import RunCard
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster
from tests.fixtures.cli import Cli
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.toolkit import Toolkit

ENGINES = ("argo", "tekton")


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    card: RunCard
    code: int
    said: str
    to: ImageRef
    """Where it would publish."""

    def results(self, task: str) -> dict[str, str]:
        return dict(next(step.results for step in self.card.steps if step.name == task))

    def states(self) -> dict[str, str]:
        return {step.name: step.state for step in self.card.steps}


@dataclass(frozen=True)
class Site:
    """A namespace with both engines' pipelines."""

    cluster: Cluster
    namespace: str
    registry: LoopbackRegistry
    git: GitServer
    toolkit: Toolkit
    cli: Cli

    def install(self, runner: ImageRef, *more: str) -> None:
        self.git.secret(self.namespace)
        for engine in ENGINES:
            place = ("-n", self.namespace, "--target-namespace", f"{self.namespace}-drivers")
            said = self.cli(
                "install", "--engine", engine, *place, "--runner-image", str(runner), *more, env=self.cluster.environ
            )
            assert said.code == 0, said.err

    def uninstall(self) -> None:
        for engine in ENGINES:
            place = ("-n", self.namespace, "--target-namespace", f"{self.namespace}-drivers")
            self.cli("uninstall", "--engine", engine, *place, env=self.cluster.environ)
        self.cluster.kubectl("delete", "namespace", f"{self.namespace}-drivers", "--wait=false", "--ignore-not-found")

    def run(self, engine: str, name: str, source: Path, *more: str | Path) -> Ended:
        """Build, prove and publish the module in `source` with the pipeline `prebuild`; wait for the end."""
        name = f"{self.namespace}/{name}-{engine}"
        self.git.serve(f"github.com/{name}", source)
        to = self.registry.repo(name)
        said = self.cli(
            "submit", "--engine", engine, "-n", self.namespace, "--pipeline", "prebuild", "--wait", "-o", "json",
            "--repo", f"github.com/{name}", "--toolkit", str(self.toolkit.image),
            "--push-to", str(to), "--insecure-registry", self.registry.host, *more,
            env={**self.cluster.environ, **self.git.environ}, timeout=900,
        )  # fmt: skip
        assert said.out.startswith("{"), said.err
        return Ended(RunCard.from_json(said.out), said.code, said.err, to)

    def tags(self, repository: ImageRef) -> tuple[str, ...]:
        return Registry(self.registry.access).tags(repository)

    def candidates(self, run: Ended) -> list[str]:
        """The tags of the run that are left in the staging repository."""
        staging = ImageRef(run.to.registry, f"{run.to.repository}-staging")
        return [tag for tag in self.tags(staging) if tag.startswith(run.card.name)]

    def pod_log(self, run: Ended, task: str) -> str:
        """What all containers of a task's pod said."""
        labels = f"workflows.argoproj.io/workflow={run.card.name}"
        if run.card.engine == "tekton":
            labels = f"tekton.dev/pipelineRun={run.card.name},tekton.dev/pipelineTask={task}"
        pods = self.cluster.kubectl("-n", self.namespace, "get", "pods", "-l", labels, "-o", "name").split()
        names = [pod for pod in pods if f"-{task}-" in pod]
        assert names, f"no pod of task {task}"
        return "".join(
            self.cluster.kubectl("-n", self.namespace, "logs", name, "--all-containers") for name in sorted(names)
        )


@contextlib.contextmanager
def site_of(
    cluster: Cluster, registry: LoopbackRegistry, git: GitServer, toolkit: Toolkit, folder: Path
) -> Iterator[Site]:
    """Give a fresh namespace with Pod Security `baseline`; nothing of it is left at the end of the block."""
    name = f"t-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=baseline")
    made = Site(cluster, name, registry, git, toolkit, Cli(folder, folder / "home"))
    try:
        yield made
    finally:
        made.uninstall()
        cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def at_once(*runs: Callable[[], Ended]) -> Sequence[Ended]:
    """Run them at the same time."""
    with ThreadPoolExecutor(len(runs)) as pool:
        return [one.result() for one in [pool.submit(run) for run in runs]]


def described(run: Ended) -> str:
    """For messages of failures: the card, and what was said."""
    return f"{json.dumps(json.loads(run.card.to_json()), indent=1)}\n{run.said}"
