"""How the cells of a matrix end, on whatever engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from dtkpipe.matrix.fingerprint import Fingerprint
from dtkpipe.matrix.plan import Planned
from dtkpipe.values.run import FAILED, RunCard, StepRecord


class Result(StrEnum):
    """How a cell ended."""

    BUILT = "built"
    SIGNED = "signed"
    """Signed again, and not built."""
    REUSED = "reused"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    UNKNOWN = "unknown"
    RUNNING = "running"
    """Nobody waits for it any more; its run on the cluster goes on."""
    CANCELLED = "cancelled"


class ExitCode(int):
    """The exit code of a matrix, and what it does not tell: red cells come before what is not known."""

    unknown: bool
    """Something did not answer, so that some cells were not judged."""

    def __new__(cls, code: int, *, unknown: bool = False) -> Self:
        """Make one."""
        made = super().__new__(cls, code)
        made.unknown = unknown
        return made


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
class Ended:
    """How a cell's run ended, or that it is not waited for any more (`goes_on`)."""

    code: int
    """Exit code of the run, or of the step that failed."""
    card: RunCard | None = None
    lines: Sequence[str] = ()
    """The error of what failed: its first line first."""
    log: bytes = b""
    """The end of the log of the step that failed."""
    goes_on: bool = False
    when: float = 0.0
    """When it ended, in seconds since the epoch, where somebody else may look at the same end; 0: now."""
    seconds: float = 0.0

    @property
    def failed_step(self) -> StepRecord | None:
        """The step that failed first."""
        return next((step for step in self.card.steps if step.state == FAILED), None) if self.card else None


def cancelled(one: Planned) -> Outcome:
    """Return the outcome of a cell that was not come to, or whose run was ended with us."""
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
