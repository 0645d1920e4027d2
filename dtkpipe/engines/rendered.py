"""What a renderer takes and gives, whatever the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dtkpipe.errors import UsageError
from dtkpipe.model.check import not_data
from dtkpipe.model.pipeline import Pipeline, Task

Object = dict[str, Any]
"""One Kubernetes object, ready to be dumped."""


class Form(Enum):
    """Which objects are wanted."""

    TEMPLATE = "template"
    """What is installed once; given parameters become its defaults."""
    RUN = "run"
    """One run of what is installed: the smallest object."""
    INLINE = "inline"
    """One run that carries its whole pipeline and needs nothing installed."""


@dataclass(frozen=True)
class Unsupported:
    """Something the pipeline asks for that the engine does otherwise, and what that means for the user."""

    feature: str
    where: str
    consequence: str

    def __str__(self) -> str:
        return f"{self.where}: {self.feature}: {self.consequence}"


@dataclass(frozen=True)
class Rendered:
    """The objects, in the order in which they are applied. Read only: renderings share the parts that are equal."""

    objects: tuple[Object, ...]
    unsupported: tuple[Unsupported, ...] = ()


def fields(**given: Any) -> Object:
    """Return the fields that hold something; an empty string, list or object stands for "not set"."""
    return {name: value for name, value in given.items() if value not in (None, "", [], {})}


def carried(params: Mapping[str, str]) -> dict[str, str]:
    """Return the values of parameters, all of which every engine carries as data. Raises UsageError."""
    for name, value in params.items():
        if reason := not_data(value):
            raise UsageError(f"the value of parameter `{name}` {reason}", f"got: {value[:80]!r}")
    return dict(params)


def at_most(task: Task) -> int:
    """Return how many seconds a task may take where the engine repeats it."""
    return task.timeout * (task.retries + 1)


def longest(pipeline: Pipeline, limit: Callable[[Task], int] = at_most) -> int:
    """Return how many seconds the tasks may take, one after the other and each as long as `limit` says."""
    known = {task.name: task for task in pipeline.tasks}
    done: dict[str, int] = {}

    def until(task: Task) -> int:
        if task.name not in done:
            done[task.name] = max((until(known[need]) for need in task.needs), default=0) + limit(task)
        return done[task.name]

    return max(until(task) for task in pipeline.tasks)


def longest_finally(pipeline: Pipeline, limit: Callable[[Task], int] = at_most) -> int:
    """Return how many seconds the finally tasks may take: they run at the same time."""
    return max((limit(task) for task in pipeline.finally_), default=0)


def image_results(pipeline: Pipeline) -> tuple[tuple[str, str], ...]:
    """Return (task, result) of the run's product: IMAGE_URL and IMAGE_DIGEST of the last task that gives both.

    Tekton Chains signs what a run calls by these names.
    """
    wanted = ("IMAGE_URL", "IMAGE_DIGEST")
    for task in reversed(pipeline.tasks):
        if set(wanted) <= {result.name for result in task.results}:
            return tuple((task.name, name) for name in wanted)
    return ()


def labels(pipeline: Pipeline, task: Task | None = None) -> dict[str, str]:
    """Return the labels of an object: which pipeline and task it is, and which dtkpipe made it."""
    from dtkpipe import __version__

    return {
        "app.kubernetes.io/name": task.name if task else pipeline.name,
        "app.kubernetes.io/part-of": pipeline.name,
        "app.kubernetes.io/managed-by": "dtkpipe",
        "app.kubernetes.io/version": __version__.replace("+", "_"),
    }
