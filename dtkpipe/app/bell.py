"""Bells and planners: the watcher starts a planner for a bell, and the planner waits until its bell is off.

A push that finds the bell there adds nothing, so the planner that answers it must read the repository after the bell
has gone: then a later push makes a new one. docs/adr/0016-bells.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from threading import Thread

from dtkpipe.app.clusters import Place
from dtkpipe.app.matrix.outcome import ExitCode
from dtkpipe.app.schedules import every, state_of
from dtkpipe.app.triggers import BELLS
from dtkpipe.clients.cluster import CRON_JOBS, CRON_WORKFLOWS, JOBS, WORKFLOWS, Object, Resource, resource_of
from dtkpipe.engines.schedules import KERNELS, RUNG_BY, SCHEDULE, TRIGGER
from dtkpipe.engines.triggers.bell import BELL_OF, RECEIVER, bell_name
from dtkpipe.errors import ConflictError, DtkpipeError, NotFoundError, UnreachableError
from dtkpipe.values.kernel import Kernel

APART = 20.0
"""Seconds between two planners of one trigger: whatever is pushed meanwhile is one planning."""
Say = Callable[[str], None]

_PAUSES = (10, 30, 90)
"""Seconds until something is asked again that did not answer."""


def watch(place: Place, receiver: str, say: Say) -> None:
    """Answer all bells that a receiver makes, for ever: those of one trigger one after the other.

    Raises UnreachableError for a cluster that does not answer for long: whoever starts this again loses nothing.
    """
    place.cluster.be_patient()
    for bell in _bells(place, receiver):
        Thread(target=_answer, args=(place, BELLS[receiver], bell, say), daemon=True).start()


def _bells(place: Place, receiver: str) -> Iterator[Object]:
    """Give each bell that is on, once."""
    on: set[str] = set()
    for kind, bell in place.cluster.watch(BELLS[receiver], place.namespace, labels=f"{RECEIVER}={receiver}"):
        uid = str(bell["metadata"]["uid"])
        if kind == "DELETED":
            on.discard(uid)
        elif uid not in on:
            on.add(uid)
            yield bell


def _answer(place: Place, resource: Resource, bell: Object, say: Say) -> None:
    """Start the planner of a bell, then switch the bell off; whatever is in the way, until that is done."""
    name = str(bell["metadata"]["labels"].get(BELL_OF))
    while True:
        try:
            _answered(place, resource, name, bell, say)
        except DtkpipeError as error:
            say(f"{name}: again in {_PAUSES[0]} s: {error}")
            time.sleep(_PAUSES[0])
        else:
            return


def _answered(place: Place, resource: Resource, name: str, bell: Object, say: Say) -> None:
    uid = str(bell["metadata"]["uid"])
    try:
        # A planner that waits for this bell is of somebody who was killed before it was off.
        if not every(place, JOBS, f"{SCHEDULE}={name},{RUNG_BY}={uid}"):
            _take_turn(place, name)
            say(f"{name}: started {start(place, fires(place, name), by=uid)}")
    except NotFoundError as error:
        say(f"{name}: {error}")
    with suppress(ConflictError):  # another is on by now
        place.cluster.delete(resource, str(bell["metadata"]["name"]), place.namespace, uid=uid)


def fires(place: Place, name: str) -> Object:
    """Return the object by which a watcher fires a trigger. Raises NotFoundError."""
    one = place.cluster.read(CRON_JOBS, name, place.namespace)
    if TRIGGER not in (one["metadata"].get("labels") or {}):
        raise NotFoundError(f"there is no trigger `{name}`", f"looked in: {place}")
    return one


def start(place: Place, one: Object, *, kernels: Sequence[Kernel] = (), by: str = "") -> str:
    """Start the planner of what fires, at once, perhaps for some kernels alone; return what it is called."""
    made = _planner(one, by, {KERNELS: ",".join(map(str, kernels))} if kernels else {})
    return str(place.cluster.create(resource_of(made), made, place.namespace)["metadata"]["name"])


def _take_turn(place: Place, name: str) -> None:
    """Return when no planner of the trigger is at work, and the last one was started a while ago."""
    starts = every(place, JOBS, f"{SCHEDULE}={name}")
    for one in starts:
        _until(place, JOBS, str(one["metadata"]["name"]), str(one["metadata"]["uid"]), "running")
    last = max((str(one["metadata"].get("creationTimestamp")) for one in starts), default="")
    if last:
        since = (datetime.now(UTC) - datetime.fromisoformat(last)).total_seconds()
        time.sleep(max(0.0, min(APART, APART - since)))


def _until(place: Place, resource: Resource, name: str, uid: str, state: str = "") -> None:
    """Return when an object is in another state, or gone; "" is no state."""
    while found := place.cluster.find(resource, name, place.namespace):
        if found["metadata"]["uid"] != uid or (state and state_of(found) != state):
            return
        for _, seen in place.cluster.watch(resource, place.namespace, name=name):
            if seen["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                break


def _planner(one: Object, by: str, notes: Mapping[str, str]) -> Object:
    """Return what starts the planner, as its controller itself makes it of what fires; its pod is told the rest."""
    name, spec = str(one["metadata"]["name"]), one["spec"]
    owner = {key: one[key] for key in ("apiVersion", "kind")} | {key: one["metadata"][key] for key in ("name", "uid")}
    labels = {SCHEDULE: name, RUNG_BY: by}
    made: Object = {
        "metadata": {
            "generateName": f"{name}-", "labels": labels, "ownerReferences": [{**owner, "controller": True}],
        },
    }  # fmt: skip
    if one["kind"] == CRON_WORKFLOWS.kind:
        made |= {"apiVersion": WORKFLOWS.api, "kind": WORKFLOWS.kind, "spec": dict(spec["workflowSpec"])}
        made["metadata"]["labels"]["workflows.argoproj.io/cron-workflow"] = name
        made["spec"]["podMetadata"] = {"labels": {**labels, "app.kubernetes.io/name": "planner"}}
        return made
    job = spec["jobTemplate"]["spec"]
    template = job["template"]
    metadata = {"labels": {**template["metadata"]["labels"], RUNG_BY: by}, "annotations": dict(notes)}
    pod = {**template, "metadata": {**template["metadata"], **metadata}}
    return {**made, "apiVersion": JOBS.api, "kind": JOBS.kind, "spec": {**job, "template": pod}}


def off(place: Place, name: str, receiver: str, bell: str) -> None:
    """Return when the bell with that uid is off, so that the next push rings again."""
    place.cluster.be_patient()
    _until(place, BELLS[receiver], bell_name(name), bell)


def again(plan: Callable[[], ExitCode], say: Say) -> ExitCode:
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
