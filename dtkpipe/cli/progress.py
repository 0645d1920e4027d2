"""Shows a run while it runs: a live tree on a terminal, a line per change without one, groups on GitHub."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dtkpipe.cli import tree
from dtkpipe.cli.output import Look, say
from dtkpipe.report.card import seconds
from dtkpipe.values.run import FAILED, PENDING, RUNNING, RunCard, StepRecord

_KEPT = 10_000
"""Lines that are kept of a task whose log is no file here."""


class Silent:
    """Says nothing (-q)."""

    def changed(self, card: RunCard, task: str) -> None:
        """Task `task` has a new state."""

    def said(self, task: str, line: str) -> None:
        """A task wrote a line."""

    def ended(self, card: RunCard) -> None:
        """The run is over."""


class Lines(Silent):
    """One timestamped line for each change; with `verbose` also what the tasks say."""

    def __init__(self, *, verbose: bool) -> None:
        self.verbose = verbose

    def changed(self, card: RunCard, task: str) -> None:
        step = next(step for step in card.steps if step.name == task)
        if (step.state == RUNNING and not self.verbose) or (step.state == PENDING and not step.cause):
            return
        took = "" if step.reused else seconds(step.seconds)
        words = (time.strftime("%H:%M:%S"), f"{task:<11}", f"{step.state:<9}", f"{took:>8}", tree.note(step))
        say("  ".join(words).rstrip())

    def said(self, task: str, line: str) -> None:
        if self.verbose:
            say(f"[{task}] {line}")


class GitHub(Lines):
    """Like Lines, with each task's log as a group that can be folded, and its failure as an annotation."""

    def __init__(self, *, verbose: bool) -> None:
        super().__init__(verbose=verbose)
        self.logs: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def changed(self, card: RunCard, task: str) -> None:
        step = next(step for step in card.steps if step.name == task)
        super().changed(card, task)
        if step.state in (PENDING, RUNNING) or step.reused:
            return
        lines = list(self.logs.pop(task, ()))
        if Path(step.log).is_file():
            lines = Path(step.log).read_text(errors="replace").splitlines()
        if lines:
            _group(step, lines)
        if step.state == FAILED:
            say(f"::error title={task}::{_escape(step.cause)}")

    def said(self, task: str, line: str) -> None:
        self.logs[task].append(line)


def _group(step: StepRecord, lines: Sequence[str]) -> None:
    # What a module's build prints must not be taken for a command of ours.
    fence = secrets.token_hex(16)
    say(f"::group::{step.name} {step.state}\n::stop-commands::{fence}")
    for line in lines:
        say(line)
    say(f"::{fence}::\n::endgroup::")


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


class _Tree(Silent):
    """Keeps what the live display draws; it draws from a thread of its own."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.card: RunCard | None = None
        self.lines: dict[str, str] = {}
        self.lock = threading.Lock()

    def changed(self, card: RunCard, task: str) -> None:  # noqa: ARG002 - Watcher's signature
        with self.lock:
            self.card = card

    def said(self, task: str, line: str) -> None:
        with self.lock:
            self.lines[task] = line

    def ended(self, card: RunCard) -> None:
        with self.lock:
            self.card = card

    def draw(self) -> Any:
        from rich.text import Text

        with self.lock:
            if not self.card:
                return Text("")
            width = shutil.get_terminal_size().columns
            return Text.from_ansi(
                "\n".join(tree.lines(self.card, time.time(), self.look, self.lines, width)), no_wrap=True
            )


@contextmanager
def shown(*, quiet: bool, verbose: bool, environ: Mapping[str, str] = os.environ) -> Iterator[Silent]:
    """Show the run of the block in the form that fits: what stderr is, and who reads it, decides."""
    if quiet:
        yield Silent()
    elif environ.get("GITHUB_ACTIONS") == "true":
        yield GitHub(verbose=False)
    elif verbose or not sys.stderr.isatty() or environ.get("TERM") == "dumb":
        yield Lines(verbose=verbose)
    else:
        from rich.console import Console
        from rich.live import Live

        drawn = _Tree(Look.of(sys.stderr))
        # Lines that are printed while the tree is up go above it.
        with Live(get_renderable=drawn.draw, console=Console(stderr=True), refresh_per_second=8, redirect_stdout=False):
            yield drawn
