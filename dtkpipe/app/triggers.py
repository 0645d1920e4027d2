"""Triggers on a cluster: made, listed with their last outcome, deleted.

A trigger is a schedule that a watcher fires, on a bell or on a new kernel. Only that on new releases fires at its
times, and asks the update graph before it plans.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dtkpipe.app import schedules
from dtkpipe.app.clusters import Engine, Place
from dtkpipe.app.rings import CATALOG, PUSH, Rings
from dtkpipe.app.schedules import KINDS, Listed, Planner
from dtkpipe.clients.cluster import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENT_BUSES,
    EVENT_LISTENERS,
    EVENT_SOURCES,
    LEASES,
    SECRETS,
    SENSORS,
    SERVICE_ACCOUNTS,
    TRIGGERS,
    WORKFLOW_EVENT_BINDINGS,
    WORKFLOWS,
    Object,
    Resource,
)
from dtkpipe.engines import watching
from dtkpipe.engines.rights import BELL, CALLERS, PLANNER, SEEN, WATCHER
from dtkpipe.engines.schedules import KERNELS, KERNELS_ENV, RUNG_BY, RUNG_BY_ENV, SCHEDULE, TRIGGER, Schedule
from dtkpipe.engines.schedules import render as render_schedule
from dtkpipe.engines.triggers import RECEIVERS, render
from dtkpipe.engines.triggers.bell import RECEIVER, SECRET_KEY, Bell, bell_name
from dtkpipe.engines.triggers.tekton_triggers import LISTENER, listener
from dtkpipe.errors import (
    NotAllowedError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from dtkpipe.matrix.targets import Selection
from dtkpipe.toolkits.distribution import distribution_names
from dtkpipe.values.cron import Cron
from dtkpipe.values.forge import Repository

RELEASE, NODE_KERNEL = "release", "node-kernel"
"""What triggers are on that nobody rings: a release that is new in the update graph, a kernel that is new on a node."""
WEBHOOK_CLIENTS = "argo-workflows-webhook-clients"
"""The Secret in which Argo's server has what forges sign with: account -> `{type, secret}`."""
_NOTE = "dtkpipe.io/rings"
BELLS: Mapping[str, Resource] = {"argo": WORKFLOWS, "tekton": LEASES, "argo-events": LEASES}
"""Receiver -> what its bells are."""
_RINGS: Mapping[str, tuple[Resource, ...]] = {
    "argo": (WORKFLOW_EVENT_BINDINGS,),
    "tekton": (TRIGGERS,),
    "argo-events": (SENSORS, EVENT_SOURCES),
}
"""Receiver -> what makes them."""
_BUS = "default"
"""The EventBus that Argo Events takes when none is named."""
_TOLD = {RUNG_BY_ENV: f"metadata.labels['{RUNG_BY}']"}
_TOLD_KERNELS = {**_TOLD, KERNELS_ENV: f"metadata.annotations['{KERNELS}']"}


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A trigger as it shall be."""

    schedule: Schedule
    objects: tuple[Object, ...]
    """Its own, in the order in which they are made."""
    account: str
    """What rings, runs as this one."""
    shared: tuple[Object, ...] = ()
    """What all such triggers of a namespace have together."""
    bell: Bell | None = None
    """What rings, where it is a push."""

    def render(self) -> tuple[Object, ...]:
        """Return all objects, those that are shared included."""
        return (*self.shared, *self.objects)


def on_release(planner: Planner, cron: Cron) -> Trigger:
    """Put together a trigger on releases that are new in the update graph, which is asked at the times of `cron`.

    Raises UsageError for a matrix that no new release fits, and what `schedules.schedule` raises.
    """
    releases = planner.matrix.request.releases
    if not Selection.parse(releases, distribution_names()).growing:
        raise UsageError(
            f"no new release can be one of `{releases[:80]}`", "these are exact ones, or no releases of OpenShift",
            hint="--releases '4.16..4.22,stable', behind the --",
        )  # fmt: skip
    planned = _planned(RELEASE, "look", schedules.schedule(planner, cron), planner.namespace, told=_TOLD)
    objects = render_schedule(planned, planner.engine.name)
    return Trigger(schedule=planned, objects=objects, account=PLANNER, shared=(watching.seen(planner.namespace),))


def on_node_kernel(planner: Planner, debounce: int) -> Trigger:
    """Put together a trigger on kernels that are new on nodes; those of `debounce` seconds are planned together.

    Raises UsageError for a matrix that names kernels itself, and what `schedules.schedule` raises.
    """
    if planner.matrix.request.kernels:
        raise UsageError("--kernel is not for --on node-kernel", "kernels are those of the nodes", hint="leave it out")
    whole = schedules.schedule(planner, schedules.NO_TIMES)
    planned = _planned(
        NODE_KERNEL, "answer", whole, planner.namespace, suspended=True, told=_TOLD_KERNELS,
        notes=_note({"engine": planner.engine.name}),
    )  # fmt: skip
    watch = _program("watch", planned.name, planner.namespace, f"--debounce={debounce}")
    objects = (*render_schedule(planned, planner.engine.name), watching.watcher(planned, watch))
    return Trigger(schedule=planned, objects=objects, account=WATCHER)


def rung(rings: Rings, receiver: str) -> Trigger:
    """Put together a trigger that has a bell, which one of RECEIVERS makes. Raises what `schedules.schedule` raises."""
    bell, planner = dataclasses.replace(rings.bell, receiver=receiver), rings.planner
    note = {
        "engine": receiver, "forge": bell.repository.forge, "host": bell.repository.host,
        "repo": bell.repository.path, "refs": list(bell.refs), "paths": list(bell.paths), "secret": bell.secret,
    }  # fmt: skip
    planned = _planned(
        rings.on, "answer", schedules.schedule(planner, schedules.NO_TIMES), planner.namespace,
        f"--receiver={receiver}", suspended=True, told=_TOLD, notes=_note(note),
    )  # fmt: skip
    listen = ["dtkpipe", "trigger", "listen", receiver, "--namespace", planner.namespace]
    watcher = watching.bell_watcher(receiver, planner.namespace, planned, listen)
    return Trigger(
        schedule=planned, bell=bell, account=CALLERS[bell.repository.forge] if receiver == "argo" else BELL,
        objects=render(planned, bell),
        shared=(listener(planner.namespace), watcher) if receiver == "tekton" else (watcher,),
    )  # fmt: skip


def _note(note: Mapping[str, object]) -> dict[str, str]:
    return {_NOTE: json.dumps(note, sort_keys=True)}


def _planned(
    on: str, verb: str, whole: Schedule, namespace: str, *more: str, told: Mapping[str, str], suspended: bool = False,
    notes: Mapping[str, str] | None = None,
) -> Schedule:  # fmt: skip
    """Return the schedule of a trigger: its planner does `dtkpipe trigger VERB` with the matrix behind it."""
    argv = [*_program(verb, whole.name, namespace, *more), "--", *whole.argv[3:]]
    return dataclasses.replace(whole, trigger=on, argv=argv, told=told, suspended=suspended, notes=notes or {})


def _program(verb: str, name: str, namespace: str, *more: str) -> list[str]:
    return ["dtkpipe", "trigger", verb, name, "--namespace", namespace, *more]


def create(wanted: Trigger, engine: Engine, place: Place, pipeline: str, how: str, *, dry_run: bool) -> None:
    """Make a trigger, all of it or nothing.

    Raises what `schedules.create` raises, UnsupportedError for a cluster where nothing can ring, NotFoundError where
    an account or the Secret is missing.
    """
    schedules.check(wanted.schedule, engine, place, pipeline, how)
    if wanted.bell:
        _can_ring(wanted.bell, place)
    if place.cluster.find(SERVICE_ACCOUNTS, wanted.account, place.namespace) is None:
        raise NotFoundError(
            f"there is no account {wanted.account} in namespace {place.namespace}", "what rings runs as it", hint=how
        )
    if wanted.bell:
        _see_secret(wanted.bell, place)
    schedules.make(place, wanted.objects, dry_run=dry_run)
    for one in wanted.shared:
        place.cluster.apply(one, place.namespace, dry_run=dry_run)


def _can_ring(bell: Bell, place: Place) -> None:
    receiver = RECEIVERS[bell.receiver]
    for resource in _RINGS[bell.receiver]:
        if resource.plural not in place.cluster.served(resource.api):
            raise UnsupportedError(
                f"{receiver.part_of} is not on this cluster", f"needed: {resource.words} in {resource.api}",
                hint=f"install {receiver.part_of}",
            )  # fmt: skip
    with suppress(NotAllowedError):
        if bell.receiver == "argo-events" and not place.cluster.find(EVENT_BUSES, _BUS, place.namespace):
            raise NotFoundError(
                f"there is no EventBus `{_BUS}` in {place}",
                "Argo Events carries calls by it",
                hint="argoproj.github.io/argo-events/eventbus/eventbus",
            )


def secret_of(bell: Bell) -> tuple[str, str]:
    """Return the name of the Secret, and the key in it, with what the forge signs with."""
    if RECEIVERS[bell.receiver].own_secret:
        return bell.secret, SECRET_KEY
    return WEBHOOK_CLIENTS, CALLERS[bell.repository.forge]


def _see_secret(bell: Bell, place: Place) -> None:
    """See that the Secret is there with its key, as far as we may look."""
    name, key = secret_of(bell)
    value = f"--from-file={key}=FILE"
    with suppress(NotAllowedError):
        found = place.cluster.find(SECRETS, name, place.namespace)
        if found is None or key not in (found.get("data") or {}):
            shared = f"the text `{{type: {bell.repository.forge}, secret: ...}}`"
            raise NotFoundError(
                f"Secret {name} has no `{key}`" if found else f"there is no Secret {name} in {place}",
                f"it holds {shared if name == WEBHOOK_CLIENTS else 'what the forge signs with'}",
                hint=f"kubectl -n {place.namespace} create secret generic {name} {value}",
            )


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A trigger as it stands."""

    on: str
    planned: Listed
    """How its planner does; what it says of times means something for triggers on releases alone."""
    bell: Bell | None = None
    """What rings, where it is a push."""
    watched: bool = True
    """False: its watcher does not run."""

    @property
    def engine(self) -> str:
        """What receives the calls, or plans where nobody calls."""
        return self.bell.receiver if self.bell else self.planned.engine


