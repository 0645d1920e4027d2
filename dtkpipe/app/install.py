"""Puts what runs need onto a cluster, and takes it away again: namespaces, accounts and rights, pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dtkpipe.app.clusters import ENGINES, Engine, Place
from dtkpipe.app.compile import Wanted, compile_pipeline, name_of
from dtkpipe.app.params import Inputs, known
from dtkpipe.app.pipelines import load, names
from dtkpipe.app.versions import check
from dtkpipe.builders import BUILDERS, CAPABILITIES, with_builder
from dtkpipe.clients.cluster import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    DAEMON_SETS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SECURITY_CONTEXT_CONSTRAINTS,
    SERVICE_ACCOUNTS,
    TASKS,
    Cluster,
    Object,
    Resource,
    resource_of,
)
from dtkpipe.engines import rbac
from dtkpipe.engines.installed import INSTANCE_LABEL, MANAGED_LABEL, installation, instance
from dtkpipe.engines.rendered import Rendered
from dtkpipe.errors import ExistsError, NotAllowedError, UsageError
from dtkpipe.model.images import DEFAULTS, KANIKO, RUNNER
from dtkpipe.model.pipeline import Pipeline
from dtkpipe.tasks import SECRET_PARAMS

Say = Callable[[str], None]
CREATED, CONFIGURED, UNCHANGED, DELETED = "created", "configured", "unchanged", "deleted"
_MANAGED = f"{MANAGED_LABEL}=dtkpipe"
_SECRETS = tuple(one.default or "" for one in SECRET_PARAMS.values())


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What shall be installed, and where."""

    engine: Engine
    namespace: str
    target: str = rbac.TARGET_NAMESPACE
    runner_image: str = DEFAULTS[RUNNER]
    kaniko_image: str = DEFAULTS[KANIKO]
    builders: tuple[str, ...] = BUILDERS[:1]
    """Each pipeline is installed for each of them."""
    pipelines: tuple[str, ...] = ()
    """Names, or files; none is all that ship with dtkpipe."""
    inputs: Inputs = Inputs()
    """Defaults of parameters, for every pipeline that has them."""
    strict: bool = False

    def objects(self, *, openshift: bool = False) -> list[Object]:
        """Return all objects, in the order in which they are applied."""
        templates = [one for rendered in self.rendered for one in rendered.objects]
        made = installation(self.engine.name, self.namespace, self.target, templates)
        if openshift:
            made += rbac.openshift(self.namespace, CAPABILITIES)
        return made

    @cached_property
    def rendered(self) -> tuple[Rendered, ...]:
        """The pipelines. Raises UsageError for inputs that none of them has a parameter for."""
        built = (with_builder(load(name), builder) for name in self.pipelines or names() for builder in self.builders)
        pipelines = list({one.name: one for one in built}.values())
        every = {one.name for pipeline in pipelines for one in pipeline.params}
        if not set(self.inputs.given) <= every:
            known(max(pipelines, key=lambda one: len(one.params)), self.inputs.given)
        given = {"target-namespace": self.target} if self.target != rbac.TARGET_NAMESPACE else {}
        return tuple(self._render(pipeline, given | self.inputs.of(pipeline)) for pipeline in pipelines)

    def _render(self, pipeline: Pipeline, given: Mapping[str, str]) -> Rendered:
        wanted = Wanted(
            engine=self.engine.name, params={one.name: given[one.name] for one in pipeline.params if one.name in given},
            runner_image=self.runner_image, kaniko_image=self.kaniko_image, strict=self.strict,
        )  # fmt: skip
        return compile_pipeline(pipeline, wanted)


@dataclass(frozen=True)
class Change:
    """What became of one object."""

    name: str
    """`kind/name`"""
    namespace: str
    action: str


