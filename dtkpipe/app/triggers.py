"""Triggers on a cluster: made, listed with their last outcome, deleted. A trigger is a schedule that a bell fires."""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dtkpipe.app import schedules
from dtkpipe.app.clusters import Engine, Place
from dtkpipe.app.schedules import KINDS, Listed, Matrix
from dtkpipe.clients.cluster import (
    EVENT_LISTENERS,
    JOBS,
    SECRETS,
    SERVICE_ACCOUNTS,
    TRIGGERS,
    WORKFLOW_EVENT_BINDINGS,
    WORKFLOWS,
    Object,
    Resource,
)
from dtkpipe.engines.rights import BELL, CALLERS
from dtkpipe.engines.schedules import TRIGGER, Schedule
from dtkpipe.engines.triggers import LISTENER, SECRET_KEY, Bell, bell_name, listener, render
from dtkpipe.errors import (
    ExistsError,
    NotAllowedError,
    NotFoundError,
    NothingSelectedError,
    UnsupportedError,
    UsageError,
)
from dtkpipe.matrix.modules import choose, in_git
from dtkpipe.values.cron import Cron
from dtkpipe.values.forge import Repository, place_of
from dtkpipe.values.source import Source

PUSH, CATALOG = "push", "catalog"
"""On what triggers ring: a push to a module's repository, or to the one that has the module specs."""
WEBHOOK_CLIENTS = "argo-workflows-webhook-clients"
"""The Secret in which Argo's server has what forges sign with: account -> `{type, secret}`."""
_NOTE = "dtkpipe.io/rings"
_NO_TIMES = Cron("0 0 1 1 *", "UTC")
"""A schedule has to have times; a trigger's are suspended."""
BELLS: Mapping[str, Resource] = {"argo": WORKFLOWS, "tekton": JOBS}
"""What an engine's bells are."""
_RINGS: Mapping[str, Resource] = {"argo": WORKFLOW_EVENT_BINDINGS, "tekton": TRIGGERS}
"""What makes them."""


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """What rings, and what is planned then."""

    schedule: Schedule
    bell: Bell
    ring: Sequence[str]

    def render(self, engine: str, namespace: str) -> tuple[Object, ...]:
        """Return all objects, the one that all triggers of a namespace share included. Raises UsageError."""
        shared = (listener(namespace),) if engine == "tekton" else ()
        return (*shared, *render(self.schedule, self.bell, engine, self.ring))


def on_push(
    name: str, repository: Repository, paths: Sequence[str], secret: str, engine: Engine, namespace: str,
    matrix: Matrix, image: str, here: Path,
) -> Trigger:  # fmt: skip
    """Put together a trigger on pushes to a repository: of the matrix, it plans the modules that are built from it.

    Raises NothingSelectedError where there is none, UsageError for specs that are elsewhere, and what
    `schedules.schedule` raises.
    """
    if elsewhere := [one for one in matrix.request.modules if in_git(one)]:
        raise UsageError(
            f"`{elsewhere[0][:80]}` is not here", "a push to a module's repository plans the specs that go along",
            hint="--modules with files, or --on catalog for that repository",
        )  # fmt: skip
    chosen = choose(matrix.request.modules, here)
    built = [one for one in chosen.good if place_of(one.source.repo) == (repository.host, repository.path)]
    if not built and not chosen.broken:
        repos = sorted({one.source.repo for one in chosen.good})
        raise NothingSelectedError(
            f"no module is built from {repository.host}/{repository.path}",
            f"they are from: {', '.join(repos[:5])}{' ...' if len(repos) > 5 else ''}",
            hint="the repository as the module specs have it: source.repo",
        )
    files = [glob.escape(str(one.file.absolute())) for one in built] or matrix.request.modules
    narrowed = dataclasses.replace(matrix, request=dataclasses.replace(matrix.request, modules=files))
    bell = Bell(
        repository=repository, refs=tuple(dict.fromkeys(one.source.ref for one in built)), paths=paths, secret=secret
    )
    planned = schedules.schedule(name, _NO_TIMES, engine, namespace, narrowed, image, here)
    return _trigger(PUSH, bell, engine, namespace, planned)


def on_catalog(
    name: str, url: str, repository: Repository, secret: str, engine: Engine, namespace: str, matrix: Matrix,
    image: str, here: Path,
) -> Trigger:  # fmt: skip
    """Put together a trigger on pushes that change module specs: patterns of them are relative to the repository.

    Raises UsageError for patterns that lead out of it, and what `schedules.schedule` raises.
    """
    patterns = matrix.request.modules
    if out := [one for one in patterns if one.startswith("/") or ".." in one.split("/") or in_git(one)]:
        raise UsageError(f"`{out[0][:80]}` is not in the repository", hint="--modules 'modules/*', as it has them")
    repo = Source.parse(url, here=here).repo
    there = dataclasses.replace(matrix.request, modules=[f"{repo}//{pattern}" for pattern in patterns])
    bell = Bell(repository=repository, paths=patterns, secret=secret)
    read = dataclasses.replace(matrix, request=there)
    return _trigger(
        CATALOG, bell, engine, namespace, schedules.schedule(name, _NO_TIMES, engine, namespace, read, image, here)
    )


