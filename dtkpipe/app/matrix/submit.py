"""Build what is stale: a run for each cell, a few at a time, each of which stops no other.

Nothing is remembered but in the registry. Who gets the turn for a cell asks the registry again first, so that what
another planner built, or failed to, is not done twice. How a cell is run is the engine's: here.py, there.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Protocol

from dtkpipe import __version__
from dtkpipe.app.matrix.inputs import is_signed_only
from dtkpipe.app.matrix.one_cell import PATIENCE, who
from dtkpipe.app.matrix.outcome import Ended, Outcome, Result, cancelled
from dtkpipe.app.matrix.plan import Asked, Place, Request, judged_again
from dtkpipe.errors import DtkpipeError, how_ended
from dtkpipe.matrix.failure import Failure, read, record
from dtkpipe.matrix.fingerprint import INFRASTRUCTURE, OTHER, Fingerprint, fingerprint
from dtkpipe.matrix.plan import Known, Planned, key_of
from dtkpipe.matrix.turns import in_turns
from dtkpipe.values.cell import State
from dtkpipe.values.image import ImageRef
from dtkpipe.values.key import KeyTag
from dtkpipe.values.run import RunCard

_LINES = 20
Run = Callable[[Planned], Ended]


class Runner(Protocol):
    """How cells are run. Called from several threads at once."""

    def turn(self, one: Planned, known: Known, *, patient: bool) -> AbstractContextManager[Run | None]:
        """Give what runs a cell, asked before the registry is; None: another planner is at work on it.

        `patient`: wait until that one is done with it. Raises DtkpipeError for a cell that cannot be run.
        """

    def stop(self, *, hard: bool) -> None:
        """Let all `turn` and runs come to their end soon; `hard`: at once. New ones end as they begin."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How many cells are run at a time, and which."""

    jobs: int
    retry_failed: bool = False


