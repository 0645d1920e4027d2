"""What can be said of each node of a cluster before its pod is asked, and which pod is to be asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtkpipe.steps.deploy import daemonset as ds
from dtkpipe.steps.deploy import standing
from dtkpipe.steps.deploy.rollout import Workload, tolerations_of
from dtkpipe.steps.deploy.standing import standings
from dtkpipe.values.health import NodeVerdict
from dtkpipe.values.node import Node

Object = Mapping[str, Any]

_WORDS = {
    standing.WAITING: "pod-not-ready",
    standing.FAILED: "pod-not-ready",
    standing.DOWN: "node-not-ready",
    standing.ELSEWHERE: "other-kernel",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """One node. `verdict` is what holds already; where there is none, `pod` is to be asked."""

    node: str
    pod: str = ""
    verdict: NodeVerdict | None = None
    waiting: bool = False
    """What is said may change soon, by itself."""


def places(workload: Workload, nodes: Sequence[Node], pods: Iterable[Object]) -> list[Place]:
    """Look at every node of the cluster, whether the workload is for it or not. Raises InvalidError."""
    kernel, revision = workload.kernel, workload.annotation(ds.REVISION)
    known, listed = list[Place](), list(pods)
    selected = [node for node in nodes if all(node.labels.get(k) == v for k, v in workload.selector.items())]
    reachable = {node.name for node in selected if not node.repelled_by(tolerations_of(workload))}
    for one in standings([node for node in selected if node.name in reachable], listed, kernel, revision):
        if one.state == standing.LOADED:
            known.append(Place(node=one.node, pod=_pod(one.node, listed, revision)))
            continue
        lines = [line.strip() for line in one.why.splitlines() if line.strip()]
        verdict = NodeVerdict(node=one.node, word=_WORDS[one.state], reason="; ".join(lines[:3]))
        known.append(Place(node=one.node, verdict=verdict, waiting=one.state == standing.WAITING))
    others = [node for node in nodes if node.name not in reachable]
    return [*known, *(Place(node=node.name, verdict=_not_meant(node, workload)) for node in others)]


def _not_meant(node: Node, workload: Workload) -> NodeVerdict:
    if node.kernel != workload.kernel.release:
        return NodeVerdict(node=node.name, word="other-kernel", reason=f"runs kernel {node.kernel or 'unknown'}")
    missing = [f"{key}={value}" for key, value in workload.selector.items() if node.labels.get(key) != value]
    if missing:
        return NodeVerdict(node=node.name, word="not-selected", reason=f"has no label {', '.join(missing)}")
    taint = node.repelled_by(tolerations_of(workload))
    return NodeVerdict(node=node.name, word="kept-away", reason=f"taint {taint}")


def _pod(node: str, pods: Iterable[Object], revision: str) -> str:
    """Return the name of the pod of the current revision on a node."""
    return next(
        str(pod["metadata"]["name"])
        for pod in pods
        if pod["spec"].get("nodeName") == node
        and (pod["metadata"].get("annotations") or {}).get(ds.REVISION) == revision
        and not pod["metadata"].get("deletionTimestamp")
    )
