"""Every error the user can meet: what happened, where we looked, the next command, and the exit code.

The exit codes are part of the public contract (`dtkpipe help exit-codes`). Ten and above speak of the run,
below ten of the tool.
"""

from __future__ import annotations

import signal
from typing import ClassVar


class DtkpipeError(Exception):
    """Base of all errors that are shown without a traceback.

    `what` is one line in the user's words; `details` say where we looked or what we got, a line each;
    `hint` is the next command. None of them may hold a secret.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, *details: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.details = details
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what, *(f"  {line}" for line in self.details)]
        if self.hint:
            lines += ["", f"hint: {self.hint}"]
        return "\n".join(lines)


class AnswerIsNoError(DtkpipeError):
    """The question was answered, and the answer is no: differences, lint findings, stale files."""

    exit_code = 1


class UsageError(DtkpipeError):
    """The command line is wrong."""

    exit_code = 2


class NotAllowedError(DtkpipeError):
    """Not authenticated, or not allowed."""

    exit_code = 4


class NotFoundError(DtkpipeError):
    """A release, kernel, image, module, reference or run that does not exist."""

    exit_code = 5


class InvalidError(DtkpipeError):
    """A configuration, catalogue, module or pipeline that is not valid."""

    exit_code = 6


class ExistsError(InvalidError):
    """An object of that name is there already."""


class ConflictError(InvalidError):
    """Somebody else changed an object between our reading and our writing it."""


class UnreachableError(DtkpipeError):
    """A cluster, registry or network that does not answer. The only kind that is worth a retry."""

    exit_code = 7


class UnsupportedError(DtkpipeError):
    """The chosen engine, or this machine, cannot express or run what was asked."""

    exit_code = 8


class NothingSelectedError(DtkpipeError):
    """A selection that selects nothing."""

    exit_code = 9


class RunFailedError(DtkpipeError):
    """The run failed: a compile error, a refusal, a node that is not healthy."""

    exit_code = 10


class RunCancelledError(DtkpipeError):
    """Somebody cancelled the run."""

    exit_code = 11


class RunUnknownError(DtkpipeError):
    """The run timed out, or how it ended cannot be known."""

    exit_code = 12


EXIT_CODES: tuple[tuple[int, str], ...] = (
    (0, "success, or nothing to do"),
    (1, "the answer is no (differences, lint findings, stale)"),
    (2, "wrong usage"),
    (3, "a bug of ours (log path printed)"),
    (4, "not authenticated, or not allowed"),
    (5, "not found: release, image, module, run"),
    (6, "configuration, catalogue or pipeline invalid"),
    (7, "cluster, registry or network unreachable"),
    (8, "the engine or this machine cannot express or run this"),
    (9, "nothing selected"),
    (10, "the run failed"),
    (11, "the run was cancelled"),
    (12, "the run timed out, or its outcome is unknown"),
    (130, "interrupted"),
)


def how_ended(code: int) -> str:
    """Return in words how a program ended, from its exit code: after "it", `ended with exit code 3`.

    One that a signal ended has its negative number (Python's way), or 128 and its number (the way of POSIX shells).
    """
    number = -code if code < 0 else code - 128
    if number in {one.value for one in signal.Signals}:
        return f"was killed ({signal.Signals(number).name})"
    return f"ended with exit code {code}"
