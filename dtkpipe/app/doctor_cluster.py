"""What a cluster lacks to run pipelines: versions, installation, rights, Pod Security, nodes, registry, secrets.

Checks try the thing itself where that changes nothing (a rehearsal by the API server, a question about rights), and
one short-lived pod tries the registry from inside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dtkpipe.app import versions
from dtkpipe.app.clusters import ENGINES, MANAGED, Engine, Place
from dtkpipe.app.doctor import Finding
from dtkpipe.app.doctor_pod import denied, probe, try_registry
from dtkpipe.builders import BUILDERS, with_builder
from dtkpipe.clients.cluster import NODES, SECRETS, TASKS, Object, Resource, resource_of
from dtkpipe.engines import rbac
from dtkpipe.engines.rights import PEOPLE, Right, Scope
from dtkpipe.errors import DtkpipeError, NotAllowedError, NotFoundError
from dtkpipe.model.images import DEFAULTS, RUNNER
from dtkpipe.tasks import ALL, REGISTRY_AUTH, SECRET_PARAMS, build, report
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.node import KERNEL_LABELS

CLUSTER = "cluster"
"""The job, as `--for` names it."""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Which cluster is examined, and for what."""

    place: Place
    engine: Engine | None = None
    target: str = rbac.TARGET_NAMESPACE
    arch: Arch
    runner_image: str = ""
    """Image of the pods that are tried; an empty one is what the tasks are installed with."""
    push_to: ImageRef | None = None
    insecure: tuple[str, ...] = ()
    signs: bool = False
    """Runs sign modules, and need the Secret with the key."""


def examine(patient: Patient) -> list[Finding]:
    """Return what was found. Raises UnreachableError, NotAllowedError for a cluster that does not know us."""
    cluster = patient.place.cluster
    version = cluster.version()
    found = [
        _finding(
            "kubernetes", versions.reaches(version, versions.KUBERNETES_FLOOR), f"{version} at {cluster.host}",
            f"upgrade the cluster to at least Kubernetes {versions.KUBERNETES_FLOOR}",
        )
    ]  # fmt: skip
    engines = _engines(patient)
    found += [finding for _, finding in engines]
    working = [engine for engine, finding in engines if finding.ok]
    patient = replace(patient, runner_image=patient.runner_image or _runner(patient, working))
    for engine in working:
        found += [_tried(f"{engine.name} pipelines", lambda one=engine: _pipelines(patient, one))]  # type: ignore[misc]
        found += [_tried(f"{engine.name} accounts", lambda one=engine: _accounts(patient, one))]  # type: ignore[misc]
        found += [_tried(f"{engine.name} your rights", lambda one=engine: _rights(patient, one))]  # type: ignore[misc]
    found += [
        _tried("pod security", lambda: _tasks_admitted(patient)),
        _tried("drivers", lambda: _drivers_admitted(patient)),
        _tried("nodes", lambda: _nodes(patient)),
        _tried("kernel labels", lambda: _labels(patient)),
    ]
    reached = _tried("registry", lambda: _registry(patient))
    return [*found, reached, *_secrets(patient, reached)]


def _engines(patient: Patient) -> list[tuple[Engine, Finding]]:
    """Look for the engine that was asked for, or whose pipelines are installed; otherwise for both: one is enough."""
    place = patient.place
    asked = [patient.engine] if patient.engine else list(ENGINES.values())
    looked = [(one, _engine(patient, one)) for one in asked]
    working = [(one, finding) for one, finding in looked if finding.ok]
    used = [pair for pair in working if place.cluster.list(pair[0].templates, place.namespace, labels=MANAGED, limit=1)]
    broken = [
        (one, finding) for one, finding in looked if not finding.ok and place.cluster.versions(one.templates.group)
    ]
    return (used or working) + broken if working else looked


def _engine(patient: Patient, engine: Engine) -> Finding:
    cluster = patient.place.cluster
    try:
        versions.require_api(cluster, engine)
    except DtkpipeError as error:
        return _finding(engine.name, False, "; ".join(error.details), error.hint)
    found = versions.engine_version(cluster, engine)
    return _finding(
        engine.name, versions.reaches(found.version, engine.floor), str(found),
        f"upgrade {engine.title} to at least {engine.floor}",
    )  # fmt: skip


