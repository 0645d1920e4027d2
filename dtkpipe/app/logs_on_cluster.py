"""The logs of a run's tasks on a cluster: of finished pods, of tries, of containers that prepare, as they grow."""

from __future__ import annotations

import importlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

from dtkpipe.app.runs_on_cluster import ENDED, ClusterRuns
from dtkpipe.clients.cluster import DAEMON_SETS, PODS, Object
from dtkpipe.engines.argo.executor import is_executors
from dtkpipe.engines.pods import containers, trouble
from dtkpipe.errors import DtkpipeError, InvalidError, NotFoundError
from dtkpipe.values.run import Attempt, RunCard, StepRecord

Say = Callable[[str], None]
Line = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ClusterReader:
    """Reads the logs of `tasks`; with `tail`, only so many of the last lines of each that are there already.

    `attempt` is the number of the try, 1 for the first; -1 for the last, -2 for the one before it.
    """

    runs: ClusterRuns
    card: RunCard
    tasks: Sequence[str]
    tail: int = 0
    attempt: int = -1
    say: Say = lambda _: None

    def lines(self) -> Iterator[Line]:
        """Give (task, line) of everything that has been written, task by task.

        What is not there is said. Raises NotFoundError when it was there, and all of it is gone.
        """
        read = gone = 0
        for step in (step for step in self.card.steps if step.name in self.tasks):
            one = self._chosen(step)
            if one is None or not one.pod:
                continue
            pod = self.runs.place.cluster.find(PODS, one.pod, self.runs.place.namespace)
            if pod is None:
                self.say(f"{step.name}: its pod {one.pod} is gone, and its log with it")
                gone += 1
                continue
            read += 1
            yield from self._pod(step.name, pod)
        if gone and not read:
            raise NotFoundError(
                f"the logs of run {self.card.name} are gone", "they go with the pods, and those were deleted",
                hint=f"dtkpipe describe {self.card.address} knows how each task ended",
            )  # fmt: skip

    def follow(self) -> Iterator[Line]:
        """Give (task, line) as they are written, until the run has ended. Raises what `follow` raises."""
        from dtkpipe.app.follow import follow

        if self.card.state in ENDED:
            yield from self.lines()
            return
        news: queue.SimpleQueue[Line | DtkpipeError | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                follow(self.runs, self.card.name, _Lines(self.tasks, news), tail=self.tail)
            except DtkpipeError as error:
                news.put(error)
            news.put(None)

        threading.Thread(target=work, daemon=True).start()
        while (one := news.get()) is not None:
            if isinstance(one, DtkpipeError):
                raise one
            yield one

    @property
    def status(self) -> ModuleType:
        """What knows the engine's pods."""
        return importlib.import_module(f"dtkpipe.engines.{self.runs.engine.name}.status")

    def _chosen(self, step: StepRecord) -> Attempt | None:
        tries = step.attempts
        if not tries:
            self.say(f"{step.name}: has not run")
            return None
        number = self.attempt if self.attempt > 0 else len(tries) + 1 + self.attempt
        if not 1 <= number <= len(tries):
            self.say(f"{step.name}: has no attempt {number}" if number > 0 else f"{step.name}: has no attempt before")
            return None
        if len(tries) > 1:
            self.say(f"{step.name}: attempt {number} of {len(tries)} (--attempt)")
        return tries[number - 1]

    def _pod(self, task: str, pod: Object) -> Iterator[Line]:
        named = containers(pod, self.status.is_own)
        if not named:
            self.say(f"{task}: {trouble(pod).cause or 'its program has not started'}")
        for container in named:
            try:
                name, place = str(pod["metadata"]["name"]), self.runs.place
                for line in place.cluster.logs(place.namespace, name, container, tail=self.tail):
                    if not is_executors(line):
                        yield label(task, container, self.status), line
            except (NotFoundError, InvalidError) as error:
                self.say(f"{task}: {error.what}")


def label(task: str, container: str, status: ModuleType) -> str:
    """Return what a line begins with: the task, and the container where it is not the task's program."""
    return task if container in (getattr(status, "MAIN", ""), f"step-{task}") else f"{task}/{container}"


@dataclass(frozen=True)
class _Lines:
    """Hands on what the tasks say."""

    tasks: Sequence[str]
    queue: queue.SimpleQueue[Line | DtkpipeError | None]

    def changed(self, card: RunCard, task: str) -> None:
        """Task `task` has a new state."""

    def said(self, task: str, line: str) -> None:
        if task in self.tasks:
            self.queue.put((task, line))


@dataclass(frozen=True, kw_only=True)
class DriverReader:
    """Reads what the driver of a run said on a node: the container that loads its modules.

    `previous`: the container before its last restart.
    """

    runs: ClusterRuns
    card: RunCard
    node: str
    tail: int = 0
    previous: bool = False

    def lines(self) -> Iterator[Line]:
        """Give (node, line) of what has been written. Raises NotFoundError."""
        return self._lines(follow=False)

    def follow(self) -> Iterator[Line]:
        """Give (node, line) as they are written, until the pod ends."""
        return self._lines(follow=True)

    def _lines(self, *, follow: bool) -> Iterator[Line]:
        from dtkpipe.steps.deploy.daemonset import CONTAINER

        pod = self._pod()
        said = self.runs.place.cluster.logs(
            str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"]), CONTAINER, follow=follow, tail=self.tail,
            previous=self.previous,
        )  # fmt: skip
        return ((self.node, line) for line in said)

    def _pod(self) -> Object:
        from dtkpipe.steps.deploy.daemonset import DRIVER_LABEL

        namespace, workload = self._workload()
        labels, fields = f"{DRIVER_LABEL}={workload}", f"spec.nodeName={self.node}"
        pods = self.runs.place.cluster.list(PODS, namespace, labels=labels, fields=fields)
        if not pods:
            others = self.runs.place.cluster.list(PODS, namespace, labels=labels)
            nodes = sorted({str((pod.get("spec") or {}).get("nodeName") or "") for pod in others} - {""})
            raise NotFoundError(
                f"node `{self.node}` has no pod of daemonset {namespace}/{workload}",
                f"nodes that have one: {', '.join(nodes) or 'none'}", hint="dtkpipe status",
            )  # fmt: skip
        return pods[-1]

    def _workload(self) -> tuple[str, str]:
        """Return namespace and name of the DaemonSet that the run rolled out."""
        from dtkpipe.steps.deploy.daemonset import RUN

        namespace = self.card.inputs.get("target-namespace", "")
        if name := self.card.result("deploy", "WORKLOAD").removeprefix("daemonset/"):
            return namespace, name
        for one in self.runs.place.cluster.list(DAEMON_SETS, namespace) if namespace else ():
            if (one["metadata"].get("annotations") or {}).get(RUN) == self.card.name:
                return namespace, str(one["metadata"]["name"])
        raise NotFoundError(
            f"run {self.card.name} has rolled nothing out", hint=f"dtkpipe describe {self.card.address}"
        )