def listed(place: Place, now: datetime) -> list[Rung]:
    """Return all triggers of a namespace, by name."""
    found = [
        _rung_of(place, one, schedules.of(place, kind, one, now))
        for kind in KINDS.values()
        for one in schedules.every(place, kind.crons, TRIGGER)
    ]
    return sorted(found, key=lambda one: (one.planned.name, one.planned.engine))


def _rung_of(place: Place, one: Object, planned: Listed) -> Rung:
    on = on_of(one)
    if on == RELEASE:
        return Rung(on=on, planned=planned)
    if on == NODE_KERNEL:
        engine = str(_noted(one).get("engine") or planned.engine)
        watched = _watched(place, f"{SCHEDULE}={planned.name}")
        return Rung(on=on, planned=dataclasses.replace(planned, engine=engine), watched=watched)
    bell = bell_of(one)
    return Rung(on=on, planned=planned, bell=bell, watched=_watched(place, f"{RECEIVER}={bell.receiver}"))


def _watched(place: Place, labels: str) -> bool:
    watchers = schedules.every(place, DEPLOYMENTS, labels)
    return any((one.get("status") or {}).get("readyReplicas") for one in watchers)


def on_of(one: Object) -> str:
    """Return what a trigger is on, from the object that fires."""
    return str(one["metadata"]["labels"][TRIGGER])