def _runner(patient: Patient, engines: Sequence[Engine]) -> str:
    """Return the image that an engine's tasks are installed with, or the released one."""
    place, name = patient.place, report().name
    with contextlib.suppress(NotAllowedError):
        for engine in engines:
            resource = engine.templates if engine.name == "argo" else TASKS
            for one in place.cluster.list(resource, place.namespace, labels=MANAGED):
                programs = [each["container"] for each in one["spec"].get("templates", ()) if each["name"] == name]
                if (one["metadata"].get("labels") or {}).get("app.kubernetes.io/name") == name:
                    programs += one["spec"].get("steps", ())
                if programs:
                    return str(programs[0]["image"])
    return DEFAULTS[RUNNER]


def _pipelines(patient: Patient, engine: Engine) -> Finding:
    from dtkpipe import __version__
    from dtkpipe.app.pipelines import load, names

    place, fix = patient.place, _install(patient, engine)
    there = {
        one["metadata"]["name"]: (one["metadata"].get("labels") or {}).get("app.kubernetes.io/version", "")
        for one in place.cluster.list(engine.templates, place.namespace, labels=MANAGED)
    }
    shipped = [load(name) for name in names()]
    ways = [[with_builder(one, builder).name for one in shipped] for builder in BUILDERS]  # one of them is enough
    wanted_names = min(ways, key=lambda way: sum(name not in there for name in way))
    if missing := [name for name in wanted_names if name not in there]:
        return _finding("", False, f"{', '.join(missing)}: not installed in namespace {place.namespace}", fix)
    wanted = __version__.replace("+", "_")
    if old := [f"{name} of dtkpipe {there[name]}" for name in wanted_names if there[name] != wanted]:
        return _finding("", False, f"{', '.join(old)}; this is {wanted}", fix)
    return _finding("", True, f"{', '.join(wanted_names)} in namespace {place.namespace}")


def _accounts(patient: Patient, engine: Engine) -> Finding:
    """Compare accounts, roles and bindings with the table of rights: nothing missing, and nothing more."""
    place = patient.place
    wrong, total = [], 0
    for wanted in rbac.objects(engine.name, place.namespace, patient.target):
        total += 1
        meta = wanted["metadata"]
        there = place.cluster.find(resource_of(wanted), meta["name"], meta.get("namespace", ""))
        label = f"{wanted['kind'].lower()}/{meta['name']}"
        if there is None:
            wrong.append(f"{label} is missing")
        elif any(wanted.get(key) != there.get(key) for key in ("rules", "roleRef")) or _subjects(wanted) != _subjects(
            there
        ):
            wrong.append(f"{label} differs")
    if wrong:
        more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        return _finding("", False, f"{', '.join(wrong[:4])}{more}", _install(patient, engine))
    return _finding("", True, f"{total} objects, as the table of rights says")


def _rights(patient: Patient, engine: Engine) -> Finding:
    place = patient.place
    lacking = [
        f"{verb} {right.resource}"
        for right in PEOPLE
        if right.engine in ("", engine.name)
        for verb in right.verbs
        if not _may(place, right, verb)
    ]
    if lacking:
        return _finding(
            "", False, f"you may not {', '.join(lacking[:6])}{' ...' if len(lacking) > 6 else ''} in {place.namespace}",
            f"kubectl create rolebinding dtkpipe-users --clusterrole=edit --user=YOU -n {place.namespace}",
        )  # fmt: skip
    return _finding("", True, f"all that submitting and following needs, in namespace {place.namespace}")


def _may(place: Place, right: Right, verb: str) -> bool:
    name, _, part = right.plural.partition("/")
    api = f"{right.group}/-" if right.group else "-"
    where = place.namespace if right.scope is not Scope.CLUSTER else ""
    return place.cluster.allowed(verb, Resource(api, name, ""), where, subresource=part)


def _tasks_admitted(patient: Patient) -> Finding:
    """Let the API server rehearse a pod as each kind of task has it: Pod Security, SCC, webhooks and quota answer."""
    kinds = {one.rights: one for one in (step() for step in ALL)}
    for task in kinds.values():
        pod = probe(task, patient.runner_image)
        if refused := _admitted(patient, pod, patient.place.namespace, "baseline"):
            return _finding("", False, f"task {task.name}: {refused.found}", refused.fix)
    return _finding("", True, f"namespace {patient.place.namespace} takes the pods of all tasks")


def _drivers_admitted(patient: Patient) -> Finding:
    pod = probe(build(), patient.runner_image)
    pod["spec"]["serviceAccountName"] = "dtkpipe-driver"
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    taken = _finding("", True, f"namespace {patient.target} takes privileged pods")
    return _admitted(patient, pod, patient.target, "privileged") or taken


