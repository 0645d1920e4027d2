"""Runs of tiny pipelines on both engines, and what is left of them when they are deleted."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from dtkpipe.app.clusters import ENGINES, Place
from dtkpipe.app.compile import Wanted, compile_pipeline
from dtkpipe.app.install import Installation, install, uninstall
from dtkpipe.app.runs_on_cluster import ClusterRuns
from dtkpipe.clients.cluster import Object
from dtkpipe.engines.rendered import Form
from dtkpipe.model import InputRef, Pipeline, Resources, ResultPath, Rights, Secret, Task, container
from dtkpipe.model.check import check
from dtkpipe.model.pipeline import Param
from dtkpipe.values.image import ImageRef
from dtkpipe.values.run import RunCard
from tests.e2e.cluster.target import Cluster

BEGUN = "the program has begun"
_SECONDS = 300
_SMALL = Resources(cpu="10m", memory="16Mi", memory_limit="32Mi", scratch="64Mi")
_TOKEN = Secret(name="api", param="api-secret", files=("token",), optional=False)
_OF_RUNS = (
    "pods", "taskruns", "workflowtaskresults", "workflowtasksets", "leases", "secrets", "configmaps",
    "persistentvolumeclaims", "jobs",
)  # fmt: skip
"""Kinds of objects that a run could leave behind."""


def task(name: str, script: str, *argv: ResultPath | InputRef, image: str, **more: object) -> Task:
    """A task of a shell's; in the script its arguments are $1, $2, ..."""
    return container(
        name, image=image, argv=("sh", "-c", f"echo {BEGUN}; {script}", "--", *argv), rights=Rights(root=True),
        resources=_SMALL, **{"timeout": 240, **more},  # type: ignore[arg-type]
    )  # fmt: skip


def relay(image: str, seconds: int = 0, retries: int = 0) -> Pipeline:
    """One task that takes its time and gives a word, one that gets it, and one for the end."""
    first = task(
        "first", f'sleep {seconds}; printf hello > "$1"', ResultPath("WORD"), image=image, retries=retries,
        results={"WORD": "a word"},
    )  # fmt: skip
    second = task(
        "second", 'printf "$1, too" > "$2"', InputRef("word"), ResultPath("ANSWER"), image=image,
        inputs={"word": first.word}, results={"ANSWER": "an answer"},
    )  # fmt: skip
    return Pipeline("relay", "Three tasks", tasks=(first, second), finally_=(task("last", "true", image=image),))


def needs_secret(image: str, secret: str) -> Pipeline:
    """A task that reads a Secret."""
    named = Param(name=_TOKEN.param, description="Secret with a token", default=secret)
    only = task("only", f"cat /run/secrets/dtkpipe/{_TOKEN.name}/token", image=image, secrets=[_TOKEN], params=[named])
    return Pipeline("secret", "A task with a Secret", tasks=(only,))


@dataclass
class Site:
    """A namespace in which pods of both engines have their accounts."""

    cluster: Cluster
    runner: ImageRef
    namespace: str = field(default_factory=lambda: f"t-faults-{secrets.token_hex(3)}")

    def install(self) -> None:
        for engine in ENGINES.values():
            wanted = Installation(
                engine=engine,
                namespace=self.namespace,
                target=f"{self.namespace}-drivers",
                runner_image=str(self.runner),
            )
            install(Place(self.cluster.client, self.namespace), wanted, print)

    def remove(self) -> None:
        target = f"{self.namespace}-drivers"
        for engine in ENGINES.values():
            uninstall(Place(self.cluster.client, self.namespace), engine, target, print)
        self.cluster.kubectl("delete", "namespace", self.namespace, target, "--wait=false", "--ignore-not-found")

    def runs(self, engine: str) -> ClusterRuns:
        return ClusterRuns(Place(self.cluster.client, self.namespace), ENGINES[engine])


@dataclass
class Runs:
    """The runs of one test."""

    site: Site
    started: list[tuple[str, str]] = field(default_factory=list)
    """Engine and name."""

    def start(self, engine: str, case: str, pipeline: Pipeline, **params: str) -> str:
        """Create a run that carries its whole pipeline; returns its name."""
        check(pipeline)
        name = f"{engine}-{case}"
        wanted = Wanted(
            engine=engine, form=Form.INLINE, params={key.replace("_", "-"): text for key, text in params.items()},
            run_name=name, runner_image=str(self.site.runner),
        )  # fmt: skip
        (made,) = compile_pipeline(pipeline, wanted).objects
        self.site.cluster.client.create(ENGINES[engine].runs, made, self.site.namespace)
        self.started.append((engine, name))
        return name

    def card(self, engine: str, name: str) -> RunCard:
        """How a run goes."""
        found = self.site.runs(engine).card(name)
        assert found is not None
        return found

    def end(self, engine: str, name: str) -> RunCard:
        """Wait for the end of a run."""
        return self.site.runs(engine).wait(name, time.monotonic() + _SECONDS)

    def ends(self, pool: ThreadPoolExecutor, engine: str, name: str) -> Future[RunCard]:
        """Begin to wait for the end of a run."""
        return pool.submit(self.end, engine, name)

    def until_waits(self, engine: str, name: str, cause: str) -> None:
        """Return when the card of a run says what it waits for, or why it failed."""
        seen: Callable[[], bool] = lambda: any(cause in step.cause for step in self.card(engine, name).steps)  # noqa: E731
        self.site.cluster.wait(f"{name}: {cause}", seen, _SECONDS)

    def until_begun(self, engine: str, name: str, task: str) -> str:
        """Return the pod of a task whose program runs."""
        return self.site.cluster.wait(f"{name}: {task} runs", lambda: self._begun(engine, name, task), _SECONDS)

    def _begun(self, engine: str, name: str, task: str) -> str:
        step = next((one for one in self.card(engine, name).steps if one.name == task and one.started), None)
        if step is None:
            return ""
        try:
            said = self.site.cluster.kubectl(
                "-n", self.site.namespace, "logs", step.pod, "-c", container_of(engine, task)
            )
        except RuntimeError:  # its container is being made
            return ""
        return step.pod if BEGUN in said else ""

    def phase(self, pod: str) -> str:
        """Return the phase of a pod."""
        found: Object = self.site.cluster.kubectl.json("-n", self.site.namespace, "get", "pod", pod)
        return str(found["status"]["phase"])

    def delete(self) -> None:
        """Delete all runs as users do, and see that nothing of them is left."""
        for engine, name in self.started:
            there = self.site.runs(engine)
            there.cancel(name)
            self.end(engine, name)
            there.delete(name)
        self.site.cluster.wait("nothing is left of the runs", lambda: not list(self._left()))

    def _left(self) -> Iterator[str]:
        listed = self.site.cluster.kubectl.json("-n", self.site.namespace, "get", ",".join(_OF_RUNS))["items"]
        for one in listed:
            if any(name in json.dumps(one) for _, name in self.started):
                yield f"{one['kind']}/{one['metadata']['name']}"


def container_of(engine: str, task: str) -> str:
    """The container of a pod that runs a task's program."""
    return "main" if engine == "argo" else f"step-{task}"
