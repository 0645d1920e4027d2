"""From the neutral pipeline to Argo's objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from dtkpipe.engines.argo.proven import proven_object, proven_template
from dtkpipe.engines.container import Spelling, container, node_selector, repeats_itself, resources, volumes
from dtkpipe.engines.rendered import (
    Form,
    Object,
    Rendered,
    Unsupported,
    carried,
    fields,
    image_results,
    labels,
    longest,
    longest_finally,
)
from dtkpipe.engines.rights import EXECUTOR, TOKENLESS
from dtkpipe.errors import UnreachableError
from dtkpipe.model.pipeline import Param, Pipeline, Program, Rights, Task

NAME = "argo"
_API = "argoproj.io/v1alpha1"
_RESULTS = "/run/dtkpipe/results"
_ENTRYPOINT = "pipeline"
SPELLING = Spelling(
    param="{{{{workflow.parameters.{}}}}}",
    result="{{{{tasks.{}.outputs.parameters.{}}}}}",
    status="{{{{tasks.{}.status}}}}",
    run_name="{{workflow.name}}",
    input="{{{{inputs.parameters.{}}}}}",
    result_path=f"{_RESULTS}/{{}}",
    run_name_inside="{{workflow.name}}",
)
_ENDS = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted")


def render(
    pipeline: Pipeline, form: Form, params: Mapping[str, str], *, images: Mapping[str, str], run_name: str = ""
) -> Rendered:
    """Return the objects for Argo Workflows. The pipeline is taken to be checked.

    `params` are values of the pipeline's parameters, `images` say what the names of images stand for, `run_name` is
    the name of the run (default: Kubernetes gives one that begins with the pipeline's). Raises UsageError for a value
    that Argo would not take as data.
    """
    values = carried(params)
    run = {"name": run_name} if run_name else {"generateName": f"{pipeline.name}-"}
    match form:
        case Form.TEMPLATE:
            metadata = {"name": pipeline.name, **_described(pipeline)}
            made = _whole("WorkflowTemplate", metadata, pipeline, values, images)
        case Form.INLINE:
            made = _whole("Workflow", {**run, **_described(pipeline)}, pipeline, values, images)
        case Form.RUN:  # the smallest object: in Strict mode Argo accepts nothing more of a run
            spec = fields(
                workflowTemplateRef={"name": pipeline.name},
                arguments=_parameters([_param(name, value) for name, value in values.items()]),
            )
            # The label that `argo submit --from` sets, and that people select runs by.
            named = {**labels(pipeline), "workflows.argoproj.io/workflow-template": pipeline.name}
            # Not through Hera, which takes longer to load than all else in `submit`; a test proves that it agrees.
            made = _object("Workflow", {**run, "labels": named}, spec)
    return Rendered((made,), tuple(_unsupported(pipeline)))


def _whole(
    kind: str, metadata: Object, pipeline: Pipeline, values: Mapping[str, str], images: Mapping[str, str]
) -> Object:
    spec = fields(
        entrypoint=_ENTRYPOINT,
        arguments=_parameters([_declared(one, values.get(one.name, one.default)) for one in pipeline.params]),
        serviceAccountName=Rights().service_account,
        executor={"serviceAccountName": EXECUTOR},
        activeDeadlineSeconds=longest(pipeline) + longest_finally(pipeline),
        podMetadata={"labels": labels(pipeline)},
    )
    made = proven_object(_object(kind, metadata, spec))
    named = tuple(sorted(images.items()))
    templates = [_template(task, named) for task in pipeline.all_tasks]  # each is proven once, and used often
    made["spec"]["templates"] = [proven_template(_graph(pipeline)), *templates]
    return made


def _object(kind: str, metadata: Object, spec: Object) -> Object:
    return {"apiVersion": _API, "kind": kind, "metadata": metadata, "spec": spec}


def _described(pipeline: Pipeline) -> Object:
    return {
        "labels": labels(pipeline),
        "annotations": {
            "workflows.argoproj.io/title": pipeline.name,
            "workflows.argoproj.io/description": pipeline.description,
        },
    }


def _param(name: str, value: str) -> Object:
    return {"name": name, "value": value}


def _declared(param: Param, value: str | None) -> Object:
    spec = fields(name=param.name, description=param.description)
    return spec if value is None else {**spec, "value": value}


def _parameters(parameters: Sequence[Object]) -> Object:
    return fields(parameters=list(parameters))


def _graph(pipeline: Pipeline) -> Object:
    """Return the DAG.

    Finally tasks wait for every end of every task: so they always run, and can read how each one ended. With every
    task as a target, the run succeeds when all of them do, as on Tekton; by default the last ones would decide alone.
    """
    after_all = [f"({' || '.join(f'{task.name}.{end}' for end in _ENDS)})" for task in pipeline.tasks]
    tasks = [_node(task, [f"{need}.Succeeded" for need in task.needs]) for task in pipeline.tasks]
    tasks += [_node(task, after_all) for task in pipeline.finally_]
    outputs = [
        {"name": name, "valueFrom": {"parameter": SPELLING.result.format(task, name)}}
        for task, name in image_results(pipeline)
    ]
    target = " ".join(task.name for task in pipeline.all_tasks)
    return fields(
        name=_ENTRYPOINT, dag={"failFast": False, "target": target, "tasks": tasks}, outputs=_parameters(outputs)
    )


def _node(task: Task, depends: Sequence[str]) -> Object:
    arguments = [_param(one.name, SPELLING.value(one.value)) for one in task.inputs]
    arguments += [_param(one.param, SPELLING.param.format(one.param)) for one in task.secrets]
    return fields(name=task.name, template=task.name, depends=" && ".join(depends), arguments=_parameters(arguments))


@lru_cache(maxsize=1024)
def _template(task: Task, images: tuple[tuple[str, str], ...]) -> Object:
    first = [{"name": one.name, **_container(task, one, images)} for one in task.prepare]
    described = _container(task, task.program, images)
    held = volumes(task, SPELLING)
    if task.results:
        described["volumeMounts"].append({"name": "results", "mountPath": _RESULTS})
        held.append({"name": "results", "emptyDir": {}})
    inputs = [fields(name=one.name, description=one.description) for one in task.inputs]
    inputs += [fields(name=one.param, description=f"Secret: {', '.join(one.files)}") for one in task.secrets]
    outputs = [
        fields(
            name=one.name,
            description=one.description,
            valueFrom={"path": SPELLING.result_path.format(one.name), "default": ""},
        )
        for one in task.results
    ]
    return proven_template(
        fields(
            name=task.name,
            metadata={"annotations": {"workflows.argoproj.io/description": task.description}},
            inputs=_parameters(inputs),
            outputs=_parameters(outputs),
            serviceAccountName=task.rights.service_account,
            automountServiceAccountToken=task.rights.service_account not in TOKENLESS,
            activeDeadlineSeconds=task.timeout,
            retryStrategy=_retries(task),
            nodeSelector=node_selector(task, SPELLING),
            initContainers=first,
            container=described,
            volumes=held,
        )
    )


def _container(task: Task, program: Program, images: tuple[tuple[str, str], ...]) -> Object:
    return {**container(task, program, SPELLING, dict(images)), "resources": resources(task, program)}


def _retries(task: Task) -> Object | None:
    """Repeat a pod that never ran or was lost, or whose program somebody killed; not one that came to its end.

    A step of ours that says "unreachable" has repeated itself by then; another program has not. One that ran into its
    pod's memory or time limit would do so again.
    """
    if not task.retries:
        return None
    unreachable = "" if repeats_itself(task) else f" || lastRetry.exitCode == '{UnreachableError.exit_code}'"
    killed = "lastRetry.exitCode in ['137', '143']"
    limit = "lastRetry.message matches 'OOMKilled|deadline'"
    return {
        "limit": str(task.retries),
        "retryPolicy": "Always",
        "expression": f"lastRetry.status == 'Error' || ({killed} && !({limit})){unreachable}",
        "backoff": {"duration": "10s", "factor": "2"},
    }


def _unsupported(pipeline: Pipeline) -> Iterator[Unsupported]:
    if pipeline.finally_:
        yield Unsupported(
            "finally after a stop",
            f"task {', '.join(task.name for task in pipeline.finally_)}",
            "Argo runs no further task of a run that was stopped or has hit its time limit",
        )
