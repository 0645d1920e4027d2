"""Which nodes a DaemonSet is for, and what can be said of each before its pod is asked. Pure functions of objects.

The rules are Kubernetes' own: node selectors, taints and tolerations (Concepts, "Assigning Pods to Nodes").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtkpipe.values.health import NodeVerdict
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

Object = Mapping[str, Any]

_KEEPING = ("NoSchedule", "NoExecute")
# What the controller tolerates for every DaemonSet; the rest of this group it adds too.
_OWN_TAINTS = "node.kubernetes.io/"
_SAID = 200


@dataclass(frozen=True, kw_only=True)
class Place:
    """One node. `verdict` is what holds unless its pod can be asked; None: ask `container` of `pod`."""

    node: str
    pod: str = ""
    container: str = ""
    verdict: NodeVerdict | None = None

    @property
    def may_change(self) -> bool:
        """Tell whether waiting makes sense: the pod may yet come, or get ready."""
        return self.verdict is not None and self.verdict.word in ("no-pod", "pod-not-ready")


def places(
    daemon_set: Object, nodes: Iterable[Object], pods: Iterable[Object], kernel: Kernel, image: ImageRef | None
) -> list[Place]:
    """Return every node of the cluster. Without an `image`, whatever the DaemonSet rolls out is right."""
    own: dict[str, Object] = {}
    for pod in sorted(pods, key=lambda one: str(one["metadata"].get("creationTimestamp", ""))):
        node = str(pod.get("spec", {}).get("nodeName") or _target(pod))
        # One that ends makes way for the next; several that live are as good as the newest.
        if is_owned(pod, daemon_set) and (node not in own or not pod["metadata"].get("deletionTimestamp")):
            own[node] = pod
    return [_place(daemon_set, node, own.get(name_of(node)), kernel, image) for node in nodes]


def is_owned(pod: Object, daemon_set: Object) -> bool:
    """Tell whether the DaemonSet made the pod."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == daemon_set["metadata"]["uid"] for owner in owners)


def name_of(one: Object) -> str:
    """Return an object's name."""
    return str(one["metadata"]["name"])


def _target(pod: Object) -> str:
    """Return the node that a pod which is not scheduled yet is meant for: the controller writes it as an affinity."""
    affinity = (pod.get("spec") or {}).get("affinity") or {}
    required = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return ""


def _place(daemon_set: Object, node: Object, pod: Object | None, kernel: Kernel, image: ImageRef | None) -> Place:
    name = name_of(node)

    def said(word: str, reason: str) -> Place:
        return Place(node=name, verdict=NodeVerdict(node=name, word=word, reason=reason))

    spec = daemon_set["spec"]["template"]["spec"]
    runs = str((node.get("status") or {}).get("nodeInfo", {}).get("kernelVersion", ""))
    selector = spec.get("nodeSelector") or {}
    labels = node["metadata"].get("labels") or {}
    selected = all(labels.get(key) == value for key, value in selector.items())
    if runs != kernel.release:
        label = f", though its labels say {kernel}: dtkpipe label-nodes" if selected else ""
        return said("other-kernel", f"runs {runs or 'what nobody knows'}{label}")
    if not selected:
        missing = sorted(f"{key}={value}" for key, value in selector.items() if labels.get(key) != value)
        return said("not-selected", f"has no label {', '.join(missing)}")
    if why := not_ready(node):
        return said("node-not-ready", why)
    if taint := _keeps_away(node, spec.get("tolerations") or ()):
        return said("kept-away", f"taint {taint}")
    if pod is None:
        return said("no-pod", "has the kernel and its label, and no pod of the DaemonSet")
    place = Place(node=name, pod=name_of(pod), container=_container(pod, image))
    if why := _pod_not_ready(pod, image):
        verdict = NodeVerdict(node=name, word="pod-not-ready", reason=why)
        return Place(node=name, pod=place.pod, container=place.container, verdict=verdict)
    return place


def not_ready(node: Object) -> str:
    """Return why a node does not count as up, or an empty string."""
    found = condition(node, "Ready")
    if found.get("status") == "True":
        return ""
    return str(found.get("message") or found.get("reason") or "says nothing of itself")[:_SAID]


def condition(one: Object, kind: str) -> Object:
    """Return a condition of an object's status; an empty one where it has none of that type."""
    conditions = (one.get("status") or {}).get("conditions") or ()
    return next((found for found in conditions if found.get("type") == kind), {})


def _keeps_away(node: Object, tolerations: Sequence[Object]) -> str:
    for taint in (node.get("spec") or {}).get("taints") or ():
        key, effect, value = str(taint.get("key")), str(taint.get("effect")), str(taint.get("value", ""))
        if effect not in _KEEPING or key.startswith(_OWN_TAINTS):
            continue
        if not any(_tolerates(one, key, effect, value) for one in tolerations):
            return f"{key}{f'={value}' if value else ''}:{effect}"
    return ""


def _tolerates(toleration: Object, key: str, effect: str, value: str) -> bool:
    if toleration.get("effect") not in (None, "", effect) or toleration.get("key") not in (None, "", key):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return toleration.get("key") == key and str(toleration.get("value", "")) == value


def _container(pod: Object, image: ImageRef | None) -> str:
    containers = pod["spec"]["containers"]
    ours = (one for one in containers if image and image.digest and str(one.get("image", "")).endswith(image.digest))
    return str(next(ours, containers[0])["name"])


def _pod_not_ready(pod: Object, image: ImageRef | None) -> str:
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return "its pod is being replaced"
    images = [str(one.get("image", "")) for one in pod["spec"]["containers"]]
    if image and image.digest and not any(one.endswith(image.digest) for one in images):
        return f"its pod still has the image before: {images[0]}"
    if condition(pod, "Ready").get("status") == "True":
        return ""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return str(scheduled.get("message") or scheduled.get("reason"))[:_SAID]
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state, last = container.get("state") or {}, container.get("lastState") or {}
        ended = state.get("terminated") or last.get("terminated")
        if ended and ended.get("exitCode"):
            # The loader's termination message is why it failed, in its own words.
            lines = [line.strip() for line in str(ended.get("message") or "").splitlines() if line.strip()]
            why = "; ".join(lines[:3]) or f"{ended.get('reason')}, exit code {ended.get('exitCode')}"
            return why[:_SAID]
        if waiting := state.get("waiting"):
            message = str(waiting.get("message") or "").strip()
            return f"{waiting.get('reason')}{f': {message}' if message else ''}"[:_SAID]
    return f"its pod is {str(status.get('phase') or 'Pending').lower()} and not ready"
