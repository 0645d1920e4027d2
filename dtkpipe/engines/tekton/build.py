"""Tekton's objects (tekton.dev/v1) as plain data: the fields that dtkpipe uses, and no others.

Field names: tektoncd/pipeline, pkg/apis/pipeline/v1. The tests hold every object against Tekton's own CRDs and judge it
with Tekton's own validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dtkpipe.engines.rendered import Object as Fields
from dtkpipe.engines.rendered import fields

API = "tekton.dev/v1"
MIN_VERSION = "1.9.0"
"""The oldest Tekton Pipelines that is supported; goes into an annotation that Tekton's catalogue tools read."""


def an_object(kind: str, metadata: Fields, spec: Fields) -> Fields:
    """Return one Kubernetes object."""
    return {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec}


def declared(name: str, description: str, default: str | None = None) -> Fields:
    """Return the declaration of a parameter. Without a default it is required; an empty string is a default."""
    spec = fields(name=name, type="string", description=description)
    return spec if default is None else {**spec, "default": default}


def param(name: str, value: str) -> Fields:
    """Return the value of a parameter."""
    return {"name": name, "value": value}


def result(name: str, description: str) -> Fields:
    """Return the declaration of a task's result."""
    return fields(name=name, type="string", description=description)


def step(name: str, container: Mapping[str, Any], resources: Fields) -> Fields:
    """Return one step of a task: a container."""
    return {"name": name, **container, "computeResources": resources}


def task_spec(*, description: str, params: Sequence[Fields], results: Sequence[Fields], steps: Sequence[Fields],
              volumes: Sequence[Fields]) -> Fields:  # fmt: skip
    """Return what a Task does."""
    return fields(
        description=description, params=list(params), results=list(results), steps=list(steps), volumes=list(volumes)
    )


def pipeline_task(*, name: str, params: Sequence[Fields], run_after: Sequence[str], timeout: str,
                  retries: int, ref: str = "", spec: Fields | None = None) -> Fields:  # fmt: skip
    """Return a task's place in a Pipeline: a reference to a Task, or a Task of its own."""
    return fields(
        name=name,
        taskRef={"kind": "Task", "name": ref} if ref else None,
        taskSpec=spec,
        params=list(params),
        runAfter=list(run_after),
        timeout=timeout,
        retries=retries or None,
    )


def pipeline_spec(*, description: str, params: Sequence[Fields], tasks: Sequence[Fields], finally_: Sequence[Fields],
                  results: Sequence[Fields]) -> Fields:  # fmt: skip
    """Return a Pipeline's tasks in their order, and those that run after them however they ended."""
    return fields(
        description=description,
        params=list(params),
        tasks=list(tasks),
        **{"finally": list(finally_)},
        results=list(results),
    )


def account(name: str, token: bool, nodes: Mapping[str, str]) -> Fields:
    """Return as whom a task's pod runs, whether it gets that account's token, and on which nodes."""
    template = {"automountServiceAccountToken": token, "nodeSelector": dict(nodes)}
    return {"serviceAccountName": name, "podTemplate": template}
