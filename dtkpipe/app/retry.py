"""Trying a run again: a new run of the same inputs, from the beginning or from what failed.

A run that has ended stays as it is, with its logs. From what failed means: tasks that succeeded are taken over with
their results, as long as the images they made are still in their registry. The same on both engines.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from dtkpipe.engines.resume import DONE, RETRY_OF, Results, keeps, written
from dtkpipe.errors import InvalidError, NotAllowedError, UnreachableError, UsageError
from dtkpipe.model.pipeline import Pipeline
from dtkpipe.values.run import CANCELLED, FAILED, SUCCEEDED, RunCard

if TYPE_CHECKING:
    from dtkpipe.app.runs_on_cluster import ClusterRuns
    from dtkpipe.clients.cluster import Object

_NUMBER = re.compile(r"-[1-9][0-9]?$")
"""What a further run of the same inputs has behind its name."""
_KEPT = ("app.kubernetes.io/", "dtkpipe.io/", "workflows.argoproj.io/workflow-template")
"""Begins the labels that a run was made with; the others are its engine's."""


def retry(runs: ClusterRuns, name: str, *, from_failed: bool) -> RunCard:
    """Create the new run and return its card.

    Raises NotFoundError, UsageError for a run that did not fail, ExistsError while another run of the same module and
    target is at work, and what the cluster says against it.
    """
    from dtkpipe.app.submit.cluster import INPUTS, MODULE, Prepared, submit
    from dtkpipe.app.submit.request import Request

    run = runs.find(name)
    card = runs.whole(run)
    if card.state not in (FAILED, CANCELLED):
        hint = f"dtkpipe wait {name}" if card.state != SUCCEEDED else "dtkpipe submit --force builds it once more"
        raise UsageError(f"run `{name}` has not failed: it is {card.state}", hint=hint)
    engine = importlib.import_module(f"dtkpipe.engines.{runs.engine.name}.resume")
    done = taken_over(run, card, engine) if from_failed else {}
    meta = run["metadata"]
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key.startswith(_KEPT)}
    digest = str((meta.get("annotations") or {}).get(INPUTS, ""))
    annotations = {RETRY_OF: name, **({INPUTS: digest} if digest else {}), **({DONE: written(done)} if done else {})}
    again = {
        "apiVersion": run["apiVersion"],
        "kind": run["kind"],
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": engine.resumed(run, done) if done else engine.fresh(run),
    }
    prepared = Prepared(
        engine=runs.engine, place=runs.place, pipeline=Pipeline(card.pipeline, "", tasks=()), params=card.inputs,
        module=labels.get(MODULE, ""), name=_NUMBER.sub("", name), digest=digest, run=again,
        request=Request(force=True),
    )  # fmt: skip
    return submit(prepared, "fail", lambda _line: None).card


def taken_over(run: Object, card: RunCard, engine: ModuleType) -> dict[str, Results]:
    """Return the tasks that need not run again, and their results.

    A task counts that succeeded, whose images are still there, and behind which there is nothing that changes.
    """
    from dtkpipe.engines.local.engine import images

    graph = engine.graph(run)
    done = {step.name: step.results for step in card.steps if step.state == SUCCEEDED and step.name in graph}
    kept = keeps(graph, done, set())
    needed = {need for task, needs in graph.items() if task not in kept for need in needs} & set(kept)
    lost = {
        name for name in needed
        if not all(_is_there(card.inputs, url, digest) for url, digest in images(kept[name]))
    }  # fmt: skip
    return keeps(graph, done, lost) if lost else kept


def _is_there(inputs: Mapping[str, str], url: str, digest: str) -> bool:
    """Say whether a registry has an image. One that cannot be asked from here is taken at the task's word."""
    import json

    from dtkpipe.clients.registry import Registry
    from dtkpipe.clients.transport import Patience
    from dtkpipe.values.access import access_from
    from dtkpipe.values.image import ImageRef

    hosts = tuple(json.loads(inputs.get("insecure-registries") or "[]"))
    access = access_from(hosts, inputs.get("registry-ca", ""), os.environ, inputs.get("registry-mirrors", ""))
    try:
        return Registry(access, Patience(connect=5, read=20, attempts=1)).exists(ImageRef.parse(url).at(digest))
    except (UnreachableError, NotAllowedError):
        return True
    except InvalidError:
        return False
