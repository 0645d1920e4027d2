"""What rings where Tekton Triggers receives the calls (v1beta1: Trigger, EventListener): the bell is a Lease. Pure."""

from __future__ import annotations

from dtkpipe.engines.rendered import Object
from dtkpipe.engines.rights import BELL
from dtkpipe.engines.schedules import Schedule, schedule_object
from dtkpipe.engines.triggers.bell import (
    EVENTS,
    SECRET_KEY,
    Bell,
    alive,
    lease,
    pattern,
    refs,
    text,
)
from dtkpipe.values.forge import GITHUB

LISTENER = "dtkpipe"
"""The EventListener of a namespace, for all triggers in it."""
SERVICE = f"el-{LISTENER}:8080"
"""The Service that Tekton Triggers makes for it."""
LOGS = f"deploy/el-{LISTENER}"
"""Whose log says why nothing rings."""


def listener(namespace: str) -> Object:
    """Return the EventListener: Tekton Triggers makes a Deployment and a Service `el-NAME` of it."""
    return {
        "apiVersion": "triggers.tekton.dev/v1beta1", "kind": "EventListener",
        "metadata": {
            "name": LISTENER, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "dtkpipe"},
        },
        "spec": {
            "serviceAccountName": BELL,
            "labelSelector": {"matchExpressions": [{"key": "dtkpipe.io/trigger", "operator": "Exists"}]},
        },
    }  # fmt: skip


def rings(trigger: Schedule, bell: Bell) -> tuple[Object, ...]:
    """Return the Trigger."""
    made = schedule_object("triggers.tekton.dev/v1beta1", "Trigger", trigger.name, trigger)
    signed = {"secretRef": {"secretName": bell.secret, "secretKey": SECRET_KEY}}
    forge = bell.repository.forge
    made["spec"] = {
        "interceptors": [
            {
                "ref": {"name": forge, "kind": "ClusterInterceptor"},
                "params": [
                    {"name": "secretRef", "value": signed["secretRef"]},
                    {"name": "eventTypes", "value": EVENTS[forge]},
                ],
            },
            {
                "ref": {"name": "cel", "kind": "ClusterInterceptor"},
                "params": [{"name": "filter", "value": _cel(bell)}],
            },
        ],
        "bindings": [],
        "template": {"spec": {"resourcetemplates": [lease(trigger, bell.receiver)]}},
    }
    return (made,)


def _cel(bell: Bell) -> str:
    """Return the filter in the language of Tekton's interceptor `cel`."""
    if bell.repository.forge == GITHUB:
        name, default, gone = "body.repository.full_name", "body.repository.default_branch", "!body.deleted"
        cut = ""
    else:
        name, default, gone = "body.project.path_with_namespace", "body.project.default_branch", alive("body")
        cut = "double(body.total_commits_count) > double(size(body.commits)) || "
    said = [f"{name}.lowerAscii() == {text(bell.repository.path)}", gone, refs(bell, "body", default)]
    if bell.paths:
        changed = f"(c.added + c.modified + c.removed).exists(f, f.matches({text(pattern(bell.paths))}))"
        said.append(f"({cut}size(body.commits) == 0 || body.commits.exists(c, {changed}))")
    return " && ".join(said)
