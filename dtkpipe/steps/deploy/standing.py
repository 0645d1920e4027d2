"""Part of deploy: how far a driver is on each node, judged from the node and its pod alone.

Words of pods and containers are Kubernetes' own (Pod Lifecycle); what a container says when it fails is what the
loader wrote (catalog/driver/load).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtkpipe.steps.deploy.daemonset import CONTAINER, REVISION
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.node import Node

LOADED, WAITING, FAILED, DOWN, ELSEWHERE = "loaded", "waiting", "failed", "down", "other kernel"
NO_POD = "has no pod yet"

Object = Mapping[str, Any]

# What no second attempt mends. The others (a registry that does not answer) are waited for.
_HOPELESS = {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"}
_REFUSED = re.compile(
    r"not found|denied|unauthori[sz]ed|authentication required|forbidden|manifest unknown|no match for platform"
    r"|server gave HTTP response to HTTPS client|certificate signed by unknown authority", re.IGNORECASE,
)  # fmt: skip
_NEVER_RAN = {"StartError", "ContainerCannotRun", "OOMKilled"}
_LOADER_FAILED = 1
"""Exit code of the loader when the kernel, the node or the image is not as it must be."""


@dataclass(frozen=True)
class Standing:
    """How far the driver is on one node. `why` is for people: its first line is the cause, more is what was said."""

    node: str
    state: str
    why: str = ""

    @property
    def cause(self) -> str:
        """The first line of `why`."""
        return self.why.partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.state}: {self.cause}" if self.cause else self.state


def standings(nodes: Sequence[Node], pods: Iterable[Object], kernel: Kernel, revision: str) -> list[Standing]:
    """Judge the pods of one DaemonSet on `nodes`; `revision` is that of its current template."""
    of: dict[str, list[Object]] = {}
    for pod in pods:
        of.setdefault(str((pod.get("spec") or {}).get("nodeName") or _intended(pod)), []).append(pod)
    return [_standing(node, of.get(node.name, []), kernel, revision) for node in nodes]


def _standing(node: Node, pods: Sequence[Object], kernel: Kernel, revision: str) -> Standing:
    pod = next((one for one in pods if _annotation(one, REVISION) == revision and not _ending(one)), None)
    container = _container(pod) if pod else {}
    if not node.ready:
        # A module that hangs or panics takes its node along: then the cause may be ours, and it is waited for.
        if pod and _begun(container) and not container.get("ready"):
            return Standing(node.name, WAITING, f"stopped answering while its modules were loading: {node.trouble}")
        return Standing(node.name, DOWN, node.trouble)
    if node.kernel != kernel.release:
        return Standing(node.name, ELSEWHERE, f"runs kernel {node.kernel}; its label says {kernel}")
    if not pod:
        if any(_ending(one) for one in pods):
            return Standing(node.name, WAITING, "the pod before is unloading its modules")
        return Standing(node.name, WAITING, "its turn has not come" if pods else NO_POD)
    if container.get("ready"):
        return Standing(node.name, LOADED)
    return _not_ready(node.name, pod, container)


def _not_ready(node: str, pod: Object, container: Object) -> Standing:
    state = container.get("state") or {}
    waiting, running = state.get("waiting") or {}, state.get("running")
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    said = str(ended.get("message") or "").strip()
    if ended.get("exitCode") == _LOADER_FAILED and said:
        return Standing(node, FAILED, said)
    if ended.get("reason") in _NEVER_RAN:
        return Standing(node, FAILED, f"{ended['reason']}: {said or 'the loader was ended'}")
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in _HOPELESS or (reason in ("ErrImagePull", "ImagePullBackOff") and _REFUSED.search(message)):
        return Standing(node, FAILED, f"{reason}: {message}")
    if running:
        return Standing(node, WAITING, "its modules are loading")
    if reason:
        return Standing(node, WAITING, f"{reason}: {message}" if message else reason)
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Standing(node, WAITING, f"cannot be scheduled: {condition.get('message', '')}")
    return Standing(node, WAITING, "its pod is starting")


def _begun(container: Object) -> bool:
    state = container.get("state") or {}
    return bool(state.get("running") or state.get("terminated") or container.get("lastState"))


def _container(pod: Object) -> Object:
    listed = (pod.get("status") or {}).get("containerStatuses") or ()
    found: Object = next((one for one in listed if one.get("name") == CONTAINER), {})
    return found


def _ending(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _annotation(pod: Object, name: str) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(name) or "")


def _intended(pod: Object) -> str:
    """Return the node that a pod is for before it is scheduled: the DaemonSet controller writes it as an affinity."""
    affinity = ((pod.get("spec") or {}).get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    for term in terms:
        for one in term.get("matchFields") or ():
            if one.get("key") == "metadata.name" and one.get("values"):
                return str(one["values"][0])
    return ""