def bell_of(one: Object) -> Bell:
    """Return what rings, from the object that fires. Raises NotFoundError where somebody took that away."""
    try:
        told = _noted(one)
        repository = Repository(str(told["forge"]), str(told["host"]), str(told["repo"]))
        RECEIVERS[told["engine"]]  # and none of a newer dtkpipe
        return Bell(
            repository=repository, refs=tuple(told["refs"]), paths=tuple(told["paths"]), secret=str(told["secret"]),
            receiver=str(told["engine"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        name = one["metadata"]["name"]
        raise NotFoundError(
            f"trigger `{name}` does not say what rings it", f"looked for: annotation {_NOTE}",
            hint=f"dtkpipe trigger delete {name}, and create it again",
        ) from error  # fmt: skip


def _noted(one: Object) -> dict[str, Any]:
    """Return what `trigger create` has noted; nothing where somebody took that away."""
    try:
        told = json.loads((one["metadata"].get("annotations") or {}).get(_NOTE, "{}"))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def delete(place: Place, name: str) -> None:
    """Delete a trigger and what belongs to it, what rings it too; cells at work go on. Raises NotFoundError."""
    kind, one = schedules.existing(place, name, trigger=True)
    on = on_of(one)
    if on in (PUSH, CATALOG):
        _remove_bell(place, name, str(_noted(one).get("engine")))
    if on == NODE_KERNEL:
        for watcher in schedules.every(place, DEPLOYMENTS, f"{SCHEDULE}={name}"):
            schedules.remove(place, DEPLOYMENTS, watcher)
    schedules.remove_all(place, kind, one)
    if on == RELEASE:
        _forget(place, name)


def _remove_bell(place: Place, name: str, noted: str) -> None:
    """Take away what makes a trigger's bell, and the bell; with the last one of a receiver, what they share."""
    for receiver, kinds in _RINGS.items():
        rings = [(kind, one) for kind in kinds for one in schedules.every(place, kind, f"{SCHEDULE}={name},{TRIGGER}")]
        for kind, ring in rings:
            schedules.remove(place, kind, ring)
        if not rings and receiver != noted:
            continue
        place.cluster.delete(BELLS[receiver], bell_name(name), place.namespace)
        if not schedules.every(place, kinds[0], TRIGGER):
            place.cluster.delete(DEPLOYMENTS, watching.bell_watcher_name(receiver), place.namespace)
            if receiver == "tekton":
                place.cluster.delete(EVENT_LISTENERS, LISTENER, place.namespace)


def _forget(place: Place, name: str) -> None:
    """Take away what a trigger on releases saw; with the last one of these, all of it."""
    if any(schedules.every(place, kind.crons, f"{TRIGGER}={RELEASE}") for kind in KINDS.values()):
        with suppress(NotFoundError):
            place.cluster.patch(CONFIG_MAPS, SEEN, place.namespace, {"data": {name: None}})
        return
    place.cluster.delete(CONFIG_MAPS, SEEN, place.namespace)


def called_at(receiver: str, namespace: str, name: str) -> str:
    """Return where calls go: a path of Argo's server, or a Service for which the cluster needs an Ingress or Route."""
    if service := RECEIVERS[receiver].service:
        host, _, port = service.format(name).partition(":")
        return f"http://{host}.{namespace}.svc:{port}"
    return f"https://ARGO-SERVER/api/v1/events/{namespace}/dtkpipe"
