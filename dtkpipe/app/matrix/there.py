"""Cells that run on a cluster: a run for each, made as `dtkpipe submit` makes it, all waited for by one watch.

The name of a run is a function of its inputs, so two planners, or one that was killed and comes again, meet at the same
run. The runs go on whatever becomes of the planner.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dtkpipe.app.clusters import Engine
from dtkpipe.app.clusters import Place as Namespace
from dtkpipe.app.logs_on_cluster import ClusterReader
from dtkpipe.app.matrix.ends import Ends
from dtkpipe.app.matrix.inputs import inputs_of, pipeline_of
from dtkpipe.app.matrix.one_cell import PATIENCE, error_in
from dtkpipe.app.matrix.outcome import Ended
from dtkpipe.app.matrix.plan import Asked, Place, Request
from dtkpipe.app.matrix.submit import Run
from dtkpipe.app.params import Inputs
from dtkpipe.app.pipelines import load
from dtkpipe.app.runs_on_cluster import ENDED, ClusterRuns
from dtkpipe.app.submit import cluster
from dtkpipe.app.submit.cluster import Prepared, Submitted
from dtkpipe.app.submit.lock import sweep
from dtkpipe.app.submit.request import OnThisMachine, Say
from dtkpipe.app.submit.request import Request as RunRequest
from dtkpipe.clients.cluster import Object
from dtkpipe.errors import DtkpipeError, NotAllowedError, RunCancelledError, RunUnknownError, UnreachableError
from dtkpipe.matrix.failure import LOG_LIMIT
from dtkpipe.matrix.fingerprint import INFRASTRUCTURE, fingerprint
from dtkpipe.matrix.plan import Known, Planned
from dtkpipe.model.pipeline import Pipeline
from dtkpipe.values.run import CANCELLED, FAILED, SUCCEEDED, RunCard

_SLICE = 5.0
"""Seconds between two looks whether we are to stop, while another run holds the Lease of a cell."""
_PATIENCE = 180.0
"""Seconds in which a cluster that does not answer is asked again."""
_ERROR = re.compile(r"^error: ", re.MULTILINE)
_LINES = 1000
"""Of the end of a log; what a record keeps of them is cut by bytes."""


@dataclass(frozen=True, kw_only=True)
class There:
    """Runs cells in a namespace of a cluster."""

    request: Request
    at: Place
    engine: Engine
    there: Namespace
    here: Path
    timeout: int
    """Seconds that one cell may take."""
    params: Mapping[str, str] = field(default_factory=dict)
    """More parameters of each run: how registries are spoken to, and who signs."""
    pipeline: str = "prebuild"
    own: OnThisMachine = field(default_factory=OnThisMachine)
    """What only a run on this machine can be asked for: refused."""
    retry_failed: bool = False
    _started: float = field(default_factory=time.time)
    _pipelines: dict[str, Pipeline] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _ends: list[Ends] = field(default_factory=list)

    def check(self, cells: Sequence[Planned], asked: Asked, say: Say) -> None:
        """See that the cluster has what the cells need, before any of them runs, and remove Leases of the dead.

        Raises what `dtkpipe submit` raises for a pipeline that is not installed, a Secret that is not there, a flag
        that is for this machine.
        """
        self.there.cluster.be_patient(_PATIENCE)
        first: dict[str, Planned] = {}
        for one in cells:
            first.setdefault(pipeline_of(one, self.request, self.pipeline), one)
        for name, one in first.items():
            self._pipelines[name] = load(name)
            known = next(known for known in asked.known if known.module.name == one.module)
            cluster.check_there(self._prepared(one, known, check=True), say)
        if first:
            sweep(self.there)
            ends = Ends(self.there, self.engine)
            self._ends.append(ends)
            ends.start()

    @contextmanager
    def turn(self, one: Planned, known: Known, *, patient: bool) -> Iterator[Run | None]:  # noqa: ARG002 - nobody is excluded: who comes second joins the first one's run
        """Give what runs the cell, or joins the run that is there. See dtkpipe.app.matrix.submit.Runner."""
        prepared = self._prepared(one, known)
        yield partial(self._run, known=known, met=(prepared.name, self._tries(prepared)))

    def stop(self, *, hard: bool) -> None:  # noqa: ARG002 - there is nothing to kill
        """Wait for no run any more."""
        self._stopping.set()
        for one in self._ends:
            one.stop()

    def _prepared(self, one: Planned, known: Known, *, check: bool = False) -> Prepared:
        name = pipeline_of(one, self.request, self.pipeline)
        pipeline = self._pipelines[name]
        given = {**inputs_of(one, known, self.request, self.at), **self.params}
        names = {param.name for param in pipeline.params}
        inputs = Inputs(given={key: value for key, value in given.items() if key in names})
        request = RunRequest(pipeline=name, inputs=inputs, here=self.own if check else OnThisMachine())
        return cluster.prepare_loaded(pipeline, request, self.engine, self.there, self.here, _quiet)

    def _tries(self, prepared: Prepared) -> list[Submitted]:
        """Return the runs of these inputs, the first one first."""
        found: list[Submitted] = []
        while one := cluster.there(prepared, cluster.name_of_try(prepared, len(found) + 1)):
            found.append(one)
        return found

    def _run(self, one: Planned, known: Known, met: tuple[str, Sequence[Submitted]]) -> Ended:
        """Run the cell, or join its run. `met` are its runs as they were before the registry called it stale."""
        begun = time.monotonic()
        deadline = begun + self.timeout
        prepared = self._prepared(one, known)
        before = met[1] if met[0] == prepared.name else self._tries(prepared)
        last = before[-1] if before else None
        if last is None or self._is_done_with(last):
            last = self._created(prepared, len(before) + 1, deadline)
        if last is None:
            return Ended(code=RunCancelledError.exit_code, lines=["interrupted"], seconds=time.monotonic() - begun)
        return self._end(last, deadline, begun)

    def _is_done_with(self, last: Submitted) -> bool:
        """Whether a run tells nothing of the cell as it is now, so that it needs another one.

        One that succeeded left nothing in the registry, or it is gone. What the cluster did says nothing of the cell.
        """
        card = last.card
        if card.state not in ENDED or card.finished >= self._started:
            return False
        if card.state != FAILED or self.retry_failed:
            return True
        ended = self._told(card)
        return fingerprint(ended.code, ended.lines or [""]).kind == INFRASTRUCTURE

    def _created(self, prepared: Prepared, number: int, deadline: float) -> Submitted | None:
        """Create a run; None where we are to stop before another one for the same target lets us."""
        silent = time.monotonic() + _PATIENCE
        while number <= cluster.MOST and not self._stopping.is_set():
            name, until = cluster.name_of_try(prepared, number), min(deadline, time.monotonic() + _SLICE)
            try:
                if done := cluster.create(prepared, name, "wait", _quiet, until):
                    return done
            except RunUnknownError:
                if time.monotonic() >= deadline:
                    raise
            except UnreachableError:  # it may be there all the same: by its name it is found
                if time.monotonic() >= silent:
                    raise
                self._stopping.wait(1)
        if not self._stopping.is_set():
            raise cluster.too_many(prepared)
        return None

    def _end(self, run: Submitted, deadline: float, begun: float) -> Ended:
        (ends,) = self._ends
        found, lines = ends.wait(run.name, run.uid, deadline), list[str]()
        if found is None and not self._stopping.is_set():
            lines = [f"did not end within {self.timeout} s"]
            with suppress(NotAllowedError):  # a schedule's account ends no runs: this one goes on to its own limit
                self.there.cluster.patch(self.engine.runs, run.name, self.there.namespace, self.engine.cancel)
                found = ends.wait(run.name, run.uid, time.monotonic() + PATIENCE)
        if found is None:
            goes_on = self._stopping.is_set()
            return Ended(
                code=RunUnknownError.exit_code, card=run.card, lines=lines, goes_on=goes_on,
                seconds=time.monotonic() - begun,
            )  # fmt: skip
        return self._told(self._card(found), late=lines, seconds=time.monotonic() - begun)

    def _card(self, run: Object) -> RunCard:
        return ClusterRuns(self.there, self.engine).whole(run)

    def _told(self, card: RunCard, late: Sequence[str] = (), seconds: float = 0) -> Ended:
        """Return how a run ended, with what its failed step said: its log where it is there, else the card."""
        ended = Ended(code=0, card=card, when=card.finished, seconds=seconds)
        if card.state == SUCCEEDED:
            return ended
        step = ended.failed_step
        log = self._log(card, step.name) if step and step.started else ""
        lines = error_in(log) if _ERROR.search(log) else [step.cause if step else card.cause]
        code = step.exit_code if step and step.started else None
        if card.state == CANCELLED:
            code, lines = RunCancelledError.exit_code, [card.cause or "cancelled"]
        if late:
            code, lines = RunUnknownError.exit_code, [*late, *lines]
        if code is None:  # its program never ran: the cluster has not let it
            code = UnreachableError.exit_code
        return Ended(
            code=code, card=card, lines=[line for line in lines if line], log=log.encode()[-LOG_LIMIT:],
            when=card.finished, seconds=seconds,
        )  # fmt: skip

    def _log(self, card: RunCard, task: str) -> str:
        """Return the end of a task's log; nothing where it is gone, or is not ours to read."""
        reader = ClusterReader(
            runs=ClusterRuns(self.there, self.engine), card=card, tasks=(task,), tail=_LINES, say=_quiet
        )
        try:
            return "".join(f"{line}\n" for _, line in reader.lines())
        except DtkpipeError:
            return ""


def _quiet(line: str) -> None:
    """Say nothing: hundreds of cells would say the same."""
