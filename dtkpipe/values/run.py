"""The run card: what one run took, did and gave, on any engine. One JSON document, schema `dtkpipe/run/v1`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dtkpipe.errors import (
    DtkpipeError,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    RunCancelledError,
    RunFailedError,
    RunUnknownError,
    UnreachableError,
    UnsupportedError,
)

SCHEMA = "dtkpipe/run/v1"

PENDING, RUNNING, SUCCEEDED, FAILED, SKIPPED, CANCELLED = (
    "pending",
    "running",
    "succeeded",
    "failed",
    "skipped",
    "cancelled",
)
"""States of a step, and (without skipped) outcomes of a run."""

TELLING: tuple[type[DtkpipeError], ...] = (
    NotAllowedError,
    NotFoundError,
    InvalidError,
    UnreachableError,
    UnsupportedError,
    RunUnknownError,
)
"""Errors of a task that say more of its run than that it failed."""
OUT_OF_TIME = RunUnknownError.exit_code
"""Exit code of a task that did not end within its time, whatever its program said then."""

CAUSE = "CAUSE"
"""The result that every step has: why it failed. Not written by one that did not."""
CAUSE_DOC = "Why it failed: one line, and what to do about it"
CAUSE_LIMIT = 512
"""Bytes of that result: all results of a task share Tekton's 4096."""

_WORDS = {
    "succeeded": SUCCEEDED,
    "failed": FAILED,
    "error": FAILED,
    "skipped": SKIPPED,
    "cancelled": CANCELLED,
    "none": PENDING,
    "omitted": PENDING,
    "pending": PENDING,
    "running": RUNNING,
}


def state(word: str) -> str:
    """Return our name for how an engine says that a task ended; for a word that we do not know, `failed`.

    Tekton ($(tasks.NAME.status)) says Succeeded, Failed or None, which is also said of a task that never ran. Argo
    ({{tasks.NAME.status}}) says Succeeded, Failed, Error, Skipped, and Omitted for a task that was not reached.
    A task that was not reached is `pending`; only one that was left out on purpose is `skipped`.
    """
    return _WORDS.get(word.lower(), FAILED)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try of a task. Times are seconds since the epoch, 0 where there is none."""

    state: str = PENDING
    queued: float = 0
    started: float = 0
    finished: float = 0
    exit_code: int | None = None
    cause: str = ""
    pod: str = ""
    """The pod it ran in, which may be gone."""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One task of a run. Times are seconds since the epoch, 0 where there is none."""

    name: str
    state: str = PENDING
    queued: float = 0
    """When the engine took it up; until `started` it waits for a node, an image, a volume."""
    started: float = 0
    """When its program started, first attempt."""
    finished: float = 0
    reused: bool = False
    """Its result was there already, from the same inputs."""
    exit_code: int | None = None
    """Of its program; OUT_OF_TIME for one that was stopped for that."""
    cause: str = ""
    """Why it failed: the first line of its error. While it waits: for what."""
    hint: str = ""
    """What to do about it."""
    results: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    """The file that holds its whole log (engine local)."""
    pod: str = ""
    """The pod of its last attempt."""
    attempts: tuple[Attempt, ...] = ()
    """All its tries, the first one first, where the engine keeps them."""

    @property
    def seconds(self) -> float:
        """How long it took; 0 while it runs, or when it never did."""
        return max(0.0, self.finished - self.started) if self.finished and self.started else 0.0


@dataclass(frozen=True, kw_only=True)
class RunCard:
    """One run. `inputs` are the pipeline's parameters; none of them is a secret."""

    name: str
    engine: str
    pipeline: str
    namespace: str = ""
    """Of the run and its pods; none for engine local."""
    state: str = PENDING
    cause: str = ""
    """Why it failed or was cancelled: in most cases the task that failed first, and its cause."""
    hint: str = ""
    """What to do about it."""
    created: float = 0
    started: float = 0
    """When its engine took it up."""
    finished: float = 0
    inputs: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[StepRecord, ...] = ()
    verdict: Mapping[str, Any] | None = None
    """What verify found: verdict, code, proofs with their evidence."""
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Node -> verdict of smoke-test."""
    tool: str = ""
    """Version of dtkpipe."""

    @property
    def address(self) -> str:
        """The words that name it in a command: its name, and its namespace where it has one."""
        return f"{self.name} -n {self.namespace}" if self.namespace else self.name

    @property
    def exit_code(self) -> int | None:
        """The exit code that tells the outcome; None while the run has none.

        A run that failed has that of its first failed task, where it is one of ours that says more than "failed".
        """
        if self.state == FAILED:
            first = next((step.exit_code for step in self.steps if step.state == FAILED), None)
            told = {error.exit_code for error in TELLING}
            return first if first in told else RunFailedError.exit_code
        return {SUCCEEDED: 0, CANCELLED: RunCancelledError.exit_code}.get(self.state)

    def result(self, task: str, name: str) -> str:
        """Return result `name` of `task`, or an empty string."""
        return next((step.results.get(name, "") for step in self.steps if step.name == task), "")

    def to_json(self) -> str:
        """Write the card: one JSON object, two spaces of indentation, keys in the order of the fields."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> RunCard:
        """Read a card. Raises InvalidError for another schema or a broken document."""
        try:
            data = json.loads(text)
            if data.pop("schema") != SCHEMA:
                raise InvalidError("not a run card of a schema we know", f"expected {SCHEMA}")
            return cls(**{**data, "steps": tuple(_step(step) for step in data["steps"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidError("the run card cannot be read", str(error)) from error


def _step(data: Mapping[str, Any]) -> StepRecord:
    attempts = tuple(Attempt(**one) for one in data.get("attempts", ()))
    return StepRecord(**{**data, "attempts": attempts})


def tell_cause(error: BaseException) -> str:
    """Return the result CAUSE for what ended a task: a line, and `hint: ` with what to do where that is known.

    The line has the first detail in it, unless that says the same: the compiler's first error, what a registry said.
    """
    if isinstance(error, DtkpipeError):
        more = [line for line in error.details[:1] if line not in error.what]
        what, hint = ": ".join((error.what, *more)), error.hint
    elif isinstance(error, KeyboardInterrupt):
        what, hint = "interrupted", ""
    elif isinstance(error, OSError):
        what, hint = f"{error.strerror or 'input/output error'}: {error.filename or 'a file'}", ""
    else:  # its text may hold anything; the log has it
        what, hint = f"a bug in dtkpipe: {type(error).__name__}", "report it with the log of this task"
    first = _cut(what, CAUSE_LIMIT if not hint else CAUSE_LIMIT * 5 // 8)
    left = CAUSE_LIMIT - len(first.encode()) - len("\nhint: ")
    return f"{first}\nhint: {_cut(hint, left)}" if hint else first


def _cut(text: str, limit: int) -> str:
    """Return a text as one line of at most `limit` bytes of UTF-8."""
    line = " ".join(text.split())
    if len(line.encode()) <= limit:
        return line
    return line.encode()[: limit - 3].decode(errors="ignore") + "…"


def told_cause(results: Mapping[str, str]) -> tuple[str, str, dict[str, str]]:
    """Return why a task says that it failed, what it says to do about it, and its other results.

    The result CAUSE: a line, and where there is one, `hint: ` with the next command in the lines behind it.
    """
    rest = dict(results)
    cause, _, hint = rest.pop(CAUSE, "").partition("\n")
    return cause.strip(), hint.strip().removeprefix("hint: "), rest
