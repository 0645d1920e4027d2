"""What the pods of a trigger on pushes do: the bell's starts a planner, and the planner waits until its bell is off.

A push that finds the bell there adds nothing, so the planner that answers it must read the repository after the bell
has gone: then a later push makes a new one. docs/adr/0016-bells.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from dtkpipe.app import schedules
from dtkpipe.app.clusters import Place
from dtkpipe.app.matrix.outcome import ExitCode
from dtkpipe.app.schedules import KINDS, Kind, every, state_of
from dtkpipe.app.triggers import BELLS
from dtkpipe.clients.cluster import Object, Resource
from dtkpipe.engines.schedules import KERNELS, RUNG_BY, SCHEDULE
from dtkpipe.engines.triggers.bell import bell_name
from dtkpipe.errors import UnreachableError
from dtkpipe.values.kernel import Kernel

APART = 20.0
"""Seconds between two planners of one trigger: whatever is pushed meanwhile is one planning."""

_PAUSES = (10, 30, 90)
"""Seconds until something is asked again that did not answer."""


def ring(place: Place, name: str) -> str:
    """Start the planner of a trigger, after the one before it has ended; return what it is called.

    Raises NotFoundError.
    """
    place.cluster.be_patient()
    engine, one = schedules.existing(place, name, trigger=True)
    kind = KINDS[engine]
    _take_turn(place, kind, name)
    bell = place.cluster.find(BELLS[engine], bell_name(name), place.namespace)
    return _start(place, engine, one, str(bell["metadata"]["uid"]) if bell else "")


def start(place: Place, name: str, *, kernels: Sequence[Kernel] = (), by: str = "") -> str:
    """Start the planner of a trigger at once, perhaps for some kernels alone; return what it is called.

    Raises NotFoundError.
    """
    engine, one = schedules.existing(place, name, trigger=True)
    return _start(place, engine, one, by, kernels)


def _start(place: Place, engine: str, one: Object, by: str, kernels: Sequence[Kernel] = ()) -> str:
    made = _planner(engine, one, by, {KERNELS: ",".join(map(str, kernels))} if kernels else {})
    return str(place.cluster.create(KINDS[engine].starts, made, place.namespace)["metadata"]["name"])


def _take_turn(place: Place, kind: Kind, name: str) -> None:
    """Return when no planner of the trigger is at work, and the last one was started a while ago."""
    starts = every(place, kind.starts, f"{SCHEDULE}={name}")
    for one in starts:
        _until(place, kind.starts, str(one["metadata"]["name"]), str(one["metadata"]["uid"]), "running")
    last = max((str(one["metadata"].get("creationTimestamp")) for one in starts), default="")
    if last:
        since = (datetime.now(UTC) - datetime.fromisoformat(last)).total_seconds()
        time.sleep(max(0.0, min(APART, APART - since)))


def _until(place: Place, resource: Resource, name: str, uid: str, state: str) -> None:
    """Return when an object is in another state, or gone; "" is no state."""
    while found := place.cluster.find(resource, name, place.namespace):
        if found["metadata"]["uid"] != uid or (state and state_of(found) != state):
            return
        for _, seen in place.cluster.watch(resource, place.namespace, name=name):
            if seen["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                break


def _planner(engine: str, one: Object, by: str, notes: Mapping[str, str]) -> Object:
    """Return what starts the planner, as the engine itself makes it of what fires; its pod is told the rest."""
    name, spec = str(one["metadata"]["name"]), one["spec"]
    owner = {key: one[key] for key in ("apiVersion", "kind")} | {key: one["metadata"][key] for key in ("name", "uid")}
    made: Object = {
        "metadata": {
            "generateName": f"{name}-", "labels": {SCHEDULE: name}, "ownerReferences": [{**owner, "controller": True}],
        },
    }  # fmt: skip
    if engine == "argo":
        made |= {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": dict(spec["workflowSpec"])}
        made["metadata"]["labels"]["workflows.argoproj.io/cron-workflow"] = name
        labels = {RUNG_BY: by, "app.kubernetes.io/name": "planner", SCHEDULE: name}
        made["spec"]["podMetadata"] = {"labels": labels, "annotations": dict(notes)}
        return made
    job = spec["jobTemplate"]["spec"]
    template = job["template"]
    metadata = {"labels": {**template["metadata"]["labels"], RUNG_BY: by}, "annotations": dict(notes)}
    pod = {**template, "metadata": {**template["metadata"], **metadata}}
    return {**made, "apiVersion": "batch/v1", "kind": "Job", "spec": {**job, "template": pod}}


def off(place: Place, name: str, bell: str) -> None:
    """Return when the bell with that uid is off, so that the next push rings again. Raises NotFoundError."""
    place.cluster.be_patient()
    engine, _ = schedules.existing(place, name, trigger=True)
    _until(place, BELLS[engine], bell_name(name), bell, "")


def again(plan: Callable[[], ExitCode], say: Callable[[str], None]) -> ExitCode:
    """Do it until it does not end with something that did not answer, a few times; return its exit code.

    A push rings once: what could not be asked then would be asked by nobody.
    """
    for pause in _PAUSES:
        try:
            code = plan()
        except UnreachableError as error:
            code = ExitCode(error.exit_code, unknown=True)
            say(f"{error}")
        if not code.unknown:
            return code
        say(f"something does not answer: again in {pause} s")
        time.sleep(pause)
    return plan()
