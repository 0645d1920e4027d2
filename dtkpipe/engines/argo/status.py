"""From an Argo Workflow, as the API gives it, to a run card. Pure.

Field names and what they mean: argoproj/argo-workflows, pkg/apis/workflow/v1alpha1/workflow_types.go (WorkflowStatus,
NodeStatus); names of pods: workflow/util/pod_name.go; words of messages: workflow/controller/operator.go.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from dtkpipe.engines.observed import Late, Observed, blame, finished_card, step_of
from dtkpipe.engines.pods import NONE, Object, PodFacts, Trouble, ended, facts, one_line, said, seconds, warned
from dtkpipe.values.run import (
    CANCELLED,
    FAILED,
    OUT_OF_TIME,
    PENDING,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    Attempt,
    RunCard,
    StepRecord,
)

NODE_ID = "workflows.argoproj.io/node-id"
"""Annotation of a pod: which node of the workflow it is."""
MAIN = "main"
"""The container that runs the task's program."""
_STATES = {
    "Pending": PENDING,
    "Running": RUNNING,
    "Succeeded": SUCCEEDED,
    "Failed": FAILED,
    "Error": FAILED,
    "Skipped": SKIPPED,
    "Omitted": PENDING,
    "": PENDING,
}
_ERRORED = re.compile(r"^task '[^']*' errored: ")
_POD_NAME_LIMIT = 242
_REASON = re.compile(r"(?:(\S+): )?(\S+) \(exit code (-?\d+)\)(?:: (.*))?")  # main: Error (exit code 1): message
_WAITS = re.compile(r"(?:Pod failed before \S+ container starts due to )?(\w+): (.*)")
_TIMES = ("exceeded its deadline", "active on the node longer", "Max duration limit exceeded")


def card(workflow: Object, pods: Iterable[Object] = (), events: Iterable[Object] = ()) -> RunCard:
    """Return how a run goes. Pods and events of the run, where given, say when programs started and what pods wait for.

    Raises UnsupportedError for a workflow whose nodes lie in a database that only Argo's server reads.
    """
    return _Run(workflow, tuple(pods), tuple(events)).card()


def task_of(pod: Object) -> str:
    """Return the task whose try a pod is: its node is called `<run>.<task>`, or `<run>.<task>(<number>)`."""
    meta = pod.get("metadata") or {}
    run = (meta.get("labels") or {}).get("workflows.argoproj.io/workflow", "")
    node = str((meta.get("annotations") or {}).get("workflows.argoproj.io/node-name", ""))
    return node.removeprefix(f"{run}.").partition("(")[0]


def is_own(container: str) -> bool:
    """Say whether a container of a pod is the task's, and not Argo's."""
    return container not in ("init", "wait")


