"""What both engines were asked to render, read back out of their own documents into the same words."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dtkpipe.app.compile import Wanted, compile_pipeline
from dtkpipe.app.pipelines import load
from dtkpipe.builders import with_builder
from dtkpipe.engines.dump import dump
from dtkpipe.engines.rendered import Form, Object
from dtkpipe.model.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[2]
OWN = str(ROOT / "tests/fixtures/pipelines/scan.py")
KANIKO = "prebuild, kaniko"
PIPELINES = ("kmod", "prebuild", "resign", KANIKO, OWN)
ENGINES = ("argo", "tekton")
PARAMS = {
    "release": "debian-12",
    "repo": "https://git.example/org/kmod",
    "ref": "1e5",
    "push-to": "registry.example/org/kmod",
    "build-args": '["A=1", "B=two words"]',
}
_GIVEN = {**PARAMS, "image": "registry.example/org/kmod:b"}

# A reference of either engine inside a task, e.g. `$(params.repo)` and `{{inputs.parameters.repo}}`.
_INSIDE = (
    (r"\{\{inputs\.parameters\.([^}]+)\}\}", r"<input \1>"),
    (r"\$\(params\.([^)]+)\)", r"<input \1>"),
    (r"/run/dtkpipe/results/([A-Za-z0-9_-]+)", r"<result \1>"),
    (r"\$\(results\.([^)]+)\.path\)", r"<result \1>"),
)
# The same in what a pipeline gives to its tasks.
_OUTSIDE = (
    (r"\{\{workflow\.parameters\.([^}]+)\}\}", r"<param \1>"),
    (r"\$\(params\.([^)]+)\)", r"<param \1>"),
    (r"\{\{tasks\.([^.}]+)\.outputs\.parameters\.([^}]+)\}\}", r"<result \1 \2>"),
    (r"\$\(tasks\.([^.)]+)\.results\.([^)]+)\)", r"<result \1 \2>"),
    (r"\{\{tasks\.([^.}]+)\.status\}\}", r"<status \1>"),
    (r"\$\(tasks\.([^.)]+)\.status\)", r"<status \1>"),
    (r"\{\{workflow\.name\}\}", "<run>"),
    (r"\$\(context\.pipelineRun\.name\)", "<run>"),
)


@cache
def pipeline(name: str) -> Pipeline:
    return with_builder(load("prebuild"), "kaniko") if name == KANIKO else load(name)


@cache
def objects(engine: str, name: str, form: Form = Form.TEMPLATE) -> tuple[Object, ...]:
    """The documents, after a journey through the text that users get."""
    names = () if form is Form.TEMPLATE else [one.name for one in pipeline(name).params if one.name in _GIVEN]
    wanted = Wanted(engine=engine, form=form, params={name: _GIVEN[name] for name in names})
    rendered = compile_pipeline(pipeline(name), wanted)
    return tuple(yaml.safe_load_all(dump(rendered.objects)))


@dataclass(frozen=True)
class Node:
    """One task of the graph, in neutral words."""

    arguments: dict[str, str]
    after: frozenset[str]
    always: bool
    timeout: int
    retries: int
    service_account: str
    declared: frozenset[str]
    results: frozenset[str]
    prepare: tuple[dict[str, Any], ...]
    container: dict[str, Any]
    volumes: tuple[Any, ...]
    nodes: dict[str, str]

    @property
    def containers(self) -> tuple[dict[str, Any], ...]:
        return (*self.prepare, self.container)


def nodes(engine: str, name: str) -> dict[str, Node]:
    """The tasks of a compiled pipeline, by name."""
    return dict(_argo(name) if engine == "argo" else _tekton(name))


def _argo(name: str) -> Iterator[tuple[str, Node]]:
    (template,) = objects("argo", name)
    by_name = {one["name"]: one for one in template["spec"]["templates"]}
    dag = by_name[template["spec"]["entrypoint"]]["dag"]
    for task in dag["tasks"]:
        what = by_name[task["template"]]
        depends = task.get("depends", "")
        always = "Omitted" in depends
        limit = what.get("retryStrategy", {}).get("limit", "0")
        yield (
            task["name"],
            Node(
                arguments={one["name"]: neutral(one["value"], _OUTSIDE) for one in task["arguments"]["parameters"]},
                after=frozenset() if always else frozenset(re.findall(r"([a-z0-9-]+)\.Succeeded", depends)),
                always=always,
                timeout=what["activeDeadlineSeconds"],
                retries=int(limit),
                service_account=what["serviceAccountName"],
                declared=frozenset(one["name"] for one in what["inputs"]["parameters"]),
                results=frozenset(one["name"] for one in what.get("outputs", {}).get("parameters", [])),
                prepare=tuple(neutral(what.get("initContainers", []), _INSIDE)),
                container=_without_results(neutral(what["container"], _INSIDE)),
                volumes=tuple(one for one in neutral(what["volumes"], _INSIDE) if one["name"] != "results"),
                nodes=neutral(what["nodeSelector"], _INSIDE),
            ),
        )


def _tekton(name: str) -> Iterator[tuple[str, Node]]:
    tasks = {one["metadata"]["name"]: one["spec"] for one in objects("tekton", name) if one["kind"] == "Task"}
    whole = next(one for one in objects("tekton", name) if one["kind"] == "Pipeline")["spec"]
    (run,) = objects("tekton", name, Form.RUN)
    own = {one["pipelineTaskName"]: one for one in run["spec"].get("taskRunSpecs", [])}
    for task in (*whole["tasks"], *whole["finally"]):
        what = tasks[task["taskRef"]["name"]]
        *before, last = (_step(neutral(one, _INSIDE)) for one in what["steps"])
        pod = own.get(task["name"], run["spec"]["taskRunTemplate"])
        yield (
            task["name"],
            Node(
                arguments={one["name"]: neutral(one["value"], _OUTSIDE) for one in task["params"]},
                after=frozenset(task.get("runAfter", [])),
                always=task in whole["finally"],
                timeout=int(task["timeout"].removesuffix("s")),
                retries=task.get("retries", 0),
                service_account=pod["serviceAccountName"],
                declared=frozenset(one["name"] for one in what["params"]),
                results=frozenset(one["name"] for one in what.get("results", [])),
                prepare=tuple(before),
                container={key: value for key, value in last.items() if key != "name"},
                volumes=tuple(neutral(what["volumes"], _INSIDE)),
                nodes=neutral(pod["podTemplate"]["nodeSelector"], _INSIDE),
            ),
        )


def _step(step: dict[str, Any]) -> dict[str, Any]:
    return {("resources" if key == "computeResources" else key): value for key, value in step.items()}


def neutral(value: Any, words: tuple[tuple[str, str], ...]) -> Any:
    """Put neutral words in the place of an engine's references."""
    if isinstance(value, dict):
        return {key: neutral(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [neutral(item, words) for item in value]
    if isinstance(value, str):
        for pattern, word in words:
            value = re.sub(pattern, word, value)
    return value


def _without_results(container: dict[str, Any]) -> dict[str, Any]:
    """Argo needs a folder for results; Tekton brings its own."""
    return {**container, "volumeMounts": [one for one in container["volumeMounts"] if one["name"] != "results"]}
