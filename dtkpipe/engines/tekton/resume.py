"""A PipelineRun that goes on where another one ended: done tasks are taken out, their results written in. Pure.

Works on what `render` makes: tasks read each other's results in their params, and wait for each other by `runAfter`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from dtkpipe.engines.rendered import Object
from dtkpipe.engines.resume import Results, filled
from dtkpipe.engines.tekton.render import SPELLING


def fresh(run: Object) -> Object:
    """Return the spec of a run as it was submitted, without what ended it."""
    return {key: value for key, value in run["spec"].items() if key != "status"}


def graph(run: Object) -> dict[str, tuple[str, ...]]:
    """Return the tasks and those that each waits for; without those that run at the end, however the others ended."""
    return {task["name"]: tuple(task.get("runAfter") or ()) for task in _whole(run).get("tasks") or ()}


def resumed(run: Object, done: Mapping[str, Results]) -> Object:
    """Return the spec of a run of the tasks that are not done. It carries its pipeline; Tasks stay the installed ones.

    Raises InvalidError for a result that Tekton would not take as data.
    """
    pipeline = copy.deepcopy(_whole(run))
    if not pipeline:
        return fresh(run)
    for part in ("tasks", "finally"):
        if part in pipeline:
            pipeline[part] = [_task(task, done) for task in pipeline[part] if task["name"] not in done]
    pipeline.pop("results", None)
    spec = {key: value for key, value in fresh(run).items() if key not in ("pipelineRef", "pipelineSpec")}
    if of_tasks := [one for one in spec.get("taskRunSpecs") or () if one.get("pipelineTaskName") not in done]:
        spec["taskRunSpecs"] = of_tasks
    else:
        spec.pop("taskRunSpecs", None)
    return {"pipelineSpec": pipeline, **spec}


def _whole(run: Object) -> Object:
    """Return the pipeline as it was when the run began; nothing for a run that never did."""
    whole: Object = (run.get("status") or {}).get("pipelineSpec") or run["spec"].get("pipelineSpec") or {}
    return whole


def _task(task: Object, done: Mapping[str, Results]) -> Object:
    made = {key: value for key, value in task.items() if key != "runAfter"}
    if after := [name for name in task.get("runAfter") or () if name not in done]:
        made["runAfter"] = after
    if given := task.get("params"):
        made["params"] = [{**one, "value": filled(str(one["value"]), done, SPELLING)} for one in given]
    return made
