"""What a pod's status tells about a task, and the same troubles in the words of people, whatever the engine.

Sources: the Pod API (core/v1 PodStatus, ContainerState); reasons of kubelet: kubernetes/kubernetes,
pkg/kubelet/images/types.go, pkg/kubelet/kuberuntime/kuberuntime_container.go, pkg/kubelet/events.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dtkpipe.errors import how_ended

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Trouble:
    """Why a pod does not run, or no longer does: one line, and what to do about it."""

    cause: str = ""
    hint: str = ""

    def __bool__(self) -> bool:
        return bool(self.cause)


NONE = Trouble()
_PULLS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_MAKES = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "ContainerCannotRun", "StartError")
_IMAGE = re.compile(r'image \\?"([^"\\\s]+)')
_WRAPS = re.compile(
    r'(?:Back-off pulling image \\?"[^"]+": ErrImagePull'
    r'|failed to (?:pull and unpack image|resolve reference) \\?"[^"]+"): '
)
"""What kubelet and containerd say before why they did not get an image: its name, again and again."""
_MISSING = re.compile(
    r'(serviceaccounts?|workflowtemplates\.argoproj\.io|pipelines\.tekton\.dev|tasks\.tekton\.dev) "([^"]+)" not found'
)
_KINDS = {
    "serviceaccount": "service account",
    "serviceaccounts": "service account",
    "workflowtemplates.argoproj.io": "WorkflowTemplate",
    "pipelines.tekton.dev": "Pipeline",
    "tasks.tekton.dev": "Task",
}
_HINTS = {
    "pull": "look at the image's name, and at the pull secrets of the task's service account",
    "secret": "kubectl create secret generic NAME -n NAMESPACE --from-file=KEY=FILE",
    "memory": "give the task more memory: Resources(memory_limit=...) in the pipeline",
    "quota": "ask for a larger quota, or wait until other runs have ended",
    "node": "kubectl get nodes; dtkpipe doctor --for cluster",
    "gone": "dtkpipe retry RUN",
    "install": "dtkpipe install --engine ENGINE, into the namespace of the run",
}


@dataclass(frozen=True, kw_only=True)
class PodFacts:
    """What is known of one container of a pod. Times are seconds since the epoch, 0 where there is none."""

    name: str
    queued: float
    started: float
    finished: float
    exit_code: int | None
    trouble: Trouble


def seconds(text: object) -> float:
    """Return a time of the Kubernetes API (RFC 3339) as seconds since the epoch; 0 for none or what is no time."""
    if not isinstance(text, str) or not text:
        return 0
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0


def facts(pod: Object, container: str) -> PodFacts:
    """Return what the pod tells about its container `container`."""
    meta, status = pod.get("metadata") or {}, pod.get("status") or {}
    state = next((_state(one) for one in _all(status) if one.get("name") == container), {})
    ended, runs = state.get("terminated") or {}, state.get("running") or {}
    return PodFacts(
        name=str(meta.get("name", "")),
        queued=seconds(meta.get("creationTimestamp")),
        started=seconds(ended.get("startedAt") or runs.get("startedAt")),
        finished=seconds(ended.get("finishedAt")),
        exit_code=ended.get("exitCode"),
        trouble=trouble(pod),
    )


def trouble(pod: Object) -> Trouble:
    """Return what is wrong with a pod; nothing for one that is well, or whose program failed by itself."""
    return next((one for one in _troubles(pod) if one), NONE)


def _troubles(pod: Object) -> Iterator[Trouble]:
    status = pod.get("status") or {}
    if reason := str(status.get("reason") or ""):
        yield said(reason, str(status.get("message") or ""))
    for one in _all(status):
        state = _state(one)
        if waiting := state.get("waiting"):
            yield said(str(waiting.get("reason") or ""), str(waiting.get("message") or ""), str(one.get("image") or ""))
        ended = state.get("terminated") or {}
        if ended.get("reason") == "OOMKilled":
            yield _memory(_limit(pod, str(one.get("name"))))
        elif ended.get("reason") in _MAKES:
            yield said(str(ended["reason"]), str(ended.get("message") or ""))
    for condition in status.get("conditions") or ():
        if condition.get("reason") == "Unschedulable":
            yield said("Unschedulable", str(condition.get("message") or ""))


def warned(pod: str, events: Sequence[Object]) -> Trouble:
    """Return what the events say that the pod `pod` waited for; it may be gone, its events outlive it."""
    about = (one for one in reversed(events) if one.get("type") == "Warning" and _is_about(one, pod))
    told = (said(str(one.get("reason") or ""), str(one.get("message") or "")) for one in about)
    return next((one for one in told if one), NONE)


def containers(pod: Object, is_own: Callable[[str], bool]) -> list[str]:
    """Return the containers of a pod that have something to say: those of the task, and of the engine's what failed.

    Only those that have started: the others have no log.
    """
    found = []
    for one in _all(pod.get("status") or {}):
        state, name = _state(one), str(one.get("name"))
        over = state.get("terminated") or {}
        has_log = bool(state.get("running") or over.get("containerID"))
        if has_log and (is_own(name) or over.get("exitCode")):
            found.append(name)
    return found


def started_before(pod: Object, container: str, moment: float) -> bool:
    """Say whether a container of the pod was started before `moment`, in seconds since the epoch."""
    return 0 < facts(pod, container).started < moment


def said(reason: str, message: str = "", image: str = "") -> Trouble:
    """Return what a reason and a message of Kubernetes or an engine mean; nothing for words that mean no trouble."""
    text = one_line(message)
    if reason in _PULLS or (reason == "Failed" and text.startswith("Failed to pull image")):
        image = found[1] if (found := _IMAGE.search(text)) else image
        why = one_line(_last(_WRAPS.sub("", message)))
        return Trouble(f"image {image or 'of the task'} cannot be pulled: {why or reason}", _HINTS["pull"])
    if reason in _MAKES:
        hint = _HINTS["secret"] if "secret" in text or "configmap" in text else ""
        return Trouble(f"its container cannot be started: {text or reason}", hint)
    if reason == "OOMKilled":
        return _memory("")
    if reason == "FailedMount" and "not found" in text:
        return Trouble(f"its pod cannot start: {_last(text)}", _HINTS["secret"])
    if missing := _MISSING.search(text):
        return Trouble(f"the namespace has no {_KINDS[missing[1]]} `{missing[2]}`", _HINTS["install"])
    if "exceeded quota" in text:
        return Trouble(f"the namespace's quota is used up: {text}", _HINTS["quota"])
    if reason in ("Unschedulable", "FailedScheduling"):
        return Trouble(f"no node takes its pod: {text}", _HINTS["node"])
    if reason in ("Evicted", "Preempting", "NodeShutdown", "Terminated", "NodeLost", "NodeAffinity", "Shutdown"):
        return Trouble(f"its pod was taken off its node ({reason}): {text}".rstrip(": "), _HINTS["gone"])
    if reason in ("UnexpectedAdmissionError", "FailedCreatePodSandBox", "FailedAttachVolume", "FailedCreate"):
        return Trouble(f"its pod cannot start: {text or reason}", _HINTS["node"])
    return NONE


def ended(code: int, rest: str = "") -> Trouble:
    """Return what the exit code of a program tells."""
    text, what = one_line(rest), how_ended(code)
    return Trouble(f"{what}: {text}" if text else what)


def one_line(text: str, limit: int = 400) -> str:
    """Return a text as one line without control characters, not longer than `limit`."""
    plain = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


def _memory(limit: str) -> Trouble:
    return Trouble(f"out of memory{f': it may use {limit}' if limit else ''}", _HINTS["memory"])


def _last(text: str) -> str:
    """Return the end of a message that wraps others (`rpc error: ...: desc = failed to pull ...: not found`)."""
    return text.rsplit(" desc = ", 1)[-1]


def _all(status: Object) -> Sequence[Object]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _state(container: Object) -> Object:
    return container.get("state") or {}


def _limit(pod: Object, container: str) -> str:
    spec = pod.get("spec") or {}
    for one in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        if one.get("name") == container:
            return str(((one.get("resources") or {}).get("limits") or {}).get("memory", ""))
    return ""


def _is_about(event: Object, pod: str) -> bool:
    about = event.get("involvedObject") or {}
    return about.get("kind") == "Pod" and about.get("name") == pod
