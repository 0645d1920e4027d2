"""Values that are known only when the pipeline runs. They become an engine's text in its renderer, and only there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn


class _RunTimeValue:
    """Refuses everything that would need the value now."""

    def _refuse(self) -> NoReturn:
        raise TypeError(f"{self!r} is known only when the pipeline runs: pass it on, do not read it")

    def __str__(self) -> str:
        self._refuse()

    def __bool__(self) -> bool:
        self._refuse()

    def __format__(self, spec: str) -> str:
        self._refuse()


@dataclass(frozen=True)
class ParamRef(_RunTimeValue):
    """The value of a pipeline parameter."""

    name: str


@dataclass(frozen=True)
class ResultRef(_RunTimeValue):
    """A result of another task. Using it makes that task run first."""

    task: str
    name: str


@dataclass(frozen=True)
class StatusRef(_RunTimeValue):
    """How a task ended, e.g. `Succeeded`, `Failed`. For `finally` tasks only."""

    task: str


@dataclass(frozen=True)
class RunName(_RunTimeValue):
    """The name of the run."""


@dataclass(frozen=True)
class InputRef(_RunTimeValue):
    """Inside a task's program: the value of the task's own input."""

    name: str


@dataclass(frozen=True)
class ResultPath(_RunTimeValue):
    """Inside a task's program: the file the program writes its result to (no newline at the end)."""

    name: str


@dataclass(frozen=True)
class SecretPath(_RunTimeValue):
    """Inside a task's program: the file in which `key` of the task's secret `secret` is found."""

    secret: str
    key: str


@dataclass(frozen=True)
class Joined(_RunTimeValue):
    """Pieces put one behind the other, e.g. `--repo=` and a parameter."""

    parts: tuple[str | ParamRef | ResultRef | StatusRef | RunName | InputRef | ResultPath | SecretPath, ...]


Value = str | ParamRef | ResultRef | StatusRef | RunName | Joined
"""What a pipeline gives to a task's input."""

Token = str | InputRef | ResultPath | SecretPath | RunName | Joined
"""One argv token, or the value of one environment variable, of a program."""

Piece = str | ParamRef | ResultRef | StatusRef | RunName | InputRef | ResultPath | SecretPath


def pieces(value: Value | Token) -> tuple[Piece, ...]:
    """Return the parts of a value, in order; a simple value is its own only part."""
    return value.parts if isinstance(value, Joined) else (value,)
