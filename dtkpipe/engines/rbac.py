"""Who may do what: accounts of tasks and drivers, each verb with its reason. YAML and pages come from this one table.

Rules are of Kubernetes' RBAC (rbac.authorization.k8s.io/v1). Argo's own need: argo-workflows, docs/workflow-rbac.md.
OpenShift's privileged SCC is taken by a RoleBinding to the ClusterRole that every OpenShift has for it; on another
Kubernetes that role does not exist, and the binding gives nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from dtkpipe import __version__
from dtkpipe.engines.rendered import Object

NAMESPACE = "dtkpipe"
TARGET_NAMESPACE = "dtkpipe-drivers"
"""Where runs and drivers are when nobody says otherwise."""
BUILD = "dtkpipe-build"
INSTANCE = "dtkpipe"
"""What both engines share (label app.kubernetes.io/instance); what is an engine's own has `dtkpipe-<engine>`."""
_RBAC = "rbac.authorization.k8s.io"


class Scope(Enum):
    """Where a right holds."""

    RUNS = "the namespace of the runs"
    TARGET = "the namespace of the drivers"
    CLUSTER = "the cluster"


@dataclass(frozen=True, kw_only=True)
class Right:
    """Some verbs on one resource, and what they are for."""

    resource: str
    """With its group, as `kubectl auth can-i` takes it: `daemonsets.apps`, `pods/exec`."""
    verbs: tuple[str, ...]
    scope: Scope
    why: str
    engine: str = ""
    """Only on this engine."""

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.resource.partition("/")[0].partition(".")[2]

    @property
    def plural(self) -> str:
        """The resource as a rule of RBAC has it, with its subresource."""
        name, slash, part = self.resource.partition("/")
        return f"{name.partition('.')[0]}{slash}{part}"


@dataclass(frozen=True, kw_only=True)
class Account:
    """A ServiceAccount. `tasks`: it is in the namespace of the runs; otherwise in that of the drivers."""

    name: str
    what: str
    rights: tuple[Right, ...] = ()
    tasks: bool = True
    privileged: bool = False
    """May use OpenShift's SCC `privileged`."""


_REPORTS = Right(
    resource="workflowtaskresults.argoproj.io",
    verbs=("create", "patch"),
    scope=Scope.RUNS,
    engine="argo",
    why="Argo's executor, which runs beside every task, reports results by it",
)
_NODES = Right(
    resource="nodes",
    verbs=("get", "list", "watch"),
    scope=Scope.CLUSTER,
    why="to see which nodes have the kernel, and which are down",
)
ACCOUNTS = (
    Account(name="dtkpipe-task", what="tasks that need nothing of the cluster", rights=(_REPORTS,)),
    Account(
        name=BUILD,
        what="`build`: the one task that is root in its container, with an SCC of its own on OpenShift",
        rights=(_REPORTS,),
    ),
    Account(
        name="dtkpipe-deploy",
        what="`deploy` and `rollback`: the only ones that may write workloads, and only beside the drivers",
        rights=(
            _REPORTS,
            _NODES,
            Right(
                resource="daemonsets.apps",
                verbs=("get", "list", "watch", "create", "patch", "delete"),
                scope=Scope.TARGET,
                why="one DaemonSet per module and kernel: rolled out, followed, put back, removed",
            ),
            Right(
                resource="daemonsets.apps/finalizers",
                verbs=("update",),
                scope=Scope.TARGET,
                why="OpenShift asks for it from who lets a DaemonSet own an object",
            ),
            Right(
                resource="configmaps",
                verbs=("create", "patch"),
                scope=Scope.TARGET,
                why="the loader's program, which the DaemonSet mounts and owns",
            ),
            Right(
                resource="controllerrevisions.apps",
                verbs=("list",),
                scope=Scope.TARGET,
                why="to find the previous image for a rollback",
            ),
            Right(
                resource="pods",
                verbs=("get", "list", "watch", "delete"),
                scope=Scope.TARGET,
                why="to follow the rollout on each node, and to replace the pod of a node whose driver is stuck",
            ),
            Right(
                resource="pods/log", verbs=("get",), scope=Scope.TARGET, why="the loader's last words are the cause",
            ),
            Right(
                resource="events",
                verbs=("list",),
                scope=Scope.TARGET,
                why="why a pod could not be made: quota, Pod Security, an image that cannot be pulled",
            ),
        ),
    ),
    Account(
        name="dtkpipe-smoke-test",
        what="`smoke-test`: looks into drivers that run, and writes nothing",
        rights=(
            _REPORTS,
            _NODES,
            Right(
                resource="daemonsets.apps",
                verbs=("get",),
                scope=Scope.TARGET,
                why="to know which image and kernel the nodes should have",
            ),
            Right(resource="pods", verbs=("get", "list", "watch"), scope=Scope.TARGET, why="where the drivers are"),
            Right(
                resource="pods/log", verbs=("get",), scope=Scope.TARGET, why="a driver that is not well says why",
            ),
            Right(
                resource="pods/exec",
                verbs=("get", "create"),
                scope=Scope.TARGET,
                why="to read what the kernel says of the module, and run the module's checks (get: by WebSocket)",
            ),
        ),
    ),
    Account(
        name="dtkpipe-driver",
        what="drivers: their pods load modules and need no API; on OpenShift the SCC `privileged`",
        tasks=False,
        privileged=True,
    ),
)  # fmt: skip