def _admitted(patient: Patient, pod: Object, namespace: str, level: str) -> Finding | None:
    """Return why a pod would be refused, and what to do; None if it would not. Raises NotAllowedError."""
    place = patient.place
    try:
        refused = denied(place, pod, namespace)
    except NotFoundError as error:
        return _finding("", False, error.what, _install(patient, None))
    if refused is None:
        return None
    said = refused.details[0] if refused.details else refused.what
    if "violates PodSecurity" in said:
        fix = f"kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce={level}"
        return _finding("", False, said, fix)
    return _finding("", False, said, refused.hint or f"kubectl describe namespace {namespace}")


def _nodes(patient: Patient) -> Finding:
    ready: dict[str, int] = {}
    for node in _all_nodes(patient):
        conditions = (node.get("status") or {}).get("conditions") or ()
        up = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
        if up and not (node.get("spec") or {}).get("unschedulable"):
            arch = ((node.get("status") or {}).get("nodeInfo") or {}).get("architecture", "?")
            ready[arch] = ready.get(arch, 0) + 1
    said = ", ".join(f"{count} {arch}" for arch, count in sorted(ready.items())) or "none"
    return _finding(
        "", patient.arch.oci in ready, f"ready: {said}",
        f"add a node with kubernetes.io/arch={patient.arch.oci}, or ask for another: --arch",
    )  # fmt: skip


def _labels(patient: Patient) -> Finding:
    bare = [
        node["metadata"]["name"]
        for node in _all_nodes(patient)
        if not any(label in (node["metadata"].get("labels") or {}) for label in KERNEL_LABELS)
    ]
    if bare:
        said = f"no label names the kernel of {', '.join(bare[:5])}{' ...' if len(bare) > 5 else ''}"
        return _finding("", False, f"{said}: drivers do not go there", "dtkpipe label-nodes")
    return _finding("", True, "every node has one")


def _all_nodes(patient: Patient) -> list[Object]:
    return patient.place.cluster.list(NODES)


def _registry(patient: Patient) -> Finding:
    if patient.push_to is None:
        return _finding("", True, "not tried: no repository is named (--push-to)")
    found = try_registry(patient.place, patient.push_to, patient.runner_image, patient.insecure)
    return _finding("", found.ok, found.found, found.fix)


def _secrets(patient: Patient, reached: Finding) -> Iterator[Finding]:
    """Look at the Secrets that tasks mount: whether they are there, and have the keys."""
    known = {secret.param: secret for step in ALL for secret in step.secrets}
    needed = {REGISTRY_AUTH.param: patient.push_to is None or not reached.ok, "sign-secret": patient.signs}
    for param, declared in SECRET_PARAMS.items():
        name, secret = declared.default or "", known[param]
        files = " ".join(f"--from-file={key}=FILE" for key in secret.files)
        fix = f"kubectl create secret generic {name} -n {patient.place.namespace} {files}"
        yield _tried(f"secret {name}", lambda: _secret(patient, name, secret.files[0], needed.get(param, False), fix))  # noqa: B023


def _secret(patient: Patient, name: str, key: str, needed: bool, fix: str) -> Finding:
    try:
        there = patient.place.cluster.find(SECRETS, name, patient.place.namespace)
    except NotAllowedError:
        return _finding("", True, "you may not see Secrets: not looked at")
    if there is None:
        return _finding(
            "", not needed, f"not in namespace {patient.place.namespace}{'' if needed else ', nor needed'}", fix
        )
    if key not in (there.get("data") or {}):
        return _finding("", False, f"has no key `{key}`", fix)
    return _finding("", True, f"in namespace {patient.place.namespace}")


def _install(patient: Patient, engine: Engine | None) -> str:
    target = "" if patient.target == rbac.TARGET_NAMESPACE else f" --target-namespace {patient.target}"
    name = (engine or patient.engine or ENGINES["argo"]).name
    return f"dtkpipe install --engine {name} -n {patient.place.namespace}{target}"


def _subjects(one: Mapping[str, object]) -> list[tuple[str, str]]:
    listed = one.get("subjects") or []
    return sorted((str(item.get("name")), str(item.get("namespace"))) for item in listed)  # type: ignore[attr-defined]


def _finding(name: str, ok: bool, found: str, fix: str = "") -> Finding:
    return Finding(name=name, ok=ok, found=found, jobs=(CLUSTER,), fix=fix)


def _tried(name: str, check: Callable[[], Finding]) -> Finding:
    """Give a check its name; what it must not look at is said, and is no fault of the cluster's."""
    try:
        found = check()
    except NotAllowedError as error:
        return _finding(name, True, f"not looked at: {error.what}")
    except NotFoundError as error:
        return _finding(name, False, error.what, error.hint)
    return _finding(name, found.ok, found.found, found.fix)
