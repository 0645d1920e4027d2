"""What resumed runs of every engine share: results of tasks that are done, written in where they were referred to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from dtkpipe.engines.container import Spelling
from dtkpipe.errors import InvalidError
from dtkpipe.model.check import not_data
from dtkpipe.model.refs import Joined, ResultRef, StatusRef

Results = Mapping[str, str]
DONE = "dtkpipe.io/done"
"""Annotation of a resumed run: JSON, task -> its results, of the tasks that were taken over."""
RETRY_OF = "dtkpipe.io/retry-of"
"""Annotation of a run that was tried again: the name of the one before."""


def filled(text: str, done: Mapping[str, Results], spelling: Spelling) -> str:
    """Return a value that a pipeline gives, with the results and states of tasks that are done in their places.

    Raises InvalidError for a result that the engine would not take as data.
    """
    for task, results in done.items():
        text = text.replace(spelling.value(Joined((StatusRef(task),))), "Succeeded")
        for name, result in results.items():
            reference = spelling.value(Joined((ResultRef(task, name),)))
            if reference in text and (reason := not_data(result)):
                raise InvalidError(
                    f"result {name} of task `{task}` {reason}: the run cannot be resumed", hint="dtkpipe retry RUN"
                )
            text = text.replace(reference, result)
    return text


def keeps(graph: Mapping[str, Sequence[str]], done: Mapping[str, Results], lost: set[str]) -> dict[str, Results]:
    """Return what of `done` can be taken over: not what is lost, and nothing that comes behind a task that runs."""
    kept: dict[str, Results] = {}
    runs: set[str] = set()
    left = dict(graph)
    while left:
        ready = [task for task, needs in left.items() if not set(needs) & set(left)]
        if not ready:
            break
        for task in ready:
            needs = left.pop(task)
            if task in done and task not in lost and not set(needs) & runs:
                kept[task] = done[task]
            else:
                runs.add(task)
    return kept


def written(done: Mapping[str, Results]) -> str:
    """Return the value of annotation DONE."""
    return json.dumps(done, ensure_ascii=False)


def read(text: str) -> dict[str, dict[str, str]]:
    """Read annotation DONE; what is no such thing counts as none."""
    try:
        found = json.loads(text or "{}")
        return {str(task): {str(name): str(one) for name, one in results.items()} for task, results in found.items()}
    except (ValueError, AttributeError):
        return {}
