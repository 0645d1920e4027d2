"""Clusters that runs are on: where they are, which engine is there, and by which objects it knows its runs."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtkpipe import __version__
from dtkpipe.clients.cluster import (
    NAMESPACES,
    PIPELINE_RUNS,
    PIPELINES,
    TASK_RUNS,
    WORKFLOW_TEMPLATES,
    WORKFLOWS,
    Cluster,
    Object,
    Resource,
)
from dtkpipe.errors import NotAllowedError, NotFoundError, UnreachableError, UnsupportedError
from dtkpipe.values.run import RunCard

Say = Callable[[str], None]
MANAGED = "app.kubernetes.io/managed-by=dtkpipe"
"""The label that all objects of ours carry, as a selector."""
RUN = "dtkpipe.io/run"
"""Label of a run that holds its own name: so that several can be asked for at once."""
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What dtkpipe needs to know of an engine to run pipelines on it."""

    name: str
    title: str
    floor: str
    runs: Resource
    templates: Resource
    """What a pipeline is installed as."""
    parts: Resource | None = None
    """Objects that a run is made of, besides its pods."""
    run_label: str
    """Label of parts and pods that names their run."""
    cancel: Mapping[str, Any] = field(default_factory=dict)
    """Merge patch that ends a run, letting what always runs at the end run, where the engine can."""

    def card(
        self, run: Object, parts: Sequence[Object] = (), pods: Sequence[Object] = (), events: Sequence[Object] = ()
    ) -> RunCard:
        """Return how a run goes, from its objects; pods and warnings about them say what a task waits for."""
        status = importlib.import_module(f"dtkpipe.engines.{self.name}.status")
        found: RunCard = status.card(run, parts, pods, events) if self.parts else status.card(run, pods, events)
        return found

    def selector(self, run: str) -> str:
        """Return the selector of a run's parts and pods."""
        return f"{self.run_label}={run}"


ARGO = Engine(
    name="argo", title="Argo Workflows", floor="3.7.16 or 4.0.7", runs=WORKFLOWS, templates=WORKFLOW_TEMPLATES,
    run_label="workflows.argoproj.io/workflow", cancel={"spec": {"shutdown": "Stop"}},
)  # fmt: skip
TEKTON = Engine(
    name="tekton", title="Tekton", floor="1.9", runs=PIPELINE_RUNS, templates=PIPELINES, parts=TASK_RUNS,
    run_label="tekton.dev/pipelineRun", cancel={"spec": {"status": "CancelledRunFinally"}},
)  # fmt: skip
ENGINES: Mapping[str, Engine] = {one.name: one for one in (ARGO, TEKTON)}


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which cluster and namespace the user means; what is empty is the kubeconfig's choice."""

    kubeconfig: Path | None = None
    context: str = ""
    namespace: str = ""

    @property
    def given(self) -> bool:
        """Whether the user named any of it."""
        return bool(self.kubeconfig or self.context or self.namespace)


@dataclass(frozen=True)
class Place:
    """A namespace of a cluster."""

    cluster: Cluster
    namespace: str

    def __str__(self) -> str:
        return f"namespace {self.namespace} of {self.cluster.host}"


def connect(where: Where) -> Place:
    """Return the place. Nothing is asked yet. Raises InvalidError, NotFoundError for an unknown context."""
    cluster = Cluster(where.kubeconfig, where.context)
    return Place(cluster, where.namespace or cluster.namespace)


def is_configured(where: Where, environ: Mapping[str, str] = os.environ) -> bool:
    """Say whether anything names a cluster, without asking it and without loading the client."""
    if where.kubeconfig or where.context:
        return True
    if named := environ.get("KUBECONFIG"):
        return named != os.devnull  # as kubectl takes it: no cluster at all
    home = Path(environ.get("HOME", "/root")) / ".kube" / "config"
    return home.is_file() or _ACCOUNT.is_file()


def installed(place: Place, engine: Engine, pipeline: str, how: str) -> Object:
    """Return the object that a pipeline is installed as; `how` is the command that installs it.

    Raises UnsupportedError for a cluster without that engine or with one that is too old, NotFoundError where the
    pipeline is not installed or there is no such namespace, NotAllowedError for one that is being deleted.
    """
    if found := place.cluster.find(engine.templates, pipeline, place.namespace):
        return found
    _see_namespace(place)
    if engine.templates.plural not in place.cluster.served(engine.templates.api):
        others = place.cluster.versions(engine.templates.group)
        raise UnsupportedError(
            f"{engine.title} of this cluster is too old" if others else f"{engine.title} is not on this cluster",
            f"needed: {engine.templates.words} in {engine.templates.api}",
            f"{place.cluster.host} serves: {', '.join(others) or 'nothing of it'}",
            hint=f"install {engine.title} (at least {engine.floor}), or name another engine: --engine",
        )
    raise NotFoundError(
        f"pipeline `{pipeline}` is not installed in namespace {place.namespace}",
        f"looked for: {engine.templates.words}/{pipeline}",
        hint=how,
    )


def _see_namespace(place: Place) -> None:
    """Raise NotFoundError for a namespace that is not there, NotAllowedError for one that is being deleted."""
    name = place.namespace
    try:
        found = place.cluster.find(NAMESPACES, name)
    except NotAllowedError:  # whoever may start runs in a namespace need not be allowed to see it
        return
    if found is None:
        raise NotFoundError(f"there is no namespace `{name}`", hint=f"kubectl create namespace {name}, or -n another")
    if found["metadata"].get("deletionTimestamp"):
        raise NotAllowedError(
            f"namespace {name} is being deleted: nothing new can be made in it",
            hint=f"kubectl wait --for=delete namespace/{name}, or -n another",
        )


def find_engine(place: Place, pipeline: str) -> tuple[Engine, Object] | None:
    """Return an engine that the pipeline is installed for, and what it is installed as; Argo before Tekton."""
    for engine in ENGINES.values():
        if found := place.cluster.find(engine.templates, pipeline, place.namespace):
            return engine, found
    return None


def say_versions(template: Object, say: Say) -> None:
    """Say when what is installed is another version's."""
    metadata = template.get("metadata") or {}
    version = str((metadata.get("labels") or {}).get("app.kubernetes.io/version") or "")
    if version != __version__.replace("+", "_"):
        say(
            f"note: pipeline {metadata.get('name')} is installed as of dtkpipe {version or 'of an unknown version'}, "
            f"this is {__version__}; dtkpipe install brings it up to date"
        )


def unreachable_without_engine(error: UnreachableError) -> UnreachableError:
    """Return the error for a cluster that cannot say whether runs go there."""
    return UnreachableError(
        error.what, *error.details, hint="say where to run: --engine local for this machine, --engine argo or tekton"
    )
