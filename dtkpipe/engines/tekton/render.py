"""From the neutral pipeline to Tekton's objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from dtkpipe.engines.container import (
    Spelling,
    container,
    node_selector,
    repeats_itself,
    resources,
    uses_run_name,
    volumes,
)
from dtkpipe.engines.rendered import (
    Form,
    Object,
    Rendered,
    Unsupported,
    at_most,
    carried,
    fields,
    image_results,
    labels,
    longest,
    longest_finally,
)
from dtkpipe.engines.rights import TOKENLESS
from dtkpipe.engines.tekton import build
from dtkpipe.model.pipeline import Pipeline, Rights, Task

NAME = "tekton"
_RUN_NAME = "dtkpipe-run-name"
SPELLING = Spelling(
    param="$(params.{})",
    result="$(tasks.{}.results.{})",
    status="$(tasks.{}.status)",
    run_name="$(context.pipelineRun.name)",
    input="$(params.{})",
    result_path="$(results.{}.path)",
    run_name_inside=f"$(params.{_RUN_NAME})",
)
Images = tuple[tuple[str, str], ...]
_EVERY_TASK = Rights().service_account
_ANY_NODE = {"kubernetes.io/os": "linux"}


def render(
    pipeline: Pipeline, form: Form, params: Mapping[str, str], *, images: Mapping[str, str], run_name: str = ""
) -> Rendered:
    """Return the objects for Tekton. The pipeline is taken to be checked.

    `params` are values of the pipeline's parameters, `images` say what the names of images stand for, `run_name` is
    the name of the run (default: Kubernetes gives one that begins with the pipeline's). Raises UsageError for a value
    that Tekton would not take as data.
    """
    values = carried(params)
    named = tuple(sorted(images.items()))
    match form:
        case Form.TEMPLATE:
            objects = [_task(pipeline, task, named) for task in pipeline.all_tasks]
            objects.append(_pipeline(pipeline, values))
        case Form.RUN:
            objects = [_run(pipeline, {"pipelineRef": {"name": pipeline.name}}, values, run_name)]
        case Form.INLINE:
            spec = {"pipelineSpec": _pipeline_spec(pipeline, {}, named)}
            objects = [_run(pipeline, spec, values, run_name)]
    return Rendered(tuple(objects), tuple(_unsupported(pipeline)))


def _task(pipeline: Pipeline, task: Task, images: Images) -> Object:
    metadata = {
        "name": _task_name(pipeline, task),
        "labels": labels(pipeline, task),
        "annotations": {"tekton.dev/pipelines.minVersion": build.MIN_VERSION},
    }
    return build.an_object("Task", metadata, _task_spec(task, images))


def _task_name(pipeline: Pipeline, task: Task) -> str:
    return f"{pipeline.name}-{task.name}"


@lru_cache(maxsize=1024)
def _task_spec(task: Task, images: Images) -> Object:
    params = [build.declared(one.name, one.description) for one in task.inputs]
    params += [build.declared(one.param, f"Secret: {', '.join(one.files)}") for one in task.secrets]
    if uses_run_name(task):
        params.append(build.declared(_RUN_NAME, "Name of the run"))
    return build.task_spec(
        description=task.description,
        params=params,
        results=[build.result(one.name, one.description) for one in task.results],
        steps=[
            build.step(one.name or task.name, container(task, one, SPELLING, dict(images)), resources(task, one))
            for one in task.programs
        ],
        volumes=volumes(task, SPELLING),
    )


def _pipeline(pipeline: Pipeline, values: Mapping[str, str]) -> Object:
    metadata = {
        "name": pipeline.name,
        "labels": labels(pipeline),
        "annotations": {"tekton.dev/pipelines.minVersion": build.MIN_VERSION},
    }
    return build.an_object("Pipeline", metadata, _pipeline_spec(pipeline, values, None))


def _pipeline_spec(pipeline: Pipeline, values: Mapping[str, str], inline: Images | None) -> Object:
    """`inline` are the images for Tasks that lie in the Pipeline; None refers to installed Tasks."""
    return build.pipeline_spec(
        description=pipeline.description,
        params=[
            build.declared(one.name, one.description, values.get(one.name, one.default)) for one in pipeline.params
        ],
        tasks=[_pipeline_task(pipeline, task, inline) for task in pipeline.tasks],
        finally_=[_pipeline_task(pipeline, task, inline) for task in pipeline.finally_],
        results=[
            {**build.result(name, f"{name} of {task}"), "value": SPELLING.result.format(task, name)}
            for task, name in image_results(pipeline)
        ],
    )


def _pipeline_task(pipeline: Pipeline, task: Task, inline: Images | None) -> Object:
    params = [build.param(one.name, SPELLING.value(one.value)) for one in task.inputs]
    params += [build.param(one.param, SPELLING.param.format(one.param)) for one in task.secrets]
    if uses_run_name(task):
        params.append(build.param(_RUN_NAME, SPELLING.run_name))
    return build.pipeline_task(
        name=task.name,
        params=params,
        run_after=task.needs,
        timeout=_duration(task.timeout),
        retries=0 if repeats_itself(task) else task.retries,
        ref="" if inline is not None else _task_name(pipeline, task),
        spec=None if inline is None else _task_spec(task, inline),
    )


def _run(pipeline: Pipeline, what: Object, values: Mapping[str, str], run_name: str) -> Object:
    own = [
        task for task in pipeline.all_tasks if task.rights.service_account != _EVERY_TASK or task.node_arch is not None
    ]
    tasks, after = longest(pipeline, _at_most), longest_finally(pipeline, _at_most)
    timeouts = {"pipeline": _duration(tasks + after), "tasks": _duration(tasks)}
    if after:
        timeouts["finally"] = _duration(after)
    metadata = {**({"name": run_name} if run_name else {"generateName": f"{pipeline.name}-"})}
    return build.an_object(
        "PipelineRun",
        {**metadata, "labels": labels(pipeline)},
        fields(
            **what,
            params=[build.param(name, value) for name, value in values.items()],
            taskRunTemplate=build.account(_EVERY_TASK, token=False, nodes=_ANY_NODE),
            taskRunSpecs=[{"pipelineTaskName": task.name, **_account(task)} for task in own],
            timeouts=timeouts,
        ),
    )


def _account(task: Task) -> Object:
    name = task.rights.service_account
    return build.account(name, token=name not in TOKENLESS, nodes=node_selector(task, SPELLING))


def _at_most(task: Task) -> int:
    return task.timeout if repeats_itself(task) else at_most(task)


def _duration(seconds: int) -> str:
    return f"{seconds}s"


def _unsupported(pipeline: Pipeline) -> Iterator[Unsupported]:
    retried = [task for task in pipeline.all_tasks if task.retries]
    if own := [task.name for task in retried if repeats_itself(task)]:
        yield Unsupported(
            "repeat a task whose pod was lost",
            f"task {', '.join(own)}",
            "Tekton cannot tell that from a compile error or a refusal: steps repeat themselves when a place does not "
            "answer, and a run that lost a pod fails; retry it",
        )
    if foreign := [task.name for task in retried if not repeats_itself(task)]:
        yield Unsupported(
            "retry only what a retry can mend",
            f"task {', '.join(foreign)}",
            "Tekton repeats a task after any failure, and without a pause",
        )
