"""Following a run on a cluster to its end: its state as it changes, and what its tasks write.

Several things are watched at once, each in a thread of its own that goes on over what can break (see
`dtkpipe.clients.cluster`); one queue brings all they see into the order in which it is shown.
"""

from __future__ import annotations

import contextlib
import importlib
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

from dtkpipe.app.runs_on_cluster import ENDED, ClusterRuns
from dtkpipe.clients.cluster import PODS, Object, Resource
from dtkpipe.engines.argo.executor import is_executors
from dtkpipe.engines.pods import containers, started_before
from dtkpipe.errors import DtkpipeError, InvalidError, NotAllowedError, NotFoundError, RunUnknownError, UnreachableError
from dtkpipe.values.run import PENDING, RUNNING, RunCard, StepRecord

_DRAIN = 5.0
"""Seconds to wait for the last lines of a task that has ended."""
_SETTLE = 0.05
"""Seconds in which changes that come together are shown together."""


class Watcher(Protocol):
    """Is told what happens. Called from one thread at a time, but for `said`."""

    def changed(self, card: RunCard, task: str) -> None:
        """Task `task` has a new state."""

    def said(self, task: str, line: str) -> None:
        """A task wrote a line."""


@dataclass(frozen=True)
class _Seen:
    """What a watch saw: an object of `resource`, or the error that ended the watch."""

    resource: Resource
    kind: str = ""
    one: Object = field(default_factory=dict)
    error: DtkpipeError | None = None


def follow(
    runs: ClusterRuns, name: str, watcher: Watcher, until: float | None = None, *, tail: int = 0
) -> RunCard:  # fmt: skip
    """Follow a run until it has ended, and return its card.

    `until` is of time.monotonic(); `tail`: only so many of the last lines of what is there already. Raises
    NotFoundError for a run that is not there, RunUnknownError when somebody deletes it or the time is over (the run
    goes on), NotAllowedError, UnreachableError.
    """
    runs.place.cluster.be_patient()
    return _Follower(runs, name, watcher, until, tail).card(runs.find(name))


class _Follower:
    def __init__(self, runs: ClusterRuns, name: str, watcher: Watcher, until: float | None, tail: int) -> None:
        self.runs, self.place, self.engine = runs, runs.place, runs.engine
        self.name, self.watcher, self.until, self.tail = name, watcher, until, tail
        self.begun = time.time()
        self.is_own = importlib.import_module(f"dtkpipe.engines.{runs.engine.name}.status").is_own
        self.seen: queue.Queue[_Seen] = queue.Queue()
        self.parts: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.logs: dict[tuple[str, str], threading.Thread] = {}
        """Threads that read logs, by pod and container."""
        self.shown: dict[str, StepRecord] = {}

    def card(self, run: Object) -> RunCard:
        self.run = run
        self._start(self.engine.runs, name=self.name)
        for resource in filter(None, (PODS, self.engine.parts)):
            self._start(resource, labels=self.engine.selector(self.name))
        while True:
            self._take()
            card = self.engine.card(self.run, list(self.parts.values()), list(self.pods.values()))
            if card.state in ENDED:  # the run's end may be seen before that of its parts
                card = self.runs.whole(self.run)
                self.pods |= self._pods()
            self._show(card)
            if card.state in ENDED:
                return card

    def _pods(self) -> dict[str, Object]:
        with contextlib.suppress(NotAllowedError):
            found = self.place.cluster.list(PODS, self.place.namespace, labels=self.engine.selector(self.name))
            return {str(pod["metadata"]["uid"]): pod for pod in found}
        return {}

    def _take(self) -> None:
        """Wait for news, and take all there is. Raises what ended the watch of the run itself."""
        left = None if self.until is None else max(0.0, self.until - time.monotonic())
        try:
            news = [self.seen.get(timeout=left)]
        except queue.Empty:
            raise RunUnknownError(
                f"run {self.name} is still at work, and the time to wait for it is over", "it goes on",
                hint=f"dtkpipe wait {self.name}",
            ) from None  # fmt: skip
        time.sleep(_SETTLE)
        with contextlib.suppress(queue.Empty):
            while True:
                news.append(self.seen.get_nowait())
        for one in news:
            self._note(one)

    def _note(self, seen: _Seen) -> None:
        if seen.error:
            if seen.resource == self.engine.runs or not isinstance(seen.error, NotAllowedError):
                raise seen.error
            return  # who may see the run, but not its pods, sees less
        uid = str(seen.one["metadata"]["uid"])
        if seen.resource == self.engine.runs:
            if seen.kind == "DELETED" or uid != self.run["metadata"]["uid"]:
                raise RunUnknownError(f"run {self.name} was deleted while it was followed", hint="dtkpipe list")
            self.run = seen.one
            return
        known = self.pods if seen.resource == PODS else self.parts
        if seen.kind == "DELETED" and seen.resource == PODS:
            known.pop(uid, None)
        else:
            known[uid] = seen.one

    def _start(self, resource: Resource, *, name: str = "", labels: str = "") -> None:
        def work() -> None:
            try:
                for kind, one in self.place.cluster.watch(
                    resource, self.place.namespace, name=name, labels=labels, until=self.until
                ):
                    self.seen.put(_Seen(resource, kind, one))
            except DtkpipeError as error:
                self.seen.put(_Seen(resource, error=error))

        threading.Thread(target=work, daemon=True).start()

    def _show(self, card: RunCard) -> None:
        self._read_logs(card)
        for step in card.steps:
            before = self.shown.get(step.name)
            if before and (before.state, before.cause) == (step.state, step.cause):
                continue
            if not before and step.state == PENDING and not step.cause:
                continue
            if step.state not in (PENDING, RUNNING):
                self._drain(step)
            self.shown[step.name] = step
            self.watcher.changed(card, step.name)
        if not self.shown and card.steps:
            self.watcher.changed(card, card.steps[0].name)

    def _read_logs(self, card: RunCard) -> None:
        """Begin to read each container of ours that runs or has run since we look."""
        named = {pod["metadata"]["name"]: pod for pod in self.pods.values()}
        for step in card.steps:
            pod = named.get(step.pod)
            if not pod:
                continue
            for container in containers(pod, self.is_own):
                key = (step.pod, container)
                if key not in self.logs:
                    tail = self.tail if started_before(pod, container, self.begun) else 0
                    self.logs[key] = threading.Thread(target=self._read, args=(step.name, *key, tail), daemon=True)
                    self.logs[key].start()

    def _read(self, task: str, pod: str, container: str, tail: int) -> None:
        # A pod that is gone has no log; what its task did is on the card all the same.
        with contextlib.suppress(NotFoundError, InvalidError, NotAllowedError, UnreachableError):
            for line in self.place.cluster.logs(self.place.namespace, pod, container, follow=True, tail=tail):
                if not is_executors(line):
                    self.watcher.said(task, line)

    def _drain(self, step: StepRecord) -> None:
        end = time.monotonic() + _DRAIN
        for (pod, _), thread in self.logs.items():
            if pod == step.pod:
                thread.join(max(0.0, end - time.monotonic()))