@dataclass(frozen=True)
class _Run:
    workflow: Object
    pods: tuple[Object, ...]
    events: tuple[Object, ...]

    @cached_property
    def meta(self) -> Object:
        return self.workflow.get("metadata") or {}

    @cached_property
    def status(self) -> Object:
        return self.workflow.get("status") or {}

    @cached_property
    def spec(self) -> Object:
        """What the workflow does: its template's words, where it refers to one, below its own."""
        own = self.workflow.get("spec") or {}
        return {**(self.status.get("storedWorkflowTemplateSpec") or {}), **own}

    @cached_property
    def nodes(self) -> Mapping[str, Object]:
        return _nodes(self.status)

    @cached_property
    def pod_of(self) -> Mapping[str, Object]:
        """The pods by the node that they are."""
        return {((pod.get("metadata") or {}).get("annotations") or {}).get(NODE_ID, ""): pod for pod in self.pods}

    @property
    def cancelled(self) -> bool:
        return bool((self.workflow.get("spec") or {}).get("shutdown"))

    def card(self) -> RunCard:
        phase = str(self.status.get("phase") or "")
        steps = tuple(self._step(name) for name in self._tasks())
        return finished_card(
            Observed(
                name=str(self.meta.get("name", "")),
                engine="argo",
                namespace=str(self.meta.get("namespace", "")),
                labels=self.meta.get("labels") or {},
                annotations=self.meta.get("annotations") or {},
                pipeline=str((self.spec.get("workflowTemplateRef") or {}).get("name", "")),
                inputs=self._inputs(),
                created=seconds(self.meta.get("creationTimestamp")),
                started=seconds(self.status.get("startedAt")),
                finished=seconds(self.status.get("finishedAt")),
                state=CANCELLED if self.cancelled and phase in ("Failed", "Error") else _STATES.get(phase, FAILED),
                message=self._message(),
                out_of_time=_late(str(self.status.get("message") or "")) is not Late.NO,
                steps=steps,
            )
        )

    def _message(self) -> Trouble:
        """Return what Argo says of a run that ended badly."""
        message = str(self.status.get("message") or "")
        return Trouble("somebody cancelled it") if self.cancelled else said("", message) or Trouble(_plain(message))

    def _inputs(self) -> dict[str, str]:
        """Return the parameters: those of the run above the template's defaults."""
        found: dict[str, str] = {}
        for source in (self.status.get("storedWorkflowTemplateSpec") or {}, self.workflow.get("spec") or {}):
            for one in (source.get("arguments") or {}).get("parameters") or ():
                if "value" in one:
                    found[one["name"]] = str(one["value"])
        return found

    def _tasks(self) -> list[str]:
        """Return the tasks in the order of the pipeline; before Argo knows it, in that of their nodes."""
        templates = [*(self.spec.get("templates") or ()), *(self.status.get("storedTemplates") or {}).values()]
        for template in templates:
            if template.get("name") == self.spec.get("entrypoint"):
                return [str(task["name"]) for task in (template.get("dag") or {}).get("tasks") or ()]
        return [str(node.get("displayName")) for node in self.nodes.values() if node.get("boundaryID")]

    def _step(self, task: str) -> StepRecord:
        wanted = f"{self.meta.get('name')}.{task}"
        node = next((one for one in self.nodes.values() if one.get("name") == wanted), None)
        if node is None:
            return StepRecord(name=task)
        if node.get("phase") == "Omitted":
            return StepRecord(name=task)
        tries = [self._attempt(one) for one in self._pods_of(node)]
        if not tries:  # a task that never got a pod: its values could not be filled in, the run was stopped
            tries = [self._attempt(node)]
        record = step_of(
            task,
            state=self._state(node),
            queued=seconds(node.get("startedAt")),
            tries=tries,
            results=_results(self._last(node)),
        )
        hit = (node.get("memoizationStatus") or {}).get("hit")
        return replace(record, reused=True) if hit else record

    def _pods_of(self, node: Object) -> Iterator[Object]:
        """Give the nodes that are pods: the node itself, or a retry node's children in the order of the attempts."""
        if node.get("type") == "Pod":
            yield node
        elif node.get("type") == "Retry":
            children = [self.nodes[name] for name in node.get("children") or () if name in self.nodes]
            own = [one for one in children if str(one.get("name")).startswith(f"{node.get('name')}(")]
            yield from (one for one in own if one.get("type") == "Pod")

    def _last(self, node: Object) -> Object:
        return next(iter(reversed(list(self._pods_of(node)))), node)

    def _attempt(self, node: Object) -> tuple[Attempt, Trouble]:
        pod = self.pod_of.get(str(node.get("id")))
        seen = facts(pod, MAIN) if pod else None
        name = self._pod_name(node) if node.get("type") == "Pod" else ""
        message, state, late = str(node.get("message") or ""), self._state(node), _late(str(node.get("message") or ""))
        ran = bool(seen.started if seen else (node.get("outputs") or {}).get("exitCode"))
        known = (seen.trouble if seen else NONE) or (NONE if ran else warned(name, self.events))
        why = blame(_results(node), known or (NONE if late is not Late.NO else _why(message)), late, ran=ran)
        attempt = Attempt(
            state=state,
            queued=seconds(node.get("startedAt")),
            started=_started(seen, node, ran=ran),
            finished=(seen.finished if seen else 0) or seconds(node.get("finishedAt")),
            exit_code=_code(node, message, seen) if late is Late.NO else OUT_OF_TIME,
            cause=why.cause if state in (FAILED, PENDING) else "",
            pod=name,
        )
        return attempt, why

    def _state(self, node: Object) -> str:
        phase = str(node.get("phase") or "")
        message = str(node.get("message") or "")
        if self.cancelled and phase in ("Failed", "Error") and "shutdown with strategy" in message:
            return CANCELLED
        return _STATES.get(phase, FAILED)

    def _pod_name(self, node: Object) -> str:
        annotations = self.meta.get("annotations") or {}
        if annotations.get("workflows.argoproj.io/pod-name-format") == "v1":
            return str(node.get("id"))
        template = str(node.get("templateName") or (node.get("templateRef") or {}).get("template") or "")
        prefix = "-".join(filter(None, (str(self.meta.get("name")), template)))
        return f"{prefix[:_POD_NAME_LIMIT]}-{_fnv32a(str(node.get('name')))}"


