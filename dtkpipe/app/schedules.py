"""Schedules on a cluster: made, listed with their last outcome, suspended, resumed, deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from dtkpipe.app.clusters import Engine, Place, installed
from dtkpipe.app.compile import refuse_local_source
from dtkpipe.app.matrix.plan import Request
from dtkpipe.clients.cluster import (
    CONFIG_MAPS,
    CRON_JOBS,
    CRON_WORKFLOWS,
    JOBS,
    PODS,
    SERVICE_ACCOUNTS,
    WORKFLOW_TEMPLATES,
    WORKFLOWS,
    Object,
    Resource,
    resource_of,
)
from dtkpipe.engines.rights import PLANNER
from dtkpipe.engines.schedules import FOLDER, NAME_LIMIT, SCHEDULE, TRIGGER, Schedule, render
from dtkpipe.errors import (
    EXIT_CODES,
    DtkpipeError,
    ExistsError,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from dtkpipe.matrix.modules import choose, in_git
from dtkpipe.values.cron import Cron

_NAME = re.compile(rf"[a-z0-9]([a-z0-9-]{{0,{NAME_LIMIT - 2}}}[a-z0-9])?")
NO_TIMES = Cron("0 0 1 1 *", "UTC")
"""A schedule has to have times; those of a trigger that something else fires are suspended."""
_MOST = 900_000
"""Bytes of files that a ConfigMap takes, with some left for the rest of it: its limit is 1 MiB."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What schedules are, and what they start."""

    engine: str
    """Whose schedules are so."""
    crons: Resource
    starts: Resource
    last: str
    """Field of the status: when it fired last."""


KINDS: Mapping[str, Kind] = {
    one.engine: one
    for one in (
        Kind(engine="argo", crons=CRON_WORKFLOWS, starts=WORKFLOWS, last="lastScheduledTime"),
        Kind(engine="tekton", crons=CRON_JOBS, starts=JOBS, last="lastScheduleTime"),
    )
}
"""By engine. Triggers that a watcher fires are of the second kind on each."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """The matrix that a schedule submits. `params` say how registries are spoken to and who signs, as runs take it."""

    request: Request
    params: Mapping[str, str]
    options: Mapping[str, str]
    """What else `matrix submit` is given: flag -> value."""
    retry_failed: bool = False
    pipeline: str = "prebuild"


@dataclass(frozen=True, kw_only=True)
class Planner:
    """What a schedule or a trigger starts, and where."""

    name: str
    engine: Engine
    namespace: str
    matrix: Matrix
    image: str
    here: Path
    """The folder that the names of files are relative to."""


def schedule(planner: Planner, cron: Cron) -> Schedule:
    """Put together what the planner is started with. Raises UsageError and InvalidError for what cannot be one."""
    name, matrix = planner.name, planner.matrix
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"`{name[:80]}` cannot be the name of a schedule",
            f"lower-case letters, digits, hyphens; at most {NAME_LIMIT}",
        )
    files, words = _packed(matrix, planner.here)
    if (size := sum(len(text.encode()) for text in files.values())) > _MOST:
        raise UnsupportedError(
            f"the files of the matrix are too large for one schedule: {size} bytes, the most is {_MOST}",
            hint="make several schedules, each with some of the modules",
        )
    argv = ["dtkpipe", "matrix", "submit", "--engine", planner.engine.name, "--namespace", planner.namespace]
    argv += [f"{flag}={value}" for flag, value in words] + ["--retry-failed"] * matrix.retry_failed
    return Schedule(name=name, cron=cron, argv=argv, files=files, image=planner.image)


def _packed(matrix: Matrix, here: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the files that the planner takes along, and its words."""
    request = matrix.request
    fetched = {pattern: found[0] for pattern in request.modules if (found := in_git(pattern))}
    for catalogue in fetched.values():
        refuse_local_source(catalogue.repo)
    files = _specs([pattern for pattern in request.modules if pattern not in fetched], here)
    words = [("--modules", pattern) for pattern in fetched]
    words += [("--modules", f"{FOLDER}/modules/*.yaml")] * bool(files)
    words.append(("--releases", request.releases))
    words += [("--kernel", kernel.release) for kernel in request.kernels]
    words += [("--arch", ",".join(one.name for one in request.arches)), ("--variant", ",".join(request.variants))]
    words += [
        (flag, value)
        for flag, value in (
            ("--push-to", request.push_to), ("--staging", request.staging), ("--toolkit-repo", request.toolkit_repo),
            ("--graph", request.graph), *matrix.options.items(),
        )
        if value
    ]  # fmt: skip
    if request.lock:
        files |= {f"lock/{file.name}": file.read_text() for file in sorted(request.lock.glob("*.yaml"))}
        words.append(("--lock", f"{FOLDER}/lock"))
    for flag, path, text in _of_params(matrix.params):
        files[path] = text
        words.append((flag, f"{FOLDER}/{path}"))
    words += [("--insecure-registry", host) for host in _hosts(matrix.params)]
    file, colon, variable = matrix.pipeline.partition(":")
    if file.endswith(".py"):
        files["pipeline.py"] = _text(Path(here, file))
        words.append(("--pipeline", f"{FOLDER}/pipeline.py{colon}{variable}"))
    elif matrix.pipeline:
        words.append(("--pipeline", matrix.pipeline))
    return files, words


