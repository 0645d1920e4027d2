"""Runs a pipeline on this machine: the same graph and the same step programs as on a cluster, as processes.

What a task gets from a cluster it gets here in another form: results are files of the run's folder, a Secret is the
user's own file, the pod is a process with a folder of its own.
"""

from __future__ import annotations

import dataclasses
import queue
import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dtkpipe.engines.local.binding import Results, Values
from dtkpipe.engines.local.folder import Record, RunFolder, remove
from dtkpipe.engines.local.launch import Launcher
from dtkpipe.engines.local.plan import Plan, behind, in_order
from dtkpipe.engines.local.worker import Attempt, Ended, Line, uninterrupted
from dtkpipe.errors import DtkpipeError, UnreachableError, UsageError, how_ended
from dtkpipe.model.pipeline import Pipeline, Task
from dtkpipe.values.run import (
    CANCELLED,
    FAILED,
    OUT_OF_TIME,
    PENDING,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    RunCard,
    StepRecord,
    told_cause,
)

RESULT_LIMIT = 4096
"""Bytes that all results of a task may have together: Tekton's limit, so that what runs here runs there."""
PATIENCE = 10.0
"""Seconds that a task has to end after it was asked to."""
CLEANUP = 60.0
"""Seconds that the finally tasks of an interrupted run have."""
_STATUS = {SUCCEEDED: "Succeeded", FAILED: "Failed", SKIPPED: "Skipped", CANCELLED: "Cancelled"}


class Watcher(Protocol):
    """Who is told what happens, in the thread that runs the pipeline."""

    def changed(self, card: RunCard, task: str) -> None:
        """Task `task` has a new state."""

    def said(self, task: str, line: str) -> None:
        """A task wrote a line."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to run, and with what."""

    pipeline: Pipeline
    params: Mapping[str, str]
    """Parameters of the pipeline; one that is missing has its default."""
    folder: RunFolder
    cache: Path
    version: str
    """Of dtkpipe: what another version made is not reused."""
    alive: Callable[[str, str], bool]
    """Tells whether an image (repository, digest) is still there."""
    secrets: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    """Secret -> key -> file of the user's."""
    from_step: str = ""
    """Run this task and all behind it, whatever was before."""
    force: bool = False
    """Run every task, whatever was before."""
    always: AbstractSet[str] = frozenset()
    """Tasks whose answer may change by itself: they run each time."""
    skip: AbstractSet[str] = frozenset()
    """Tasks that shall not run, and with them what needs them."""
    keep: bool = False
    """Keep the working folders."""


def execute(order: Order, watcher: Watcher) -> RunCard:
    """Run the pipeline to its end and return the run card, whatever the end. The caller holds the folder's lock.

    On KeyboardInterrupt the running tasks are stopped, the finally tasks run, and the card says `cancelled`.
    Raises UsageError when `from_step` is no task.
    """
    names = [task.name for task in order.pipeline.tasks]
    if order.from_step and order.from_step not in names:
        raise UsageError(f"there is no task `{order.from_step}` to start from", f"tasks: {', '.join(names)}")
    return _Run(order, watcher).execute()


