"""Which versions a cluster has of what dtkpipe works on, and which are the oldest that will do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dtkpipe.app.clusters import ENGINES, Engine
from dtkpipe.clients.cluster import CONFIG_MAPS, DEPLOYMENTS, Cluster, Object
from dtkpipe.errors import NotAllowedError, UnsupportedError

KUBERNETES_FLOOR = "1.29"
_NUMBER = re.compile(r"v?(\d+(?:\.\d+)+)")
# How the engines' own manifests and charts name and label their controllers.
_CONTROLLERS = {
    "argo": ("metadata.name=workflow-controller", "app.kubernetes.io/component=workflow-controller"),
    "tekton": ("metadata.name=tekton-pipelines-controller", "app.kubernetes.io/name=controller"),
}


@dataclass(frozen=True)
class Found:
    """A version and where it was seen; `version` is empty where it cannot be told."""

    version: str
    where: str

    def __str__(self) -> str:
        return f"{self.version} ({self.where})" if self.version else f"version unknown ({self.where})"


def reaches(version: str, floor: str) -> bool:
    """Say whether a version (`v4.0.7`) is at least the floor of its line: `3.7.16 or 4.0.7`; unknown ones are taken."""
    wanted = sorted(_numbers(one) for one in floor.split(" or "))
    if not (has := _numbers(version)):
        return True
    same = [one for one in wanted if one[0] == has[0]]
    return has >= (same[-1] if same else wanted[-1])


def check(cluster: Cluster, engine: Engine) -> list[Found]:
    """Return the versions of Kubernetes and the engine. Raises UnsupportedError for what is missing or too old."""
    kubernetes = Found(cluster.version(), cluster.host)
    if not reaches(kubernetes.version, KUBERNETES_FLOOR):
        raise UnsupportedError(
            f"Kubernetes {kubernetes.version} is too old", f"needed: at least {KUBERNETES_FLOOR}",
            hint="upgrade the cluster, or use another: --context NAME",
        )  # fmt: skip
    require_api(cluster, engine)
    found = engine_version(cluster, engine)
    if not reaches(found.version, engine.floor):
        raise UnsupportedError(
            f"{engine.title} {found.version} is too old", f"found: {found.where}; needed: at least {engine.floor}",
            hint=f"upgrade {engine.title}, or use the other engine: --engine {other(engine).name}",
        )  # fmt: skip
    return [kubernetes, found]


def require_api(cluster: Cluster, engine: Engine) -> None:
    """Raise UnsupportedError unless the cluster serves the engine's objects in the version that we write."""
    api, served = engine.templates.api, cluster.served(engine.templates.api)
    wanted = [one.plural for one in (engine.templates, engine.runs, engine.parts) if one]
    if missing := [one for one in wanted if one not in served]:
        group = engine.templates.group
        older = cluster.versions(group)
        got = f"it serves {', '.join(f'{group}/{one}' for one in older)}" if older else f"it knows nothing of {group}"
        raise UnsupportedError(
            f"{engine.title} is not on this cluster, or too old",
            f"{cluster.host} does not serve {', '.join(missing)} in {api}: {got}",
            hint=f"install {engine.title} (at least {engine.floor}), or name the other engine: "
            f"--engine {other(engine).name}",
        )


def engine_version(cluster: Cluster, engine: Engine) -> Found:
    """Return the engine's version, as its controller's image or its own ConfigMap says."""
    if engine.name == "tekton":
        # Every user may read it: tektoncd/pipeline, config/200-role.yaml, Role tekton-pipelines-info.
        for namespace in ("tekton-pipelines", "openshift-pipelines"):
            if version := _said(cluster, namespace):
                return Found(version, f"configmap/pipelines-info in {namespace}")
    name, label = _CONTROLLERS[engine.name]
    try:
        controllers = cluster.list(DEPLOYMENTS, fields=name) or cluster.list(DEPLOYMENTS, labels=label)
    except NotAllowedError:
        return Found("", "you may not list Deployments")
    for one in controllers:
        where = f"deployment/{one['metadata']['name']} in {one['metadata']['namespace']}"
        if version := _of_images(one):
            return Found(version, where)
    return Found("", f"no Deployment of {engine.title}'s controller on the cluster")


def other(engine: Engine) -> Engine:
    """Return the engine that is not this one."""
    return next(one for one in ENGINES.values() if one is not engine)


def _said(cluster: Cluster, namespace: str) -> str:
    try:
        found = cluster.find(CONFIG_MAPS, "pipelines-info", namespace) or {}
    except NotAllowedError:
        return ""
    version = str((found.get("data") or {}).get("version") or "")
    return version if _NUMBER.match(version) else ""


def _of_images(deployment: Object) -> str:
    spec = (((deployment.get("spec") or {}).get("template") or {}).get("spec")) or {}
    for container in spec.get("containers") or ():
        tag = str(container.get("image", "")).partition("@")[0].rpartition("/")[2].partition(":")[2]
        if _NUMBER.match(tag):
            return tag
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    found = _NUMBER.match(version)
    return tuple(map(int, found[1].split("."))) if found else ()