def namespaces(namespace: str, target: str) -> list[Object]:
    """Return the namespaces, labelled for Pod Security (kubernetes.io, Pod Security Standards).

    Tasks keep to `baseline`. Drivers load modules into the node's kernel: that is privileged by nature.
    """
    levels = {namespace: "baseline", target: "privileged"}
    if namespace == target:
        levels = {namespace: "privileged"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {
                    **instance_labels(INSTANCE),
                    **{f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn", "audit")},
                },
            },
        }
        for name, level in levels.items()
    ]


def objects(engine: str, namespace: str, target: str) -> list[Object]:
    """Return accounts, roles and bindings for one engine, in the order in which they are applied."""
    made: list[Object] = []
    for account in ACCOUNTS:
        home = namespace if account.tasks else target
        one = _object("v1", "ServiceAccount", account.name, INSTANCE, home)
        made.append(one if account.tasks else {**one, "automountServiceAccountToken": False})
        made += _bound(account, engine, namespace, target)
        if account.privileged:
            name, role = f"{account.name}-privileged", ("ClusterRole", "system:openshift:scc:privileged")
            made.append(_binding("RoleBinding", name, INSTANCE, home, role, account.name, home))
    return made


def openshift(namespace: str, capabilities: tuple[str, ...]) -> list[Object]:
    """Return what builds need on OpenShift besides: an SCC that allows root with `capabilities`, and no privilege.

    Fields: security.openshift.io/v1 SecurityContextConstraints. What is not listed is not allowed.
    """
    made = _object("security.openshift.io/v1", "SecurityContextConstraints", BUILD, INSTANCE, "")
    made |= {
        "allowHostDirVolumePlugin": False,
        "allowHostIPC": False,
        "allowHostNetwork": False,
        "allowHostPID": False,
        "allowHostPorts": False,
        "allowPrivilegeEscalation": False,
        "allowPrivilegedContainer": False,
        "allowedCapabilities": list(capabilities),
        "requiredDropCapabilities": [],
        "readOnlyRootFilesystem": False,
        "runAsUser": {"type": "RunAsAny"},
        "fsGroup": {"type": "MustRunAs"},
        "seLinuxContext": {"type": "MustRunAs"},
        "supplementalGroups": {"type": "RunAsAny"},
        "seccompProfiles": ["*"],
        "volumes": ["configMap", "downwardAPI", "emptyDir", "projected", "secret"],
    }
    name = f"{BUILD}:{namespace}"
    role = _object(f"{_RBAC}/v1", "ClusterRole", name, INSTANCE, "")
    role["rules"] = [
        {
            "apiGroups": ["security.openshift.io"], "resources": ["securitycontextconstraints"],
            "resourceNames": [BUILD], "verbs": ["use"],
        }
    ]  # fmt: skip
    return [made, role, _binding("RoleBinding", BUILD, INSTANCE, namespace, ("ClusterRole", name), BUILD, namespace)]


def _bound(account: Account, engine: str, namespace: str, target: str) -> list[Object]:
    made: list[Object] = []
    for scope in Scope:
        rights = [one for one in account.rights if one.scope is scope and one.engine in ("", engine)]
        own = {one.engine for one in rights}
        if not rights:
            continue
        # What several installations put beside each other is told apart by the runs' namespace.
        name = account.name if scope is Scope.RUNS else f"{account.name}:{namespace}"
        instance = f"{INSTANCE}-{engine}" if own == {engine} else INSTANCE
        where = {Scope.RUNS: namespace, Scope.TARGET: target, Scope.CLUSTER: ""}[scope]
        kind = "Role" if where else "ClusterRole"
        role = _object(f"{_RBAC}/v1", kind, name, instance, where)
        role["rules"] = [
            {"apiGroups": [one.group], "resources": [one.plural], "verbs": list(one.verbs)} for one in rights
        ]
        made += [role, _binding(f"{kind}Binding", name, instance, where, (kind, name), account.name, namespace)]
    return made


def _binding(kind: str, name: str, instance: str, where: str, role: tuple[str, str], account: str, home: str) -> Object:
    made = _object(f"{_RBAC}/v1", kind, name, instance, where)
    made["roleRef"] = {"apiGroup": _RBAC, "kind": role[0], "name": role[1]}
    made["subjects"] = [{"kind": "ServiceAccount", "name": account, "namespace": home}]
    return made


def _object(api: str, kind: str, name: str, instance: str, where: str) -> Object:
    metadata: dict[str, Any] = {"name": name}
    if where:
        metadata["namespace"] = where
    return {"apiVersion": api, "kind": kind, "metadata": {**metadata, "labels": instance_labels(instance)}}


def instance_labels(instance: str) -> dict[str, str]:
    """Return the labels of what is installed; by the instance it is found again."""
    return {
        "app.kubernetes.io/instance": instance,
        "app.kubernetes.io/managed-by": "dtkpipe",
        "app.kubernetes.io/version": __version__.replace("+", "_"),
    }