class _Run:
    def __init__(self, order: Order, watcher: Watcher) -> None:
        self.order, self.watcher = order, watcher
        self.launch = Launcher(order.folder, order.cache, order.version, order.secrets)
        self.params = {param.name: param.default or "" for param in order.pipeline.params} | dict(order.params)
        self.tasks = {task.name: task for task in order.pipeline.all_tasks}
        self.records = {name: record for name in self.tasks if (record := order.folder.task(name).record())}
        self.steps = {
            name: StepRecord(name=name, log=str(order.folder.task(name).log)) for name in self.tasks
        }  # fmt: skip
        self.created = time.time()
        self.interrupted = False
        self.worked = False
        self.done: dict[str, Results] = {}
        self.running: dict[str, Attempt] = {}
        self.tries: dict[str, int] = {}
        self.deadlines: dict[str, float] = {}
        self.overdue: set[str] = set()
        self.events: queue.SimpleQueue[Line | Ended] = queue.SimpleQueue()
        self.seen: dict[tuple[str, str], bool] = {}
        off = {name for skipped in order.skip for name in behind(order.pipeline.tasks, skipped)}
        self.wanted = [task for task in order.pipeline.tasks if task.name not in off]

    def execute(self) -> RunCard:
        for task in self.order.pipeline.tasks:
            if task not in self.wanted:
                self._change(task.name, state=SKIPPED)
        self._save(RUNNING)
        self._interruptible(self._main)
        self._interruptible(self._finally)
        failed = next((step for step in self.steps.values() if step.state == FAILED), None)
        if self.interrupted:
            return self._save(CANCELLED, "interrupted")
        return self._save(FAILED, f"{failed.name}: {failed.cause}") if failed else self._save(SUCCEEDED)

    def _interruptible(self, work: Callable[[], None]) -> None:
        try:
            work()
        except KeyboardInterrupt:
            self.interrupted = True
            self._stop()

    # The tasks

    def _main(self) -> None:
        forced = set(self.order.always)
        if self.order.force:
            forced |= set(self.tasks)
        elif self.order.from_step:
            forced |= behind(self.wanted, self.order.from_step)
        plan = Plan(tasks=self.wanted, records=self.records, key=self._key, alive=self._alive, forced=forced)
        while self._advance(plan) or self.running:
            self._next_event()

    def _advance(self, plan: Plan) -> bool:
        """Start every task that can start, and settle those that need not; after a failure nothing starts any more."""
        if any(step.state == FAILED for step in self.steps.values()):
            return False
        stale = plan.stale(self.done)
        unsettled: set[str] = set()
        started = False
        for task in in_order(self.wanted):
            if set(task.needs) & (stale | unsettled):
                unsettled.add(task.name)
            elif task.name in stale and task.name not in self.running:
                started |= self._start(task)
            elif task.name not in stale and self.steps[task.name].state == PENDING:
                self._reuse(task.name)
        return started

    def _finally(self) -> None:
        """Run what comes after the tasks. When all of them were reused, and these ran then, there is nothing to do."""
        reused = not self.interrupted and not self.worked
        limit = time.monotonic() + CLEANUP
        for task in self.order.pipeline.finally_:
            record = self.records.get(task.name)
            if task.name in self.order.skip:
                self._change(task.name, state=SKIPPED, cause="left out on request")
            elif reused and record and record.key == self._key(task, self._results()):
                self._reuse(task.name)
            else:
                self._start(task, last=True)
                if self.interrupted and task.name in self.running:
                    self.deadlines[task.name] = min(limit, self.deadlines[task.name])
        while self.running:
            self._next_event()

    # One task

    def _start(self, task: Task, *, last: bool = False) -> bool:
        """Start the task; tell whether it could be started."""
        name = task.name
        tries = self.tries[name] = self.tries.get(name, 0) + 1
        try:
            if not last and name not in self.order.always:
                self._at_work()
            if tries == 1:
                self._change(name, state=RUNNING, started=time.time(), reused=False)
            with uninterrupted():
                self.running[name] = self.launch.start(task, self._values(), self.events.put, again=tries > 1)
        except DtkpipeError as error:
            missing = last and name not in self.running and not self._complete()
            self._change(
                name, state=SKIPPED if missing else FAILED, finished=time.time(), cause=error.what,
                exit_code=error.exit_code,
            )  # fmt: skip
            return False
        self.deadlines[name] = time.monotonic() + task.timeout
        return True

    def _at_work(self) -> None:
        """What follows the tasks has to run again from now on, also when we are killed before it does."""
        if not self.worked:
            self.worked = True
            for task in self.order.pipeline.finally_:
                self.order.folder.task(task.name).unlearn()

    def _complete(self) -> bool:
        return all(self.steps[task.name].state == SUCCEEDED for task in self.wanted)

    def _reuse(self, name: str) -> None:
        record = self.records[name]
        self._change(
            name, state=SUCCEEDED, reused=True, results=dict(record.results), started=record.started,
            finished=record.finished, exit_code=0,
        )  # fmt: skip

    def _next_event(self) -> None:
        left = min(self.deadlines.values(), default=float("inf")) - time.monotonic()
        try:
            event = self.events.get(timeout=max(0.0, left) if left < float("inf") else None)
        except queue.Empty:
            self._out_of_time()
            return
        if isinstance(event, Line):
            self.watcher.said(event.task, event.text)
        elif event.task in self.running:
            self._ended(event)

    def _out_of_time(self) -> None:
        now = time.monotonic()
        for name in [name for name, deadline in self.deadlines.items() if deadline <= now]:
            self.running[name].end(now=name in self.overdue)
            self.overdue.add(name)
            self.deadlines[name] = now + PATIENCE

    def _ended(self, event: Ended) -> None:
        name, task, folder = event.task, self.tasks[event.task], self.order.folder.task(event.task)
        del self.running[name], self.deadlines[name]
        code = event.returncode
        said = event.error if event.error and code >= 0 else (how_ended(code), *event.error)  # killed, it is dumb
        cause = said[0]
        again = code == UnreachableError.exit_code and self.tries[name] <= task.retries and not self.interrupted
        if again and name not in self.overdue:
            self.watcher.said(name, f"again, {self.tries[name]} of {task.retries}: {cause}")
            self._start(task)
            return
        results: dict[str, str] = {}
        try:
            results = folder.read_results()
            if sum(len(text.encode()) for text in results.values()) > RESULT_LIMIT:
                code, cause = 6, f"its results are larger than {RESULT_LIMIT} bytes"
        except DtkpipeError as error:
            code, cause = error.exit_code, error.what
        own, hint, results = told_cause(results)
        if name in self.overdue:
            code, cause, hint = OUT_OF_TIME, f"did not end within {task.timeout} s", ""
        elif own:
            cause = own
        finished = time.time()
        if code == 0:
            self.done[name] = results
            key = self._key(task, self._results())
            folder.remember(Record(key=key, results=results, started=self.steps[name].started, finished=finished))
            cause = hint = ""
        else:
            folder.blame([cause, *said[1:]])
        if not self.order.keep:
            folder.tidy()
        state = SUCCEEDED if code == 0 else FAILED
        self._change(name, state=state, finished=finished, exit_code=code, cause=cause, hint=hint, results=results)

    def _stop(self) -> None:
        """End what runs: politely, then not. A second interrupt is the end of patience."""
        limit = time.monotonic() + PATIENCE
        for attempt in self.running.values():
            attempt.end()
        while self.running:
            try:
                event = self.events.get(timeout=max(0.0, limit - time.monotonic()))
            except (queue.Empty, KeyboardInterrupt):
                limit = time.monotonic() + PATIENCE
                for attempt in self.running.values():
                    attempt.end(now=True)
                continue
            if isinstance(event, Ended) and event.task in self.running:
                del self.running[event.task]
                self._change(event.task, state=CANCELLED, finished=time.time(), exit_code=event.returncode)
                if not self.order.keep:
                    remove(self.order.folder.task(event.task).work)
        self.deadlines.clear()

    # What is known

    def _results(self) -> dict[str, Results]:
        return {name: step.results for name, step in self.steps.items() if step.state == SUCCEEDED} | self.done

    def _values(self, results: Mapping[str, Results] | None = None) -> Values:
        return Values(
            params=self.params,
            run_name=self.order.folder.name,
            results=self._results() if results is None else results,
            statuses={name: _STATUS.get(step.state, "None") for name, step in self.steps.items()},
        )

    def _key(self, task: Task, results: Mapping[str, Results]) -> str:
        return self.launch.key(task, self._values(results))

    def _alive(self, record: Record) -> bool:
        return all(self._image_is_there(url, digest) for url, digest in images(record.results))

    def _image_is_there(self, url: str, digest: str) -> bool:
        if (url, digest) not in self.seen:
            self.seen[url, digest] = self.order.alive(url, digest)
        return self.seen[url, digest]

    def _change(self, name: str, **fields: Any) -> None:
        self.steps[name] = dataclasses.replace(self.steps[name], **fields)
        self.watcher.changed(self._save(RUNNING), name)

    def _save(self, state: str, cause: str = "") -> RunCard:
        card = RunCard(
            name=self.order.folder.name, engine="local", pipeline=self.order.pipeline.name, state=state, cause=cause,
            created=self.created, finished=0 if state == RUNNING else time.time(), inputs=self.params,
            steps=tuple(self.steps.values()), tool=self.order.version,
        )  # fmt: skip
        self.order.folder.save(card)
        return card


def images(results: Results) -> Iterable[tuple[str, str]]:
    """Return the images (repository, digest) among a task's results: pairs that are called X_URL and X_DIGEST."""
    for name, digest in results.items():
        stem = name.removesuffix("_DIGEST")
        if stem != name and digest and results.get(f"{stem}_URL"):
            yield results[f"{stem}_URL"], digest
