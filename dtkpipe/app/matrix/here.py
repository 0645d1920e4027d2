"""Cells that run on this machine: a process for each. A lock keeps two planners from the same cell."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dtkpipe.app.matrix.inputs import inputs_of, pipeline_of
from dtkpipe.app.matrix.one_cell import card_of, end_of, error_in, held, limited
from dtkpipe.app.matrix.outcome import Ended
from dtkpipe.app.matrix.plan import Place, Request
from dtkpipe.app.matrix.submit import Run
from dtkpipe.app.runs import Runs
from dtkpipe.errors import RunUnknownError
from dtkpipe.matrix.plan import Known, Planned
from dtkpipe.tools import process
from dtkpipe.values.key import cell_hash


@dataclass(frozen=True, kw_only=True)
class Here:
    """Runs cells on this machine. `here` is what paths of the command line are relative to."""

    request: Request
    at: Place
    here: Path
    state: Path
    timeout: int
    """Seconds that one cell may take."""
    options: Sequence[str] = ()
    """More words for each `dtkpipe submit`: how registries are spoken to, and the signing key."""
    pipeline: str = "prebuild"
    _stopping: threading.Event = field(default_factory=threading.Event)
    _running: set[process.Process] = field(default_factory=set)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def turn(self, one: Planned, known: Known, *, patient: bool) -> Iterator[Run | None]:
        """Give what runs the cell, while nobody else on this machine does. See dtkpipe.app.matrix.submit.Runner."""
        lock = self.state / "matrix" / f"{cell_hash(one.module, one.target.kernel, one.target.arch)}.lock"
        if patient:
            self._wait_for(lock)
        with held(lock) as mine:
            yield partial(self._run, known=known) if mine else None

    def stop(self, *, hard: bool) -> None:
        """End all processes."""
        self._stopping.set()
        with self._guard:
            for one in self._running:
                process.signal_group(one, signal.SIGKILL if hard else signal.SIGTERM)

    def _wait_for(self, lock: Path) -> None:
        """Wait until nobody holds the lock; a process does, because a thread that waits cannot be stopped."""
        with self._process(["flock", "--shared", lock, "true"]) as waiting:
            waiting.wait()

    @contextmanager
    def _process(self, argv: process.Argv, **more: Any) -> Iterator[process.Process]:
        started = process.start(argv, own_group=True, **more)
        with self._guard:
            self._running.add(started)
        try:
            if self._stopping.is_set():
                process.signal_group(started, signal.SIGTERM)
            yield started
        finally:
            with self._guard:
                self._running.discard(started)

    def _run(self, one: Planned, known: Known) -> Ended:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="dtkpipe-matrix-") as name:
            folder = Path(name)
            out, err = folder / "out", folder / "err"
            argv = [sys.executable, "-P", "-m", "dtkpipe", *self._words(one, known, folder / "spec.json")]
            with out.open("wb") as stdout, err.open("wb") as stderr:
                env = {"GITHUB_STEP_SUMMARY": ""}  # the job's summary is the matrix's, not each cell's
                more = {"cwd": self.here, "stdout": stdout, "stderr": stderr, "env": env}
                with self._process(argv, **more) as started, limited(started, self.timeout) as overdue:
                    code = started.wait()
            card = card_of(out)
            told = err.read_text(errors="replace")
        ended = Ended(code=code, card=card, lines=error_in(told), seconds=time.monotonic() - begun)
        if code == 0:
            return ended
        lines, log = list(ended.lines), b""
        if card and (step := ended.failed_step):
            code = step.exit_code if step.exit_code is not None else code
            lines = Runs(self.state).folder(card.name).task(step.name).error() or [step.cause]
            log = end_of(Path(step.log))
        if overdue.is_set():
            code, lines = RunUnknownError.exit_code, [f"did not end within {self.timeout} s", *lines]
        return Ended(code=code, card=card, lines=lines, log=log, seconds=ended.seconds)

    def _words(self, one: Planned, known: Known, spec: Path) -> list[str]:
        """Return the command line of the cell's run, and write its spec."""
        given = inputs_of(one, known, self.request, self.at)
        if text := given.get("spec"):
            spec.write_text(text)
            given["spec"] = str(spec)
        if image := given.pop("image", ""):  # of that pipeline alone: no flag has its name
            given["param"] = f"image={image}"
        given |= {"pipeline": pipeline_of(one, self.request, self.pipeline), "engine": "local", "output": "json"}
        return ["submit", "--quiet", *(f"--{name}={value}" for name, value in given.items()), *self.options]
