"""Pods that doctor tries: rehearsed ones, which the API server judges and nobody makes, and a short-lived real one."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from dtkpipe.app.clusters import Place
from dtkpipe.app.doctor import PUSH_TO, Finding
from dtkpipe.clients.cluster import NAMESPACES, PODS, SERVICE_ACCOUNTS, Object
from dtkpipe.engines.container import SECRETS, security_context
from dtkpipe.engines.pods import trouble
from dtkpipe.errors import DtkpipeError, InvalidError, NotAllowedError, NotFoundError
from dtkpipe.model.pipeline import WORKSPACE, Task
from dtkpipe.tasks import REGISTRY_AUTH, SECRET_PARAMS, publish
from dtkpipe.values.image import ImageRef

_PATIENCE = 120
"""Seconds for a pod that tries the registry: its image may have to be pulled first."""


def probe(task: Task, image: str) -> Object:
    """Return a pod with the account and the rights of a task's."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"dtkpipe-doctor-{secrets.token_hex(4)}", "labels": {"app.kubernetes.io/managed-by": "dtkpipe"},
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _PATIENCE,
            "serviceAccountName": task.rights.service_account,
            "automountServiceAccountToken": False,
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "containers": [
                {
                    "name": "main", "image": image, "command": ["dtkpipe"], "args": ["version"],
                    "securityContext": security_context(task, task.program), "workingDir": WORKSPACE,
                    "resources": {
                        "requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"},
                    },
                    "volumeMounts": [
                        {"name": "workspace", "mountPath": WORKSPACE}, {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                    ],
                }
            ],
            "volumes": [{"name": "workspace", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        },
    }  # fmt: skip


def denied(place: Place, pod: Object, namespace: str) -> DtkpipeError | None:
    """Return why the API server would refuse the pod; None if it would take it. Nothing is made.

    Raises NotAllowedError where we may not even ask, NotFoundError where its namespace or its account is not there.
    """
    if not place.cluster.allowed("create", PODS, namespace):
        raise NotAllowedError(f"you are not allowed to create pods in namespace {namespace}")
    if place.cluster.find(NAMESPACES, namespace) is None:
        raise NotFoundError(f"there is no namespace {namespace}")
    account = pod["spec"]["serviceAccountName"]
    if place.cluster.find(SERVICE_ACCOUNTS, account, namespace) is None:
        raise NotFoundError(f"not tried: there is no account {account} in namespace {namespace}")
    try:
        place.cluster.create(PODS, pod, namespace, dry_run=True)
    except (NotAllowedError, InvalidError) as error:
        return error
    return None


def try_registry(place: Place, repo: ImageRef, image: str, insecure: tuple[str, ...]) -> Finding:
    """Run doctor's own check for a repository in a pod, with the Secret that tasks push with. The pod is deleted.

    Raises NotAllowedError, and DtkpipeError for a pod that tells nothing.
    """
    pod = probe(publish(), image)
    main, spec = pod["spec"]["containers"][0], pod["spec"]
    main["args"] = ["doctor", "--for", PUSH_TO, "-o", "json"]
    folder = f"{SECRETS}/{REGISTRY_AUTH.name}"
    environ = {
        "HOME": WORKSPACE, "DTKPIPE_CONFIG": "", "DTKPIPE_PUSH_TO": str(repo),
        "DTKPIPE_INSECURE_REGISTRIES": ",".join(insecure), "REGISTRY_AUTH_FILE": f"{folder}/config.json",
    }  # fmt: skip
    main["env"] = [{"name": name, "value": value} for name, value in environ.items()]
    main["volumeMounts"].append({"name": "auth", "mountPath": folder, "readOnly": True})
    secret = SECRET_PARAMS[REGISTRY_AUTH.param].default
    spec["volumes"].append({"name": "auth", "secret": {"secretName": secret, "optional": True}})
    name = place.cluster.create(PODS, pod, place.namespace)["metadata"]["name"]
    try:
        return _outcome(place, name)
    finally:
        place.cluster.delete(PODS, name, place.namespace)


def _outcome(place: Place, name: str) -> Finding:
    last: dict[str, Any] = {}
    for _, last in place.cluster.watch(PODS, place.namespace, name=name, until=time.monotonic() + _PATIENCE):
        if (last.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            break
        if (wrong := trouble(last)) and "cannot be pulled" in wrong.cause:
            return _said(False, f"a pod that tries it does not start: {wrong.cause}", wrong.hint)
    else:
        wrong = trouble(last)
        return _said(
            False, f"a pod that tries it did not end within {_PATIENCE} s: {wrong.cause or 'no reason is known'}",
            wrong.hint or f"kubectl describe nodes; kubectl get events -n {place.namespace}",
        )  # fmt: skip
    return read(list(place.cluster.logs(place.namespace, name, "main")))


def read(log: Sequence[str]) -> Finding:
    """Return what doctor said as JSON in a pod. Raises DtkpipeError for a log without it.

    The log has stderr, too, whose lines come in between: those of JSON are told by how they begin.
    """
    said = [line for line in log if line.lstrip().startswith(tuple('[]{}"'))]
    try:
        (found,) = json.loads("\n".join(said))
        return _said(bool(found["ok"]), f"from a pod: {found['found']}", str(found["fix"]))
    except (ValueError, KeyError, TypeError) as error:
        last = "\n".join(log)[-300:]
        raise DtkpipeError("the pod that tries the registry said nothing that can be read", last) from error


def _said(ok: bool, found: str, fix: str) -> Finding:
    return Finding(name="registry", ok=ok, found=found, jobs=(), fix=fix)
