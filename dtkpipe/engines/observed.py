"""From what was seen of a run on a cluster to its card: what is the same whatever the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from dtkpipe.engines.pods import Trouble
from dtkpipe.engines.resume import DONE, read
from dtkpipe.values.run import (
    CANCELLED,
    FAILED,
    OUT_OF_TIME,
    PENDING,
    RUNNING,
    SUCCEEDED,
    Attempt,
    RunCard,
    StepRecord,
    told_cause,
)

_PART_OF, _VERSION = "app.kubernetes.io/part-of", "app.kubernetes.io/version"


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A run, as its engine tells it. `message` is the engine's own word for how it ended."""

    name: str
    engine: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    pipeline: str
    inputs: Mapping[str, str]
    created: float
    started: float
    finished: float
    state: str
    message: Trouble
    out_of_time: bool
    steps: tuple[StepRecord, ...]


class Late(Enum):
    """Whose time was up when a task was stopped."""

    NO = ""
    TASK = "did not end within its time"
    RUN = "did not end before the run's time was up"


def blame(results: Mapping[str, str], engine: Trouble, late: Late, *, ran: bool) -> Trouble:
    """Return why a try failed: what it says itself, else what the engine says.

    A program that was stopped because its time was up says nothing that counts. One that never ran waited for what
    the engine says.
    """
    if late is not Late.NO and ran:
        return Trouble(late.value, "give the task more time: timeout=... in the pipeline")
    if late is not Late.NO:
        return Trouble(f"{late.value}: {engine.cause}" if engine else f"{late.value}: it never started", engine.hint)
    own, hint, _ = told_cause(results)
    return Trouble(own, hint) if own else engine


def step_of(
    name: str, *, state: str, queued: float, tries: Sequence[tuple[Attempt, Trouble]], results: Mapping[str, str]
) -> StepRecord:
    """Return the record of a task from its tries and their troubles, and the results of the last one."""
    _, _, rest = told_cause(results)
    last, trouble = tries[-1] if tries else (Attempt(), Trouble())
    return StepRecord(
        name=name,
        state=state,
        queued=queued,
        started=next((one.started for one, _ in tries if one.started), 0),
        finished=last.finished if state not in (PENDING, RUNNING) else 0,
        exit_code=last.exit_code,
        cause=trouble.cause if state in (FAILED, PENDING, CANCELLED) else "",
        hint=trouble.hint if state in (FAILED, PENDING) else "",
        results=rest if state == SUCCEEDED else {key: text for key, text in rest.items() if text},
        pod=last.pod,
        attempts=tuple(attempt for attempt, _ in tries),
    )


def finished_card(seen: Observed) -> RunCard:
    """Return the card of a run: its cause is that of its first failed task, else what the engine says."""
    taken = read(seen.annotations.get(DONE, ""))
    over = tuple(StepRecord(name=task, state=SUCCEEDED, reused=True, results=taken[task]) for task in taken)
    steps = over + (_out_of_time(seen) if seen.out_of_time else seen.steps)
    failed = next((step for step in steps if step.state == FAILED and step.cause), None)
    why = seen.message
    if failed and seen.state == FAILED:
        why = Trouble(f"{failed.name}: {failed.cause}", failed.hint)
    if seen.state not in (PENDING, RUNNING):
        steps = tuple(_over(step) for step in steps)
    return RunCard(
        name=seen.name,
        engine=seen.engine,
        pipeline=seen.labels.get(_PART_OF, "") or seen.pipeline,
        namespace=seen.namespace,
        state=seen.state,
        cause=why.cause if seen.state in (PENDING, FAILED, CANCELLED) else "",
        hint=why.hint if seen.state in (PENDING, FAILED) else "",
        created=seen.created,
        started=seen.started,
        finished=seen.finished if seen.state not in (PENDING, RUNNING) else 0,
        inputs=seen.inputs,
        steps=steps,
        tool=seen.labels.get(_VERSION, "").replace("_", "+"),
    )


def _over(step: StepRecord) -> StepRecord:
    """A task of a run that is over runs no more, whatever its last record says."""
    return replace(step, state=CANCELLED) if step.state == RUNNING else step


def _out_of_time(seen: Observed) -> tuple[StepRecord, ...]:
    """The run's time was up: that is the cause of the task that ran then, or would have been the next."""
    if any(step.state == FAILED for step in seen.steps):
        return seen.steps
    hit = next((step for step in seen.steps if step.state in (RUNNING, CANCELLED)), None) or next(
        (step for step in seen.steps if step.state == PENDING), None
    )
    if hit is None:
        return seen.steps
    late = replace(hit, state=FAILED, exit_code=OUT_OF_TIME, cause=Late.RUN.value)
    return tuple(late if step is hit else step for step in seen.steps)