def submit(
    asked: Asked, cells: Sequence[Planned], request: Request, at: Place, runner: Runner, manner: Manner, today: date,
    tell: Callable[[Outcome], None],
) -> list[Outcome]:  # fmt: skip
    """Bring every cell to its end. `tell` is called in this thread as each one ends.

    On KeyboardInterrupt the runner is stopped, and what did not end is `cancelled`, or `running` without us.
    """
    work = _Work(asked=asked, request=request, at=at, runner=runner, manner=manner, today=today)
    outcomes: list[Outcome] = []

    def ended(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    todo: list[Planned] = []
    for one in cells:
        if is_to_run(one, manner):
            todo.append(one)
        else:
            ended(work.settled(one))
    work.all(in_turns(todo), ended)
    return outcomes


def is_to_run(one: Planned, manner: Manner) -> bool:
    """Whether there is something to do for a cell."""
    return one.state.stale or (one.state is State.FAILED_BEFORE and manner.retry_failed)


@dataclass
class _Work:
    asked: Asked
    request: Request
    at: Place
    runner: Runner
    manner: Manner
    today: date
    started: float = field(default_factory=time.time)
    stopping: threading.Event = field(default_factory=threading.Event)

    def all(self, cells: Sequence[Planned], ended: Callable[[Outcome], None]) -> None:
        """Run the cells; those that another planner is at work on come last, when it is done with them."""
        pool = ThreadPoolExecutor(self.manner.jobs)
        left = {pool.submit(self._cell, one, patient=False): one for one in cells}
        try:
            while left:
                done, _ = wait(left, return_when=FIRST_COMPLETED)
                for future in done:
                    one = left.pop(future)
                    outcome = self._end_of(future, one)
                    if outcome:
                        ended(outcome)
                    else:
                        left[pool.submit(self._cell, one, patient=True)] = one
        except KeyboardInterrupt:
            self._stop(left)
            for future, one in left.items():
                ended((future.done() and self._end_of(future, one)) or cancelled(one))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _end_of(self, future: Future[Outcome | None], one: Planned) -> Outcome | None:
        if future.cancelled():
            return cancelled(one)
        try:
            return future.result()
        except (DtkpipeError, OSError) as error:
            what = error.what if isinstance(error, DtkpipeError) else str(error)
            return Outcome(cell=one, result=Result.FAILED, cause=Fingerprint(INFRASTRUCTURE, what), said=what)

    def _stop(self, left: Mapping[Future[Outcome | None], Planned]) -> None:
        """End what runs: politely, then not. A second interrupt is the end of patience."""
        self.stopping.set()
        for future in left:
            future.cancel()
        self.runner.stop(hard=False)
        with suppress(KeyboardInterrupt):
            wait([future for future in left if not future.cancelled()], timeout=PATIENCE)
        self.runner.stop(hard=True)
        wait([future for future in left if not future.cancelled()], timeout=PATIENCE)

    # One cell

    def settled(self, one: Planned) -> Outcome:
        """Return the outcome of a cell for which there is nothing to run."""
        if one.state is State.CURRENT:
            return Outcome(cell=one, result=Result.REUSED, said=one.reason)
        if one.state is State.QUARANTINED:
            return Outcome(cell=one, result=Result.QUARANTINED, said=f"until {one.until}: {one.reason}")
        if one.state is State.FAILED_BEFORE:
            try:
                before = read(self.at.registry, ImageRef.parse(one.image))
            except DtkpipeError as error:
                return Outcome(cell=one, result=Result.FAILED, said=f"{one.reason}; why cannot be read: {error.what}")
            said = f"{one.reason}: {before.lines[0] if before.lines else before.cause}"
            return Outcome(cell=one, result=Result.FAILED, cause=before.fingerprint, said=said, run=before.run)
        return Outcome(cell=one, result=Result.UNKNOWN, said=one.reason)

    def _cell(self, one: Planned, *, patient: bool) -> Outcome | None:
        """Build one cell. None: another planner is at work on it."""
        known = next(known for known in self.asked.known if known.module.name == one.module)
        if self.stopping.is_set():
            return cancelled(one)
        with self.runner.turn(one, known, patient=patient) as run:
            if run is None:
                return cancelled(one) if self.stopping.is_set() else None
            now = judged_again(one, known, self.at, self.request, self.today)
            if not now.state.stale and not (now.state is State.FAILED_BEFORE and self._is_wanted_again(now)):
                return self.settled(now)
            if self.stopping.is_set():
                return cancelled(one)
            return self._outcome(now, known, run(now))

    def _is_wanted_again(self, one: Planned) -> bool:
        """Whether its failure is older than we are, and failures are to be tried again."""
        tag = KeyTag.parse(ImageRef.parse(one.image).tag)
        return self.manner.retry_failed and tag is not None and tag.failed_at < self.started

    def _outcome(self, one: Planned, known: Known, ended: Ended) -> Outcome:
        card, run = ended.card, ended.card.name if ended.card else ""
        if ended.goes_on:
            said = "interrupted, its run goes on"
            return Outcome(cell=one, result=Result.RUNNING, said=said, run=run, seconds=ended.seconds)
        if ended.code == 0 and card and not self._is_as_planned(one, known, card):
            said = "published, but under another key: its source changed meanwhile, or its image is for something else"
            cause = Fingerprint(OTHER, said)
            return Outcome(cell=one, result=Result.FAILED, cause=cause, said=said, run=run, seconds=ended.seconds)
        if ended.code == 0 and card:
            steps = [step for step in card.steps if step.name != "resolve" and step.exit_code == 0]
            done = Result.SIGNED if is_signed_only(one, self.request) else Result.BUILT
            result = Result.REUSED if steps and all(step.reused for step in steps) else done
            return Outcome(cell=one, result=result, run=run, seconds=ended.seconds)
        if self.stopping.is_set():
            return replace(cancelled(one), run=run, seconds=ended.seconds)
        failure = _failure(one, known, ended)
        said = failure.lines[0]
        try:
            self._record(one, known, ended, failure)
        except DtkpipeError as error:
            said += f"; it could not be recorded: {error.what}"
        return Outcome(
            cell=one, result=Result.FAILED, cause=failure.fingerprint, said=said, run=run, seconds=ended.seconds
        )

    def _is_as_planned(self, one: Planned, known: Known, card: RunCard) -> bool:
        """Whether the next plan will find the cell current. A pipeline without `publish` is not asked."""
        toolkit = card.result("resolve", "TOOLKIT_DIGEST")
        key = key_of(known, one.target, toolkit) if toolkit else one.key
        tags = card.result("publish", "TAGS").split()
        return not tags or key is None or str(KeyTag(key, self.request.signer)) in tags

    def _record(self, one: Planned, known: Known, ended: Ended, failure: Failure) -> None:
        """Keep a failure that would come again. Raises what the registry raises."""
        toolkit = ended.card.result("resolve", "TOOLKIT_DIGEST") if ended.card else ""
        key = key_of(known, one.target, toolkit) if toolkit else one.key
        if failure.kind == INFRASTRUCTURE or key is None:
            return
        tag = KeyTag(key, self.request.signer, failure.when)
        record(self.at.registry, known.repo.tagged(str(tag)), failure, ended.log)


def _failure(one: Planned, known: Known, ended: Ended) -> Failure:
    card, step = ended.card, ended.failed_step
    lines = [line for line in ended.lines if line.strip()] or [how_ended(ended.code)]
    found = fingerprint(ended.code, lines, {one.module, *known.module.spec.names})
    return Failure(
        module=one.module, kernel=one.target.kernel.release, arch=one.target.arch.name,
        step=step.name if step else "submit", kind=found.kind, cause=found.text, lines=tuple(lines[:_LINES]),
        run=card.name if card else "", by=who(), when=int(ended.when or time.time()), tool=__version__,
    )  # fmt: skip