def _specs(patterns: Sequence[str], here: Path) -> dict[str, str]:
    """Return the module specs that go along. Raises InvalidError for one that is broken, UsageError for a folder."""
    chosen, files = choose(patterns, here), dict[str, str]()
    if chosen.broken:
        error = chosen.broken[0].error
        raise InvalidError(error.what, *error.details, hint=error.hint)
    for module in chosen.good:
        refuse_local_source(module.source.repo)
        files[f"modules/{_file(module.name)}-{len(files)}.yaml"] = module.file.read_text()
    return files


def _of_params(params: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Give flag, file and text of what runs take as text, and the command line as a file."""
    if certificate := params.get("sign-cert"):
        from dtkpipe.tools.x509 import Certificate

        yield "--sign-cert", "sign-cert.pem", Certificate.from_base64(certificate).pem
    for name, path in (("registry-ca", "registry-ca.pem"), ("registry-mirrors", "registry-mirrors.yaml")):
        if text := params.get(name):
            yield f"--{name}", path, text


def _hosts(params: Mapping[str, str]) -> list[str]:
    import json

    return [str(host) for host in json.loads(params.get("insecure-registries") or "[]")]


def _file(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:80]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise UsageError(f"`{file}` cannot be read", str(error.strerror)) from error


def create(wanted: Schedule, engine: Engine, place: Place, pipeline: str, how: str, *, dry_run: bool) -> None:
    """Make a schedule, all of it or nothing. `pipeline` is what its cells run, `how` the command that installs it.

    Raises ExistsError for a name that is taken, NotFoundError where the pipeline or the planner's account is missing,
    and what the cluster says against it.
    """
    objects = render(wanted, engine.name)
    check(wanted, engine, place, pipeline, how)
    make(place, objects, dry_run=dry_run)


def check(wanted: Schedule, engine: Engine, place: Place, pipeline: str, how: str) -> None:
    """See that a schedule can be made. Raises what `create` raises."""
    cluster = place.cluster
    for called, there in (("schedule", find(place, wanted.name)), ("trigger", find(place, wanted.name, trigger=True))):
        if there:
            raise ExistsError(
                f"there is a {called} `{wanted.name}` already", f"in: {place}",
                hint=f"dtkpipe {called} delete {wanted.name} -n {place.namespace}, or another name",
            )  # fmt: skip
    installed(place, engine, pipeline, how)
    if cluster.find(SERVICE_ACCOUNTS, PLANNER, place.namespace) is None:
        raise NotFoundError(
            f"there is no account {PLANNER} in namespace {place.namespace}", "schedules run as it",
            hint=f"dtkpipe install --engine {engine.name} -n {place.namespace}",
        )  # fmt: skip


def make(place: Place, objects: Sequence[Object], *, dry_run: bool) -> None:
    """Create objects, all of them or none. Raises what the cluster says against one."""
    cluster = place.cluster
    for one in objects:
        cluster.create(resource_of(one), one, place.namespace, dry_run=True)
    made: list[Object] = []
    try:
        for one in () if dry_run else objects:
            made.append(cluster.create(resource_of(one), one, place.namespace))  # noqa: PERF401 - what was made before an error counts
    except DtkpipeError:
        for one in reversed(made):
            with suppress(DtkpipeError):
                remove(place, resource_of(one), one)
        raise


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A schedule as it stands. Times are in UTC; None where there is none."""

    name: str
    engine: str
    cron: str
    zone: str
    suspended: bool
    next: datetime | None
    last: datetime | None
    outcome: str
    """How the last start ended: `succeeded`, or why not; `running`."""
    run: str
    """What it started last: name of the Workflow or Job."""


def listed(place: Place, now: datetime) -> list[Listed]:
    """Return all schedules of a namespace, by name."""
    found = [
        of(place, kind, one, now)
        for kind in KINDS.values()
        for one in every(place, kind.crons, f"{SCHEDULE},!{TRIGGER}")
    ]
    return sorted(found, key=lambda one: (one.name, one.engine))


def suspend(place: Place, name: str, *, suspended: bool) -> bool:
    """Let a schedule fire no more, or again. False: it was so already. Raises NotFoundError."""
    kind, one = existing(place, name)
    if bool(one["spec"].get("suspend")) == suspended:
        return False
    place.cluster.patch(kind.crons, name, place.namespace, {"spec": {"suspend": suspended}})
    return True


def delete(place: Place, name: str) -> None:
    """Delete a schedule and what belongs to it; cells at work go on. Raises NotFoundError."""
    remove_all(place, *existing(place, name))


def remove_all(place: Place, kind: Kind, one: Object) -> None:
    """Delete what fires, and all that belongs to it."""
    name = one["metadata"]["name"]
    remove(place, kind.crons, one)
    for resource in (WORKFLOW_TEMPLATES, CONFIG_MAPS):
        for held in every(place, resource, f"{SCHEDULE}={name}"):
            remove(place, resource, held)


def remove(place: Place, resource: Resource, one: Object) -> None:
    """Delete that very object. Raises ConflictError where another has its name now."""
    place.cluster.delete(resource, one["metadata"]["name"], place.namespace, uid=str(one["metadata"]["uid"]))


def every(place: Place, resource: Resource, labels: str) -> list[Object]:
    """Return the objects with such labels; none on a cluster that has no such kind."""
    try:
        return place.cluster.list(resource, place.namespace, labels=labels)
    except NotFoundError:
        return []
    except NotAllowedError:
        if resource.plural in place.cluster.served(resource.api):
            raise
        return []  # nobody has a right to what is not there


def find(place: Place, name: str, *, trigger: bool = False) -> tuple[Kind, Object] | None:
    """Return the kind and the object of a schedule, or of a trigger; None where there is none."""
    refused: NotAllowedError | None = None
    for kind in KINDS.values() if _NAME.fullmatch(name) else ():
        try:
            one = place.cluster.find(kind.crons, name, place.namespace)
        except NotAllowedError as error:  # one may have rights to what is one engine's alone
            refused = error if kind.crons.plural in place.cluster.served(kind.crons.api) else refused
            continue
        labels = (one["metadata"].get("labels") or {}) if one else {}
        if one and SCHEDULE in labels and (TRIGGER in labels) is trigger:
            return kind, one
    if refused:
        raise refused
    return None


def existing(place: Place, name: str, *, trigger: bool = False) -> tuple[Kind, Object]:
    """Return the kind and the object of a schedule, or of a trigger. Raises NotFoundError."""
    if found := find(place, name, trigger=trigger):
        return found
    import difflib

    selector, called = (TRIGGER, "trigger") if trigger else (f"{SCHEDULE},!{TRIGGER}", "schedule")
    names = [one["metadata"]["name"] for kind in KINDS.values() for one in every(place, kind.crons, selector)]
    near = difflib.get_close_matches(name, names, n=1)
    raise NotFoundError(
        f"there is no {called} `{name[:80]}`", f"looked in: {place}",
        hint=f"did you mean `{near[0]}`?" if near else f"dtkpipe {called} list",
    )  # fmt: skip


def of(place: Place, kind: Kind, one: Object, now: datetime) -> Listed:
    """Return how a schedule stands, from its object."""
    spec, status = one["spec"], one.get("status") or {}
    name, suspended = str(one["metadata"]["name"]), bool(spec.get("suspend"))
    expression = spec.get("schedule") or spec["schedules"][0]
    zone = str(spec.get("timeZone") or spec.get("timezone") or "UTC")
    last = _last_start(place, kind, name)
    refused = [str(said.get("message")) for said in status.get("conditions") or () if said.get("status") == "True"]
    return Listed(
        name=name, engine=kind.engine, cron=expression, zone=zone, suspended=suspended,
        next=None if suspended else Cron(expression, zone).next(now).astimezone(UTC),
        last=datetime.fromisoformat(fired) if (fired := status.get(kind.last) or last.when) else None,
        outcome=refused[0] if refused else last.outcome, run=last.run,
    )  # fmt: skip


class _Start(NamedTuple):
    run: str = ""
    when: str = ""
    outcome: str = ""


def _last_start(place: Place, kind: Kind, name: str) -> _Start:
    """Return what a schedule started last, and how it ended."""
    starts = every(place, kind.starts, f"{SCHEDULE}={name}")
    if not starts:
        return _Start()
    last = max(starts, key=lambda one: str(one["metadata"].get("creationTimestamp")))
    run, state = str(last["metadata"]["name"]), state_of(last)
    outcome = _why(place, name, run) if state == "failed" else state
    return _Start(run, str(last["metadata"].get("creationTimestamp") or ""), outcome)


def state_of(one: Object) -> str:
    """Return how a Workflow or a Job goes."""
    status = one.get("status") or {}
    if phase := str(status.get("phase") or ""):
        return {"Succeeded": "succeeded", "Failed": "failed", "Error": "failed"}.get(phase, "running")
    true = {said.get("type") for said in status.get("conditions") or () if said.get("status") == "True"}
    return "succeeded" if "Complete" in true else "failed" if "Failed" in true else "running"


def _why(place: Place, name: str, run: str) -> str:
    """Return why a planner failed: what its exit code means."""
    for pod in every(place, PODS, f"{SCHEDULE}={name}"):
        labels: Mapping[str, Any] = pod["metadata"].get("labels") or {}
        if run not in (labels.get("workflows.argoproj.io/workflow"), labels.get("batch.kubernetes.io/job-name")):
            continue
        for seen in (pod.get("status") or {}).get("containerStatuses") or ():
            code = ((seen.get("state") or {}).get("terminated") or {}).get("exitCode")
            if seen.get("name") in ("main", "planner") and code is not None:
                meaning = "red cells" if code == 10 else dict(EXIT_CODES).get(code, f"exit code {code}")
                return f"failed: {meaning}"
    return "failed"
