"""A Workflow that goes on where another one ended: tasks that are done are taken out, their results written in. Pure.

Works on what `render` makes: one DAG, whose tasks read each other's results in their arguments, and wait for each other
by `depends` as conditions joined with `&&`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping

from dtkpipe.engines.argo.render import SPELLING
from dtkpipe.engines.rendered import Object
from dtkpipe.engines.resume import Results, filled

_NEEDS = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)\.(?:Succeeded|Failed|Errored|Skipped|Omitted)")


def fresh(run: Object) -> Object:
    """Return the spec of a run as it was submitted, without what ended it."""
    return _without_end(run["spec"])


def graph(run: Object) -> dict[str, tuple[str, ...]]:
    """Return the tasks and those that each waits for; without those that run at the end, however the others ended."""
    tasks = (_dag(_whole(run)) or {}).get("tasks") or ()
    needs = {task["name"]: str(task.get("depends") or "") for task in tasks}
    return {name: tuple(_NEEDS.findall(text)) for name, text in needs.items() if ".Failed" not in text}


def resumed(run: Object, done: Mapping[str, Results]) -> Object:
    """Return the spec of a run of the tasks that are not done. It carries its whole pipeline.

    Raises InvalidError for a result that Argo would not take as data.
    """
    spec = copy.deepcopy(_whole(run))
    dag, entry = _dag(spec), spec["entrypoint"]
    if dag is None:
        return fresh(run)
    dag["tasks"] = [_task(task, done) for task in dag["tasks"] if task["name"] not in done]
    dag["target"] = " ".join(task["name"] for task in dag["tasks"])
    spec["templates"] = [
        {**one, "outputs": {}} if one["name"] == entry and one.get("outputs") else one for one in spec["templates"]
    ]
    return spec


def _without_end(spec: Object) -> Object:
    return {key: value for key, value in spec.items() if key not in ("shutdown", "suspend")}


def _whole(run: Object) -> Object:
    """Return what the run did: its template's spec as it was then, with the run's own arguments."""
    stored = _without_end((run.get("status") or {}).get("storedWorkflowTemplateSpec") or {})
    own = fresh(run)
    given = [one for spec in (stored, own) for one in (spec.get("arguments") or {}).get("parameters") or ()]
    whole = {key: value for key, value in {**stored, **own}.items() if key != "workflowTemplateRef"}
    arguments = {one["name"]: one for one in given}
    return {**whole, "arguments": {"parameters": list(arguments.values())}} if arguments else whole


def _dag(spec: Object) -> Object | None:
    found = (one.get("dag") for one in spec.get("templates") or () if one.get("name") == spec.get("entrypoint"))
    return next(found, None)


def _task(task: Object, done: Mapping[str, Results]) -> Object:
    conditions = str(task.get("depends") or "").split(" && ")
    left = [one for one in conditions if one and not set(_NEEDS.findall(one)) <= set(done)]
    given = (task.get("arguments") or {}).get("parameters") or ()
    made = {key: value for key, value in task.items() if key != "depends"}
    if left:
        made["depends"] = " && ".join(left)
    if given:
        values = [{**one, "value": filled(str(one["value"]), done, SPELLING)} for one in given]
        made["arguments"] = {**task["arguments"], "parameters": values}
    return made