def _trigger(on: str, bell: Bell, engine: Engine, namespace: str, planned: Schedule) -> Trigger:
    name = planned.name
    own = [name, "--namespace", namespace]
    note = {
        "engine": engine.name, "forge": bell.repository.forge, "host": bell.repository.host,
        "repo": bell.repository.path, "refs": list(bell.refs), "paths": list(bell.paths), "secret": bell.secret,
    }  # fmt: skip
    made = dataclasses.replace(
        planned, trigger=on, suspended=True, notes={_NOTE: json.dumps(note, sort_keys=True)},
        argv=["dtkpipe", "trigger", "answer", *own, "--", *planned.argv[3:]],
    )  # fmt: skip
    return Trigger(schedule=made, bell=bell, ring=["dtkpipe", "trigger", "ring", *own])


def create(wanted: Trigger, engine: Engine, place: Place, pipeline: str, how: str, *, dry_run: bool) -> None:
    """Make a trigger, all of it or nothing.

    Raises what `schedules.create` raises, UnsupportedError for a cluster where nothing can ring, NotFoundError where
    an account or the Secret is missing.
    """
    objects = render(wanted.schedule, wanted.bell, engine.name, wanted.ring)
    schedules.check(wanted.schedule, engine, place, pipeline, how)
    _can_ring(engine, place)
    account = BELL if engine.name == "tekton" else CALLERS[wanted.bell.repository.forge]
    if place.cluster.find(SERVICE_ACCOUNTS, account, place.namespace) is None:
        raise NotFoundError(
            f"there is no account {account} in namespace {place.namespace}", "bells ring as it", hint=how
        )
    _see_secret(wanted.bell, engine, place)
    schedules.make(place, objects, dry_run=dry_run)
    if engine.name == "tekton" and not dry_run:
        with suppress(ExistsError):
            place.cluster.create(EVENT_LISTENERS, listener(place.namespace), place.namespace)


def _can_ring(engine: Engine, place: Place) -> None:
    resource = _RINGS[engine.name]
    if resource.plural in place.cluster.served(resource.api):
        return
    title = "Tekton Triggers" if engine.name == "tekton" else "Argo Workflows"
    raise UnsupportedError(
        f"{title} is not on this cluster", f"needed: {resource.words} in {resource.api}", hint=f"install {title}"
    )


def _see_secret(bell: Bell, engine: Engine, place: Place) -> None:
    """See that the Secret is there with its key, as far as we may look."""
    forge = bell.repository.forge
    name, key = (bell.secret, SECRET_KEY) if engine.name == "tekton" else (WEBHOOK_CLIENTS, CALLERS[forge])
    value = f"--from-file={key}=FILE"
    with suppress(NotAllowedError):
        found = place.cluster.find(SECRETS, name, place.namespace)
        if found is None or key not in (found.get("data") or {}):
            text = f"the text `{{type: {forge}, secret: ...}}`"
            raise NotFoundError(
                f"Secret {name} has no `{key}`" if found else f"there is no Secret {name} in {place}",
                f"it holds {text if engine.name == 'argo' else 'what the forge signs with'}",
                hint=f"kubectl -n {place.namespace} create secret generic {name} {value}",
            )


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A trigger as it stands."""

    on: str
    bell: Bell
    planned: Listed
    """How its planner does; its times mean nothing."""


def listed(place: Place, now: datetime) -> list[Rung]:
    """Return all triggers of a namespace, by name."""
    found = [
        Rung(on=one["metadata"]["labels"][TRIGGER], bell=bell_of(one), planned=schedules.of(place, engine, one, now))
        for engine, kind in KINDS.items()
        for one in schedules.every(place, kind.crons, TRIGGER)
    ]
    return sorted(found, key=lambda one: (one.planned.name, one.planned.engine))


def bell_of(one: Object) -> Bell:
    """Return what rings, from the object that fires. Raises NotFoundError where somebody took that away."""
    note = (one["metadata"].get("annotations") or {}).get(_NOTE, "")
    try:
        told = json.loads(note)
        repository = Repository(str(told["forge"]), str(told["host"]), str(told["repo"]))
        return Bell(
            repository=repository, refs=tuple(told["refs"]), paths=tuple(told["paths"]), secret=str(told["secret"])
        )
    except (ValueError, KeyError, TypeError) as error:
        name = one["metadata"]["name"]
        raise NotFoundError(
            f"trigger `{name}` does not say what rings it", f"looked for: annotation {_NOTE}",
            hint=f"dtkpipe trigger delete {name}, and create it again",
        ) from error  # fmt: skip


def delete(place: Place, name: str) -> None:
    """Delete a trigger and what belongs to it, its bell too; cells at work go on. Raises NotFoundError."""
    engine, one = schedules.existing(place, name, trigger=True)
    rings = _RINGS[engine]
    for ring in schedules.every(place, rings, TRIGGER):
        if ring["metadata"]["name"] == name:
            schedules.remove(place, rings, ring)
    if engine == "tekton" and not schedules.every(place, rings, TRIGGER):
        place.cluster.delete(EVENT_LISTENERS, LISTENER, place.namespace)
    place.cluster.delete(BELLS[engine], bell_name(name), place.namespace)
    schedules.remove_all(place, engine, one)


def called_at(engine: str, namespace: str) -> str:
    """Return where calls go: a path of Argo's server, or a Service for which the cluster needs an Ingress or Route."""
    if engine == "argo":
        return f"https://ARGO-SERVER/api/v1/events/{namespace}/dtkpipe"
    return f"http://el-{LISTENER}.{namespace}.svc:8080"
