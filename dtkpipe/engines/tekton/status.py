"""From a Tekton PipelineRun and its TaskRuns, as the API gives them, to a run card. Pure.

Field names and reasons: tektoncd/pipeline, pkg/apis/pipeline/v1/{pipelinerun_types,taskrun_types}.go; reasons that come
from pods: pkg/pod/status.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dtkpipe.engines.observed import Late, Observed, blame, finished_card, step_of
from dtkpipe.engines.pods import NONE, Object, Trouble, ended, one_line, said, seconds, trouble, warned
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

TASK = "tekton.dev/pipelineTask"
"""Label of a TaskRun and of its pod: which task of the pipeline it is."""
_CANCELLED = ("Cancelled", "CancelledRunningFinally", "StoppedRunningFinally", "TaskRunCancelled")
_ASKED = ("Cancelled", "CancelledRunFinally", "StoppedRunFinally")
"""Values of `spec.status` of a run that somebody cancelled."""
_LATE = ("PipelineRunTimeout", "PipelineRunTimeoutRunningFinally", "TaskRunTimeout")
_RUNS = (
    "Running",
    "ToBeRetried",
    "PipelineRunStopping",
    "PipelineRunTimeoutRunningFinally",
    "CancelledRunningFinally",
    "StoppedRunningFinally",
)
_BY_SIGNAL = 255
"""Exit code of a step that a signal ended (tektoncd/pipeline, cmd/entrypoint: Go's -1), or that gave it itself."""
_KILLED = Trouble(f"was killed, or ended with exit code {_BY_SIGNAL}", "dtkpipe retry RUN")
_EXITED = re.compile(r'"(?:step-)?([^"]+)" exited with code (\d+)')
_OF_PODS = {
    "TaskRunImagePullFailed": "ErrImagePull",
    "PullImageFailed": "ErrImagePull",
    "StepOOM": "OOMKilled",
    "InitContainerOOM": "OOMKilled",
    "SidecarOOM": "OOMKilled",
    "PodEvicted": "Evicted",
    "ExceededNodeResources": "Unschedulable",
    "PodCreationFailed": "FailedCreate",
    "PodAdmissionFailed": "FailedCreate",
}
"""What Kubernetes calls what Tekton gives a name of its own."""


def card(
    run: Object, task_runs: Iterable[Object] = (), pods: Iterable[Object] = (), events: Iterable[Object] = ()
) -> RunCard:
    """Return how a run goes, from the run and its TaskRuns.

    Pods and events of the run, where given, say what pods wait for. Without TaskRuns the card tells of the run only.
    """
    return _Run(run, tuple(task_runs), tuple(pods), tuple(events)).card()


def task_of(pod: Object) -> str:
    """Return the task whose try a pod is."""
    return str(_labels(pod).get(TASK, ""))


def is_own(container: str) -> bool:
    """Say whether a container of a pod is the task's, and not Tekton's."""
    return container.startswith("step-")


@dataclass(frozen=True)
class _Run:
    run: Object
    task_runs: tuple[Object, ...]
    pods: tuple[Object, ...]
    events: tuple[Object, ...]

    @cached_property
    def status(self) -> Object:
        return self.run.get("status") or {}

    @cached_property
    def spec(self) -> Object:
        return self.run.get("spec") or {}

    @cached_property
    def pod_named(self) -> Mapping[str, Object]:
        return {str((pod.get("metadata") or {}).get("name")): pod for pod in self.pods}

    @cached_property
    def task_run_of(self) -> Mapping[str, Object]:
        """The TaskRuns by the task that they run."""
        return {str(_labels(one).get(TASK, "")): one for one in self.task_runs}

    def card(self) -> RunCard:
        meta = self.run.get("metadata") or {}
        condition = _condition(self.status)
        reason, message = str(condition.get("reason") or ""), str(condition.get("message") or "")
        state = _state(condition)
        if state == FAILED and self.spec.get("status") in _ASKED:
            state = CANCELLED  # Tekton says Failed when a finally task failed then, and `report` does
        return finished_card(
            Observed(
                name=str(meta.get("name", "")),
                engine="tekton",
                namespace=str(meta.get("namespace", "")),
                labels=_labels(self.run),
                annotations=meta.get("annotations") or {},
                pipeline=str((self.spec.get("pipelineRef") or {}).get("name", "")),
                inputs=self._inputs(),
                created=seconds(meta.get("creationTimestamp")),
                started=seconds(self.status.get("startTime")),
                finished=seconds(self.status.get("completionTime")),
                state=state,
                message=_message(state, reason, message),
                out_of_time=reason in _LATE,
                steps=tuple(self._step(name) for name in self._tasks()),
            )
        )

    def _inputs(self) -> dict[str, str]:
        """Return the parameters: those of the run above the pipeline's defaults."""
        declared = (self.status.get("pipelineSpec") or {}).get("params") or ()
        found = {str(one["name"]): str(one["default"]) for one in declared if "default" in one}
        return found | {str(one["name"]): str(one.get("value", "")) for one in self.spec.get("params") or ()}

    def _tasks(self) -> list[str]:
        """Return the tasks in the order of the pipeline; before Tekton has read it, those that have a TaskRun."""
        spec = self.status.get("pipelineSpec") or self.spec.get("pipelineSpec") or {}
        declared = [str(one["name"]) for part in ("tasks", "finally") for one in spec.get(part) or ()]
        return declared or list(self.task_run_of)

    def _step(self, task: str) -> StepRecord:
        task_run = self.task_run_of.get(task)
        if task_run is None:
            return self._not_run(task)
        status = task_run.get("status") or {}
        tries = [self._attempt(task, one, "") for one in status.get("retriesStatus") or ()]
        tries.append(self._attempt(task, status, str((task_run.get("spec") or {}).get("statusMessage") or "")))
        state = tries[-1][0].state
        if _condition(status).get("reason") == "ToBeRetried":
            state, tries = RUNNING, tries[:-1] if len(tries) > 1 else tries
        return step_of(
            task,
            state=state,
            queued=seconds((task_run.get("metadata") or {}).get("creationTimestamp")),
            tries=tries,
            results=_results(status),
        )

    def _not_run(self, task: str) -> StepRecord:
        """A task without a TaskRun is yet to come, or was not reached; only a condition of its own leaves it out."""
        skipped: Object = next((one for one in self.status.get("skippedTasks") or () if one.get("name") == task), {})
        left_out = skipped.get("reason") == "When Expressions evaluated to false"
        return StepRecord(name=task, state=SKIPPED if left_out else PENDING)

    def _attempt(self, task: str, status: Object, why_stopped: str) -> tuple[Attempt, Trouble]:
        condition = _condition(status)
        reason, message = str(condition.get("reason") or ""), str(condition.get("message") or "")
        state = _state(condition)
        step = _telling_step(task, status.get("steps") or ())
        over, runs = step.get("terminated") or {}, step.get("running") or {}
        if not over.get(
            "containerID"
        ):  # Tekton's own words for a pod that it gave up; started it had if it has an image
            over = {"startedAt": over.get("startedAt")} if step.get("imageID") else {}
        name = str(status.get("podName") or "")
        pod = self.pod_named.get(name)
        ran = bool(over or runs)
        late = _late(reason, why_stopped)
        state = FAILED if late is not Late.NO else state
        known = (trouble(pod) if pod else NONE) or (NONE if ran else warned(name, self.events))
        why = blame(_results(status), known or _why(reason, message, state), late, ran=ran)
        code = over.get("exitCode")
        attempt = Attempt(
            state=state,
            queued=seconds(status.get("startTime")),
            started=seconds(over.get("startedAt") or runs.get("startedAt")),
            finished=seconds(over.get("finishedAt")) or seconds(status.get("completionTime")),
            exit_code=OUT_OF_TIME if late is not Late.NO else int(code) if code is not None else None,
            cause=why.cause if state in (FAILED, PENDING) else "",
            pod=name,
        )
        return attempt, why


def _telling_step(task: str, steps: Sequence[Object]) -> Object:
    """Return the step that failed first, else the one that bears the task's name: the others prepare for it."""
    failed = (one for one in steps if (one.get("terminated") or {}).get("exitCode"))
    return next(failed, None) or next((one for one in steps if one.get("name") == task), {})


def _late(reason: str, why_stopped: str) -> Late:
    if "has timed out" in why_stopped or "has reached" in why_stopped:
        return Late.RUN
    return Late.TASK if reason in _LATE else Late.NO


def _condition(status: Object) -> Object:
    return next((one for one in status.get("conditions") or () if one.get("type") == "Succeeded"), {})


def _results(status: Object) -> dict[str, str]:
    return {str(one["name"]): str(one.get("value", "")) for one in status.get("results") or ()}


def _labels(one: Object) -> Mapping[str, str]:
    return (one.get("metadata") or {}).get("labels") or {}


def _state(condition: Object) -> str:
    reason = condition.get("reason")
    match condition.get("status"):
        case "True":
            return SUCCEEDED
        case "False":
            return CANCELLED if reason in _CANCELLED else FAILED
        case "Unknown":
            return RUNNING if reason in _RUNS else PENDING
        case _:
            return PENDING


def _message(state: str, reason: str, message: str) -> Trouble:
    """Return what Tekton says of a run that ended badly; that of a task that failed says more, and is used instead."""
    if state == CANCELLED:
        return Trouble("somebody cancelled it")
    if state != FAILED:
        return NONE
    return said("", message) or Trouble(f"{reason}: {one_line(message)}")


def _why(reason: str, message: str, state: str) -> Trouble:
    if state not in (FAILED, PENDING, CANCELLED):
        return NONE
    if known := said(_OF_PODS.get(reason, reason), message):
        return known
    if state == PENDING or reason in (*_CANCELLED, *_LATE):
        return _previous(message)
    if found := _EXITED.search(message):
        code = int(found[2])
        return _KILLED if code == _BY_SIGNAL else ended(code)
    return Trouble(one_line(message) or reason)


def _previous(message: str) -> Trouble:
    """Return what a TaskRun that was stopped was waiting for: `Previous status: [REASON] message`."""
    found = re.search(r"Previous status: \[(\w+)\] (.*)", message)
    return said(_OF_PODS.get(found[1], found[1]), found[2]) if found else NONE