def install(place: Place, wanted: Installation, say: Say, *, dry_run: bool = False) -> list[Change]:
    """Apply everything; what was installed before and is not any more goes. A second time changes nothing.

    With `dry_run` the cluster checks and nothing changes. Raises UnsupportedError for a cluster that is too old or
    lacks the engine, ExistsError where a name is taken by somebody else's object, NotAllowedError.
    """
    cluster = place.cluster
    for found in check(cluster, wanted.engine):
        if not found.version:
            say(f"note: {wanted.engine.title}: {found}; at least {wanted.engine.floor} is needed")
    openshift = SECURITY_CONTEXT_CONSTRAINTS.plural in cluster.served(SECURITY_CONTEXT_CONSTRAINTS.api)
    objects = wanted.objects(openshift=openshift)
    there = {_key(one): cluster.find(resource_of(one), one["metadata"]["name"], _namespace(one)) for one in objects}
    _refuse_others(objects, there)
    missing = {one["metadata"]["name"] for one in objects if one["kind"] == "Namespace" and there[_key(one)] is None}
    _rehearse(cluster, [one for one in objects if _namespace(one) not in missing], there)
    if missing and dry_run:
        say(f"note: namespace {', '.join(sorted(missing))} is not there yet: what goes into it was not checked")
    changes = []
    for one in objects:
        before = there[_key(one)]
        if one["kind"] == "Namespace" and before is not None and not _ours(before):
            changes.append(_change(one, UNCHANGED))  # somebody's own, with labels of their choice
            continue
        unchecked = dry_run and _namespace(one) in missing
        after = one if unchecked else cluster.apply(one, dry_run=dry_run)
        changes.append(_change(one, _action(before, after, dry_run)))
    return changes + list(_prune(cluster, wanted, {_key(one) for one in objects}, dry_run))


def uninstall(place: Place, engine: Engine, target: str, say: Say, *, dry_run: bool = False) -> list[Change]:
    """Delete what install made for the engine, and nothing else: runs, drivers, secrets and namespaces stay."""
    cluster, namespace = place.cluster, place.namespace
    gone = list(_own(cluster, engine, namespace))
    if others := [one.name for one in ENGINES.values() if one is not engine and any(_own(cluster, one, namespace))]:
        say(f"note: accounts and rights stay: {', '.join(others)} in namespace {namespace} needs them")
    else:
        gone += _shared(cluster, namespace, target)
        gone += _drivers(cluster, namespace, target, say)
    changes = []
    for resource, one in gone:
        if not dry_run:
            cluster.delete(resource, one["metadata"]["name"], _namespace(one))
        changes.append(_change(one, DELETED))
    if changes:
        say(f"runs, drivers and secrets ({', '.join(_SECRETS)}) in {namespace} and {target} are left")
    return changes


def _refuse_others(objects: Sequence[Object], there: dict[tuple[str, ...], Object | None]) -> None:
    """Never take what is not ours: a name that somebody else uses for something else."""
    taken = [
        name_of(one) + (f" in namespace {_namespace(one)}" if _namespace(one) else "")
        for one in objects
        if one["kind"] != "Namespace" and (found := there[_key(one)]) is not None and not _ours(found)
    ]
    if taken:
        raise ExistsError(
            "names that dtkpipe needs are taken by objects that are not dtkpipe's", *taken,
            hint=f"use another namespace (-n), or hand them over: kubectl label OBJECT {_MANAGED}",
        )  # fmt: skip


def _rehearse(cluster: Cluster, objects: Sequence[Object], there: dict[tuple[str, ...], Object | None]) -> None:
    """Let the cluster check what can be checked before anything changes, so that nothing is installed by half."""
    try:
        for one in objects:
            if one["kind"] != "Namespace" or there[_key(one)] is None:
                cluster.apply(one, dry_run=True)
    except NotAllowedError as error:
        raise NotAllowedError(
            error.what, *error.details, "nothing was changed",
            hint="ask somebody who may: dtkpipe install --dry-run=client -o yaml prints what to apply",
        ) from error  # fmt: skip


def _prune(cluster: Cluster, wanted: Installation, kept: set[tuple[str, ...]], dry_run: bool) -> Iterator[Change]:
    for resource, one in _own(cluster, wanted.engine, wanted.namespace):
        if _key(one) not in kept:
            if not dry_run:
                cluster.delete(resource, one["metadata"]["name"], _namespace(one))
            yield _change(one, DELETED)


