"""The run card: what one run took, did and gave, on any engine. One JSON document, schema `dtkpipe/run/v1`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dtkpipe.errors import InvalidError

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
class StepRecord:
    """One task of a run. Times are seconds since the epoch, 0 where there is none."""

    name: str
    state: str = PENDING
    started: float = 0
    finished: float = 0
    reused: bool = False
    """Its result was there already, from the same inputs."""
    exit_code: int | None = None
    cause: str = ""
    """Why it failed: the first line of its error."""
    results: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    """Where its whole log is."""

    @property
    def seconds(self) -> float:
        """How long it took; 0 while it runs."""
        return max(0.0, self.finished - self.started) if self.finished else 0.0


@dataclass(frozen=True, kw_only=True)
class RunCard:
    """One run. `inputs` are the pipeline's parameters; none of them is a secret."""

    name: str
    engine: str
    pipeline: str
    state: str = PENDING
    cause: str = ""
    created: float = 0
    finished: float = 0
    inputs: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[StepRecord, ...] = ()
    verdict: Mapping[str, Any] | None = None
    """What verify found: verdict, code, proofs with their evidence."""
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Node -> verdict of smoke-test."""
    tool: str = ""
    """Version of dtkpipe."""

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
            data["steps"] = tuple(StepRecord(**step) for step in data["steps"])
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidError("the run card cannot be read", str(error)) from error
