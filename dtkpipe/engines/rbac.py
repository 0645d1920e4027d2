"""The table of rights (dtkpipe/engines/rights.py) as objects of Kubernetes' RBAC, and the namespaces they hold in.

OpenShift's privileged SCC is taken by a RoleBinding to the ClusterRole that every OpenShift has for it; on another
Kubernetes that role does not exist, and the binding gives nothing.
"""

from __future__ import annotations

import itertools
from typing import Any

from dtkpipe import __version__
from dtkpipe.engines.rendered import Object
from dtkpipe.engines.rights import ACCOUNTS, BUILD, CALLERS, EXECUTOR, TOKENLESS, Account, Scope

NAMESPACE = "dtkpipe"
TARGET_NAMESPACE = "dtkpipe-drivers"
"""Where runs and drivers are when nobody says otherwise."""
INSTANCE = "dtkpipe"
"""What both engines share (label app.kubernetes.io/instance); what is an engine's own has `dtkpipe-<engine>`."""
_RBAC = "rbac.authorization.k8s.io"


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
    for account in (one for one in ACCOUNTS if one.engine in ("", engine)):
        home = namespace if account.tasks else target
        one = _object("v1", "ServiceAccount", account.name, _instance(account.engine), home)
        made.append({**one, "automountServiceAccountToken": False} if account.name in TOKENLESS else one)
        if account.name in (EXECUTOR, *CALLERS.values()):
            made.append(_token(account.name, home))
        made += _bound(account, engine, namespace, target)
        if account.privileged:
            name, role = f"{account.name}-privileged", ("ClusterRole", "system:openshift:scc:privileged")
            made.append(_binding("RoleBinding", name, INSTANCE, home, role, account.name, home))
    return made


def _token(account: str, namespace: str) -> Object:
    """Return the Secret in which Argo looks for an account's token (argo-workflows, util/secrets: its name)."""
    made = _object("v1", "Secret", f"{account}.service-account-token", _instance("argo"), namespace)
    made["metadata"]["annotations"] = {"kubernetes.io/service-account.name": account}
    return {**made, "type": "kubernetes.io/service-account-token"}


def _instance(engine: str) -> str:
    return f"{INSTANCE}-{engine}" if engine else INSTANCE


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
    # What is one engine's own is a role of its own: in a namespace with both, neither takes away the other's.
    for scope, own in itertools.product(Scope, ("", engine)):
        rights = [one for one in account.rights if one.scope is scope and one.engine == own]
        if not rights:
            continue
        # What several installations put beside each other is told apart by the runs' namespace.
        called = f"{account.name}-{own}" if own and not account.engine else account.name
        name = called if scope is Scope.RUNS else f"{called}:{namespace}"
        instance = _instance(own)
        where = {Scope.RUNS: namespace, Scope.TARGET: target, Scope.CLUSTER: ""}[scope]
        kind = "Role" if where else "ClusterRole"
        role = _object(f"{_RBAC}/v1", kind, name, instance, where)
        role["rules"] = [
            {
                "apiGroups": [one.group],
                "resources": [one.plural],
                "verbs": list(one.verbs),
                **({"resourceNames": [one.name]} if one.name else {}),
            }
            for one in rights
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