def _nodes(status: Object) -> Mapping[str, Object]:
    if packed := status.get("compressedNodes"):
        return dict(json.loads(gzip.decompress(base64.b64decode(packed))))
    if status.get("offloadNodeStatusVersion") and not status.get("nodes"):
        from dtkpipe.errors import UnsupportedError

        raise UnsupportedError(
            "the tasks of this run are kept in Argo's database", "its workflow object was too large for Kubernetes",
            hint="argo get RUN, through the Argo server",
        )  # fmt: skip
    return status.get("nodes") or {}


def _results(node: Object) -> dict[str, str]:
    given = (node.get("outputs") or {}).get("parameters") or ()
    return {str(one["name"]): str(one.get("value", "")) for one in given}


def _late(message: str) -> Late:
    if "Step exceeded its deadline" in message or "exceeded workflow deadline" in message:
        return Late.RUN
    return Late.TASK if any(words in message for words in _TIMES) else Late.NO


def _code(node: Object, message: str, seen: PodFacts | None) -> int | None:
    """Return the exit code of a try: its program's, or that of the container that failed before it."""
    if (code := (node.get("outputs") or {}).get("exitCode")) is not None:
        return int(code)
    if found := _REASON.match(message):
        return int(found[3])
    return seen.exit_code if seen else None


def _started(seen: PodFacts | None, node: Object, *, ran: bool) -> float:
    """Return when the program started; where no pod tells, when its node was made, for one that runs or has run."""
    if seen:
        return seen.started
    return seconds(node.get("startedAt")) if ran or node.get("phase") in ("Running", "Succeeded") else 0


def _why(message: str) -> Trouble:
    """Return what a node's message says about its pod."""
    if found := _REASON.match(message):
        container, reason, code, rest = found.groups()
        if reason == "OOMKilled":
            return said(reason)
        told = ended(int(code), rest or "")
        return told if container in (None, MAIN) else Trouble(f"container {container}: {told.cause}")
    if (found := _WAITS.match(message)) and (known := said(found[1], found[2])):
        return known
    plain = _plain(_ERRORED.sub("", message))
    return said("", message) or (Trouble(plain) if plain else NONE)


def _plain(message: str) -> str:
    words = {
        "workflow shutdown with strategy: Terminate": "",
        "workflow shutdown with strategy: Stop": "",
        "pod deleted": "its pod was deleted",
        "PodInitializing": "",
        "ContainerCreating": "",
        "retryStrategy.expression evaluated to false": "",
        "No more retries left": "",
    }
    text = one_line(message)
    return words.get(text, text)


def _fnv32a(text: str) -> int:
    """The hash that ends the name of a pod (Fowler-Noll-Vo 1a, 32 bits)."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value
