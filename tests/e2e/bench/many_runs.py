"""`dtkpipe list` in a namespace with very many runs: objects as finished runs leave them, made without running any."""

from __future__ import annotations

import copy
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dtkpipe.app.clusters import ENGINES, RUN, Engine, Place
from dtkpipe.app.compile import Wanted, compile_pipeline
from dtkpipe.app.pipelines import load
from dtkpipe.app.runs_on_cluster import ClusterRuns
from dtkpipe.clients.cluster import PIPELINE_RUNS, TASK_RUNS, WORKFLOWS, Cluster, Object
from dtkpipe.engines.rendered import Form
from dtkpipe.model.pipeline import Pipeline

RUNS, SHOWN, DETAILED = 500, 50, 60
"""How many runs there are, how many `list` shows, and how many have TaskRuns, which are asked for by their runs."""
_PARAMS = {"release": "4.14", "repo": "https://git.example/org/kmod", "push-to": "registry.example/org/kmod"}
_RESULTS = {"KERNEL": "5.14.0-284.52.1.el9_2.x86_64", "VERDICT": "proven", "EVIDENCE": "e" * 2048}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measurement: seconds of the whole process (median of several), and requests to the API server."""

    engine: str
    seconds: float
    requests: int
    runs: int


def measure(kubeconfig: Path, namespace: str, *, turns: int = 5) -> Iterator[Measured]:
    """Fill the namespace and measure `list` for each engine."""
    client = Cluster(kubeconfig)
    for engine in ENGINES.values():
        fill(client, namespace, engine, RUNS)
        words = ["list", "--engine", engine.name, "-n", namespace, "--kubeconfig", str(kubeconfig)]
        times = [_timed(words) for _ in range(turns)]
        yield Measured(
            engine=engine.name, seconds=statistics.median(times), requests=_requests(kubeconfig, namespace, engine),
            runs=len(client.list(engine.runs, namespace)),
        )  # fmt: skip


def fill(client: Cluster, namespace: str, engine: Engine, count: int) -> None:
    """Create `count` runs that have ended, as large as real ones of pipeline `prebuild`."""
    pipeline = load("prebuild")
    run = compile_pipeline(pipeline, Wanted(engine=engine.name, form=Form.RUN, params=_PARAMS, run_name="x")).objects[0]
    whole = compile_pipeline(pipeline, Wanted(engine=engine.name, form=Form.INLINE, params=_PARAMS, run_name="x"))
    spec = whole.objects[0]["spec"]
    make = _argo if engine.name == "argo" else _tekton
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(make, client, namespace, copy.deepcopy(run), spec, pipeline, one) for one in range(count)]
        for job in jobs:
            job.result()


def _argo(client: Cluster, namespace: str, run: Object, spec: Object, pipeline: Pipeline, number: int) -> None:
    """The status of a Workflow can be given at once; the controller leaves one alone that is labelled completed."""
    name = f"kmod-4-14-{number:08x}"
    labels = {"workflows.argoproj.io/completed": "true", "workflows.argoproj.io/phase": "Succeeded"}
    run["metadata"] |= {"name": name, "labels": {**run["metadata"]["labels"], RUN: name, **labels}}
    begun, ended = _times(number)
    nodes = {name: _node(name, name, "DAG", begun, ended)}
    for task in pipeline.all_tasks:
        node = _node(f"{name}.{task.name}", task.name, "Pod", begun, ended)
        node["boundaryID"], node["templateName"] = name, task.name
        node["inputs"] = {"parameters": [{"name": one.name, "value": "v" * 20} for one in task.inputs]}
        node["outputs"] = {"exitCode": "0", "parameters": _given(task.name, pipeline)}
        nodes[str(node["id"])] = node
    run["status"] = {
        "phase": "Succeeded", "startedAt": begun, "finishedAt": ended, "progress": "7/7", "nodes": nodes,
        "storedWorkflowTemplateSpec": spec,
        "storedTemplates": {f"namespaced/prebuild/{one['name']}": one for one in spec["templates"]},
    }  # fmt: skip
    client.create(WORKFLOWS, run, namespace)


def _node(name: str, shown: str, kind: str, begun: str, ended: str) -> dict[str, Any]:
    return {
        "id": name, "name": name, "displayName": shown, "type": kind, "phase": "Succeeded", "startedAt": begun,
        "finishedAt": ended, "hostNodeName": "node0", "templateScope": "local/", "progress": "1/1",
    }  # fmt: skip


def _tekton(client: Cluster, namespace: str, run: Object, spec: Object, pipeline: Pipeline, number: int) -> None:
    """A run that is created as pending is left alone; it may have ended then, but not have begun."""
    name = f"kmod-4-14-{number:08x}"
    run["metadata"] |= {"name": name, "labels": {**run["metadata"]["labels"], RUN: name}}
    run["spec"]["status"] = "PipelineRunPending"
    made = client.create(PIPELINE_RUNS, run, namespace)
    begun, ended = _times(number)
    children = [
        {"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "name": f"{name}-{one.name}", "pipelineTaskName": one.name}
        for one in pipeline.all_tasks
    ]
    status = {
        "conditions": [_succeeded(ended, "Completed")], "completionTime": ended,
        "childReferences": children, "pipelineSpec": spec["pipelineSpec"],
    }  # fmt: skip
    client.patch(PIPELINE_RUNS, name, namespace, {"status": status}, subresource="status")
    if number < RUNS - DETAILED:
        return
    specs = {one["name"]: one["taskSpec"] for part in ("tasks", "finally") for one in spec["pipelineSpec"][part]}
    for task in pipeline.all_tasks:
        labels = {
            **made["metadata"]["labels"], "tekton.dev/pipelineRun": name, "tekton.dev/pipelineTask": task.name,
        }  # fmt: skip
        part = {
            "apiVersion": "tekton.dev/v1", "kind": "TaskRun",
            "metadata": {"name": f"{name}-{task.name}", "labels": labels},
            "spec": {"status": "TaskRunPending", "taskRef": {"name": f"prebuild-{task.name}"}},
        }  # fmt: skip
        client.create(TASK_RUNS, part, namespace)
        over = {"exitCode": 0, "startedAt": begun, "finishedAt": ended, "containerID": "c", "reason": "Completed"}
        told = {
            "conditions": [_succeeded(ended, "Succeeded")], "completionTime": ended,
            "podName": f"{name}-{task.name}-pod", "taskSpec": specs[task.name],
            "steps": [{"name": task.name, "container": f"step-{task.name}", "terminated": over}],
            "results": [{**one, "type": "string"} for one in _given(task.name, pipeline)],
        }  # fmt: skip
        client.patch(TASK_RUNS, f"{name}-{task.name}", namespace, {"status": told}, subresource="status")


def _succeeded(when: str, reason: str) -> dict[str, str]:
    return {"type": "Succeeded", "status": "True", "reason": reason, "message": "", "lastTransitionTime": when}


def _given(task: str, pipeline: Pipeline) -> list[dict[str, str]]:
    named = pipeline.task(task).results
    return [{"name": one.name, "value": _RESULTS.get(one.name, "sha256:" + "0" * 64)} for one in named]


def _times(number: int) -> tuple[str, str]:
    begun = datetime.now(UTC) - timedelta(minutes=RUNS - number)
    return begun.strftime("%Y-%m-%dT%H:%M:%SZ"), (begun + timedelta(seconds=45)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _timed(words: list[str]) -> float:
    begun = time.monotonic()
    program = Path(sys.executable).with_name("dtkpipe")
    environ: Mapping[str, str] = {**os.environ, "DTKPIPE_CONFIG": ""}
    subprocess.run([program, *words], check=True, capture_output=True, env=environ)
    return time.monotonic() - begun


class Counting(Cluster):
    """Counts the lists that it is asked for; all of them have one page."""

    asked = 0

    def list(self, *args: Any, **options: Any) -> list[Object]:
        """List objects."""
        self.asked += 1
        return super().list(*args, **options)


def _requests(kubeconfig: Path, namespace: str, engine: Engine) -> int:
    client = Counting(kubeconfig)
    ClusterRuns(Place(client, namespace), engine).all(SHOWN)
    return client.asked