def _own(cluster: Cluster, engine: Engine, namespace: str) -> Iterator[tuple[Resource, Object]]:
    """Give what is one engine's own in a namespace, and what is named after it and in none."""
    labels = f"{INSTANCE_LABEL}={instance(engine.name)},{_MANAGED}"
    kinds = [engine.templates, *([TASKS] if engine.parts else []), ROLES, ROLE_BINDINGS, SECRETS, SERVICE_ACCOUNTS]
    for resource in kinds:
        if resource.plural in cluster.served(resource.api):
            for one in cluster.list(resource, namespace, labels=labels):
                yield resource, one
    for resource in (CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES):
        for one in cluster.list(resource, "", labels=labels):
            if one["metadata"]["name"].endswith(f":{namespace}"):
                yield resource, one


def _shared(cluster: Cluster, namespace: str, target: str) -> Iterator[tuple[Resource, Object]]:
    """Give accounts and rights of the runs: those in their namespace, and elsewhere those named after it."""
    labels = f"{INSTANCE_LABEL}={rbac.INSTANCE},{_MANAGED}"
    if namespace != target:
        for resource in (SERVICE_ACCOUNTS, ROLE_BINDINGS, ROLES):
            for one in cluster.list(resource, namespace, labels=labels):
                yield resource, one
    for resource, where in (
        (ROLE_BINDINGS, target), (ROLES, target), (CLUSTER_ROLE_BINDINGS, ""), (CLUSTER_ROLES, ""),
    ):  # fmt: skip
        for one in cluster.list(resource, where, labels=labels):
            if one["metadata"]["name"].endswith(f":{namespace}"):
                yield resource, one


def _drivers(cluster: Cluster, namespace: str, target: str, say: Say) -> Iterator[tuple[Resource, Object]]:
    """Give the drivers' account, unless drivers run with it or runs of another namespace deploy there."""
    if running := [one["metadata"]["name"] for one in cluster.list(DAEMON_SETS, target, labels=_MANAGED)]:
        say(f"note: the drivers' account in {target} stays: {', '.join(running[:5])} run with it")
        return
    labels = f"{INSTANCE_LABEL}={rbac.INSTANCE},{_MANAGED}"
    bindings = cluster.list(ROLE_BINDINGS, target, labels=labels)
    if any(":" in (name := one["metadata"]["name"]) and not name.endswith(f":{namespace}") for one in bindings):
        return
    for one in bindings:
        if ":" not in one["metadata"]["name"]:
            yield ROLE_BINDINGS, one
    for one in cluster.list(SERVICE_ACCOUNTS, target, labels=labels):
        yield SERVICE_ACCOUNTS, one


def _ours(one: Object) -> bool:
    return (one["metadata"].get("labels") or {}).get(MANAGED_LABEL) == "dtkpipe"


def _namespace(one: Object) -> str:
    return str(one["metadata"].get("namespace") or "")


def _key(one: Object) -> tuple[str, ...]:
    return (one["kind"], _namespace(one), one["metadata"]["name"])


def _change(one: Object, action: str) -> Change:
    return Change(name_of(one), _namespace(one), action)


def _action(before: Object | None, after: Object, dry_run: bool) -> str:
    if before is None:
        return CREATED
    if not dry_run:
        same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
        return UNCHANGED if same else CONFIGURED
    # A rehearsal gives no version: compare what it would be with what it is.
    return UNCHANGED if _content(before) == _content(after) else CONFIGURED


def _content(one: Object) -> Object:
    metadata = {
        key: value
        for key, value in one["metadata"].items()
        if key not in ("managedFields", "resourceVersion", "generation")
    }
    return {**{key: value for key, value in one.items() if key not in ("status", "metadata")}, "metadata": metadata}


def engine_named(name: str) -> Engine:
    """Return the engine `name`. Raises UsageError."""
    if name not in ENGINES:
        raise UsageError(f"there is no engine `{name[:80]}` on clusters", f"engines: {', '.join(ENGINES)}")
    return ENGINES[name]
