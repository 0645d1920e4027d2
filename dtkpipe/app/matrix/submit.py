"""Build what is stale: a run for each cell, a few at a time, each a process of its own that stops no other.

Nothing is remembered but in the registry. A lock on this machine keeps two planners from the same cell; whoever gets it
asks the registry again first, so that what another one built, or failed to, is not done twice.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any

from dtkpipe import __version__
from dtkpipe.app.matrix.one_cell import PATIENCE, card_of, end_of, error_in, held, limited, who
from dtkpipe.app.matrix.plan import Asked, Place, Request, judged_again
from dtkpipe.app.runs import Runs
from dtkpipe.errors import DtkpipeError, RunUnknownError
from dtkpipe.matrix.failure import Failure, read, record
from dtkpipe.matrix.fingerprint import INFRASTRUCTURE, OTHER, Fingerprint, fingerprint
from dtkpipe.matrix.plan import Known, Planned, key_of
from dtkpipe.matrix.turns import in_turns
from dtkpipe.releases.images import CONTENT
from dtkpipe.resources import shipped
from dtkpipe.tools import process
from dtkpipe.values.cell import State
from dtkpipe.values.image import ImageRef
from dtkpipe.values.key import UNSIGNED, KeyTag, cell_hash
from dtkpipe.values.run import FAILED as STEP_FAILED
from dtkpipe.values.run import RunCard
from dtkpipe.values.source import GIT

_LINES = 20


class Result(StrEnum):
    """How a cell ended."""

    BUILT = "built"
    SIGNED = "signed"
    """Signed again, and not built."""
    REUSED = "reused"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A cell and how it ended."""

    cell: Planned
    result: Result
    cause: Fingerprint | None = None
    said: str = ""
    """Why, in the words of the step, or of the plan."""
    run: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How cells are run."""

    here: Path
    state: Path
    jobs: int
    timeout: int
    """Seconds that one cell may take."""
    options: Sequence[str] = ()
    """More words for each `dtkpipe submit`: how registries are spoken to, and the signing key."""
    retry_failed: bool = False
    pipeline: str = "prebuild"


def submit(
    asked: Asked, cells: Sequence[Planned], request: Request, at: Place, manner: Manner, today: date,
    tell: Callable[[Outcome], None],
) -> list[Outcome]:  # fmt: skip
    """Bring every cell to its end. `tell` is called in this thread as each one ends.

    On KeyboardInterrupt the runs at work are asked to end, and what was not built is `cancelled`.
    """
    work = _Work(asked=asked, request=request, at=at, manner=manner, today=today)
    outcomes: list[Outcome] = []

    def ended(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    todo: list[Planned] = []
    for one in cells:
        if one.state.stale or (one.state is State.FAILED_BEFORE and manner.retry_failed):
            todo.append(one)
        else:
            ended(work.settled(one))
    work.all(in_turns(todo), ended)
    return outcomes


@dataclass
class _Work:
    asked: Asked
    request: Request
    at: Place
    manner: Manner
    today: date
    started: float = field(default_factory=time.time)
    stopping: threading.Event = field(default_factory=threading.Event)
    running: set[process.Process] = field(default_factory=set)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def all(self, cells: Sequence[Planned], ended: Callable[[Outcome], None]) -> None:
        """Run the cells; those that another planner is at work on come last, when it is done with them."""
        pool = ThreadPoolExecutor(self.manner.jobs)
        left = {pool.submit(self._cell, one, patient=False): one for one in cells}
        try:
            while left:
                done, _ = wait(left, return_when=FIRST_COMPLETED)
                for future in done:
                    one = left.pop(future)
                    outcome = self._outcome(future, one)
                    if outcome:
                        ended(outcome)
                    else:
                        left[pool.submit(self._cell, one, patient=True)] = one
        except KeyboardInterrupt:
            self._stop(left)
            for future, one in left.items():
                ended((future.done() and self._outcome(future, one)) or _cancelled(one))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _outcome(self, future: Future[Outcome | None], one: Planned) -> Outcome | None:
        if future.cancelled():
            return _cancelled(one)
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
        self._signal(signal.SIGTERM)
        with suppress(KeyboardInterrupt):
            wait([future for future in left if not future.cancelled()], timeout=PATIENCE)
        self._signal(signal.SIGKILL)
        wait([future for future in left if not future.cancelled()], timeout=PATIENCE)

    def _signal(self, number: int) -> None:
        with self.guard:
            for one in self.running:
                process.signal_group(one, number)

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
        lock = self.manner.state / "matrix" / f"{cell_hash(one.module, one.target.kernel, one.target.arch)}.lock"
        if self.stopping.is_set():
            return _cancelled(one)
        if patient:
            self._wait_for(lock)
        with held(lock) as mine:
            if not mine:
                return _cancelled(one) if self.stopping.is_set() else None
            now = judged_again(one, known, self.at, self.request, self.today)
            if not now.state.stale and not (now.state is State.FAILED_BEFORE and self._is_wanted_again(now)):
                return self.settled(now)
            if self.stopping.is_set():
                return _cancelled(one)
            return self._run(now, known)

    def _is_wanted_again(self, one: Planned) -> bool:
        """Whether its failure is older than we are, and failures are to be tried again."""
        tag = KeyTag.parse(ImageRef.parse(one.image).tag)
        return self.manner.retry_failed and tag is not None and tag.failed_at < self.started

    def _wait_for(self, lock: Path) -> None:
        """Wait until nobody holds the lock; a process does, because a thread that waits cannot be stopped."""
        with self._process(["flock", "--shared", lock, "true"]) as waiting:
            waiting.wait()

    @contextmanager
    def _process(self, argv: process.Argv, **more: Any) -> Iterator[process.Process]:
        started = process.start(argv, own_group=True, **more)
        with self.guard:
            self.running.add(started)
        try:
            if self.stopping.is_set():
                process.signal_group(started, signal.SIGTERM)
            yield started
        finally:
            with self.guard:
                self.running.discard(started)

    def _run(self, one: Planned, known: Known) -> Outcome:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="dtkpipe-matrix-") as name:
            folder = Path(name)
            (folder / "spec.json").write_text(replace(known.module.spec, exclusions=()).to_json())
            out, err = folder / "out", folder / "err"
            argv = [sys.executable, "-P", "-m", "dtkpipe", *self._words(one, known, folder / "spec.json")]
            with out.open("wb") as stdout, err.open("wb") as stderr:
                env = {"GITHUB_STEP_SUMMARY": ""}  # the job's summary is the matrix's, not each cell's
                more = {"cwd": self.manner.here, "stdout": stdout, "stderr": stderr, "env": env}
                with self._process(argv, **more) as started, limited(started, self.manner.timeout) as overdue:
                    code = started.wait()
            card = card_of(out)
            told = err.read_text(errors="replace")
        seconds = time.monotonic() - begun
        if code == 0 and card and not self._is_as_planned(one, known, card):
            said = "published, but under another key: its source changed meanwhile, or its image is for something else"
            cause = Fingerprint(OTHER, said)
            return Outcome(cell=one, result=Result.FAILED, cause=cause, said=said, run=card.name, seconds=seconds)
        if code == 0 and card:
            steps = [step for step in card.steps if step.name != "resolve" and step.exit_code == 0]
            done = Result.SIGNED if self._is_signed_only(one) else Result.BUILT
            result = Result.REUSED if steps and all(step.reused for step in steps) else done
            return Outcome(cell=one, result=result, run=card.name, seconds=seconds)
        if self.stopping.is_set():
            return replace(_cancelled(one), run=card.name if card else "", seconds=seconds)
        failure = self._failure(one, known, card, told, code, is_overdue=overdue.is_set())
        said = failure.lines[0]
        try:
            self._record(one, known, card, failure)
        except DtkpipeError as error:
            said += f"; it could not be recorded: {error.what}"
        return Outcome(
            cell=one, result=Result.FAILED, cause=failure.fingerprint, said=said, run=failure.run, seconds=seconds
        )

    def _is_as_planned(self, one: Planned, known: Known, card: RunCard) -> bool:
        """Whether the next plan will find the cell current. A pipeline without `publish` is not asked."""
        toolkit = card.result("resolve", "TOOLKIT_DIGEST")
        key = key_of(known, one.target, toolkit) if toolkit else one.key
        tags = card.result("publish", "TAGS").split()
        return not tags or key is None or str(KeyTag(key, self.request.signer)) in tags

    def _is_signed_only(self, one: Planned) -> bool:
        """Whether the image is there, and lacks nothing but this signature. What has one cannot become unsigned."""
        return one.state is State.RESIGN and self.request.signer != UNSIGNED

    def _words(self, one: Planned, known: Known, spec: Path) -> list[str]:
        """Return the command line of the cell's run."""
        source, target = known.module.source, one.target
        words = {"--engine": "local", "--output": "json", "--push-to": known.repo.name, "--staging": self.at.staging}
        if self._is_signed_only(one):
            words |= {"--pipeline": str(shipped("catalog/matrix/resign.py")), "--param": f"image={one.image}"}
        else:
            words |= {
                "--pipeline": self.manner.pipeline, "--repo": source.repo, "--path": source.path, "--spec": str(spec),
                "--ref": known.commit if source.kind == GIT else "", "--release": target.release,
                "--kernel": target.kernel.release, "--arch": target.arch.name, "--variant": target.kernel.variant,
                "--stream": target.stream, "--toolkit-repo": self.at.toolkit_repo,
            }  # fmt: skip
            if self.request.lock and target.toolkits and not target.toolkit_tag:
                words["--toolkit"] = str(CONTENT.at(target.toolkits[0]))  # a run only knows the lock that is shipped
        given = [f"{flag}={value}" for flag, value in words.items() if value]
        return ["submit", "--quiet", *given, *self.manner.options]

    def _failure(
        self, one: Planned, known: Known, card: RunCard | None, told: str, code: int, *, is_overdue: bool
    ) -> Failure:  # fmt: skip
        step = next((step for step in card.steps if step.state == STEP_FAILED), None) if card else None
        lines = error_in(told)
        if card and step:
            code = step.exit_code if step.exit_code is not None else code
            lines = Runs(self.manner.state).folder(card.name).task(step.name).error() or [step.cause]
        if is_overdue:
            code, lines = RunUnknownError.exit_code, [f"did not end within {self.manner.timeout} s", *lines]
        lines = [line for line in lines if line.strip()] or [f"ended with exit code {code}"]
        names = {one.module, *known.module.spec.names}
        found = fingerprint(code, lines, names)
        return Failure(
            module=one.module, kernel=one.target.kernel.release, arch=one.target.arch.name,
            step=step.name if step else "submit", kind=found.kind, cause=found.text, lines=tuple(lines[:_LINES]),
            run=card.name if card else "", by=who(), when=int(time.time()), tool=__version__,
        )  # fmt: skip

    def _record(self, one: Planned, known: Known, card: RunCard | None, failure: Failure) -> None:
        """Keep a failure that would come again. Raises what the registry raises."""
        toolkit = card.result("resolve", "TOOLKIT_DIGEST") if card else ""
        key = key_of(known, one.target, toolkit) if toolkit else one.key
        if failure.kind == INFRASTRUCTURE or key is None:
            return
        log = next((Path(step.log) for step in card.steps if step.name == failure.step), None) if card else None
        tag = KeyTag(key, self.request.signer, failure.when)
        record(self.at.registry, known.repo.tagged(str(tag)), failure, end_of(log))


def _cancelled(one: Planned) -> Outcome:
    return Outcome(cell=one, result=Result.CANCELLED, said="interrupted")


def as_dict(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """Return how cells ended, as `-o json` prints it."""
    return [_one(outcome) for outcome in outcomes]


def _one(outcome: Outcome) -> dict[str, object]:
    one = outcome.cell
    facts = {
        "module": one.module, "kernel": one.target.kernel.release, "arch": one.target.arch.name,
        "releases": one.target.serves, "result": outcome.result.value, "state": one.state.value,
        "cause": str(outcome.cause or ""), "said": outcome.said, "run": outcome.run,
        "seconds": round(outcome.seconds, 1),
    }  # fmt: skip
    return {name: value for name, value in facts.items() if value}
