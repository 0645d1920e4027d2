"""Triggers as objects of an engine: a schedule without times, and a bell that fires it. Pure.

A bell is an object with a fixed name, made by what receives the calls of a forge: Tekton Triggers (v1beta1: Trigger,
EventListener) makes a Job, Argo's server (WorkflowEventBinding) a Workflow. A call that finds it there adds nothing.
Nothing of a call goes into it: what was pushed is read from the repository. docs/adr/0016-bells.md says why.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dtkpipe.engines.rendered import Object, carried
from dtkpipe.engines.rights import BELL
from dtkpipe.engines.schedules import (
    DAY,
    Schedule,
    held,
    job,
    schedule_object,
    workflow,
)
from dtkpipe.engines.schedules import render as render_schedule
from dtkpipe.values.forge import GITHUB, NO_COMMIT, Repository

BELL_OF = "dtkpipe.io/bell"
"""Label of a bell: the name of its trigger."""
LISTENER = "dtkpipe"
"""The EventListener of a namespace, for all triggers in it."""
SECRET_KEY = "token"  # noqa: S105 - a name
"""Where the Secret of a trigger has what the forge signs with."""
_EVENTS = {GITHUB: ["push"], "gitlab": ["Push Hook", "Tag Push Hook"]}
_NEVER = 0
"""Seconds that a bell which has rung is kept."""


@dataclass(frozen=True, kw_only=True)
class Bell:
    """What rings: pushes to some branches or tags of a repository, perhaps only those that change some files."""

    repository: Repository
    refs: Sequence[str] = ()
    """Branches and tags; "" is the repository's default branch."""
    paths: Sequence[str] = ()
    """Patterns of file names, `*` for anything; none: whatever changes."""
    secret: str = ""
    """Name of the Secret; on Argo its server has one of its own."""


def bell_name(trigger: str) -> str:
    """Return the name of the object that a trigger's bell is."""
    return f"{trigger}-bell"


def render(schedule: Schedule, bell: Bell, engine: str, ring: Sequence[str]) -> tuple[Object, ...]:
    """Return the objects of a trigger in the order in which they are made. `ring` is what the bell runs.

    Raises UsageError for words that Kubernetes or Argo would not take as data.
    """
    carried({f"word {number}": word for number, word in enumerate(ring, 1)})
    rung = dataclasses.replace(schedule, argv=ring, bare=True)
    made = render_schedule(schedule, engine)
    if engine == "argo":
        return (*made, _bell_template(rung), _binding(schedule, bell))
    return (*made, _trigger(rung, bell))


# Tekton


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


def _trigger(rung: Schedule, bell: Bell) -> Object:
    made = schedule_object("triggers.tekton.dev/v1beta1", "Trigger", rung.name, dataclasses.replace(rung, notes={}))
    signed = {"secretRef": {"secretName": bell.secret, "secretKey": SECRET_KEY}}
    forge = bell.repository.forge
    made["spec"] = {
        "interceptors": [
            {
                "ref": {"name": forge, "kind": "ClusterInterceptor"},
                "params": [
                    {"name": "secretRef", "value": signed["secretRef"]},
                    {"name": "eventTypes", "value": _EVENTS[forge]},
                ],
            },
            {
                "ref": {"name": "cel", "kind": "ClusterInterceptor"},
                "params": [{"name": "filter", "value": _cel(bell)}],
            },
        ],
        "bindings": [],
        "template": {"spec": {"resourcetemplates": [_bell_job(rung)]}},
    }
    return made


def _bell_job(rung: Schedule) -> Object:
    labels = {"app.kubernetes.io/name": "bell", BELL_OF: rung.name}
    return {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": bell_name(rung.name), "labels": {"app.kubernetes.io/managed-by": "dtkpipe", BELL_OF: rung.name},
        },
        "spec": job(rung, labels, backoffLimit=3, ttlSecondsAfterFinished=_NEVER),
    }  # fmt: skip


def _cel(bell: Bell) -> str:
    """Return the filter in the language of Tekton's interceptor `cel`."""
    if bell.repository.forge == GITHUB:
        name, default, gone = "body.repository.full_name", "body.repository.default_branch", "!body.deleted"
        cut = ""
    else:
        name, default, gone = "body.project.path_with_namespace", "body.project.default_branch", _ALIVE.format("body")
        cut = "double(body.total_commits_count) > double(size(body.commits)) || "
    said = [f"{name}.lowerAscii() == {_text(bell.repository.path)}", gone, refs(bell, "body", default)]
    if bell.paths:
        changed = f"(c.added + c.modified + c.removed).exists(f, f.matches({_text(pattern(bell.paths))}))"
        said.append(f"({cut}size(body.commits) == 0 || body.commits.exists(c, {changed}))")
    return " && ".join(said)


# Argo


def _bell_template(rung: Schedule) -> Object:
    made = schedule_object("argoproj.io/v1alpha1", "WorkflowTemplate", _bell_held(rung), rung)
    labels = {"app.kubernetes.io/name": "bell", BELL_OF: rung.name}
    made["spec"] = {
        **workflow(rung, labels), "activeDeadlineSeconds": DAY, "ttlStrategy": {"secondsAfterCompletion": _NEVER},
    }  # fmt: skip
    return made


def _binding(schedule: Schedule, bell: Bell) -> Object:
    made = schedule_object("argoproj.io/v1alpha1", "WorkflowEventBinding", schedule.name, schedule)
    made["metadata"].pop("annotations", None)
    made["spec"] = {
        "event": {"selector": _expr(bell)},
        "submit": {
            "workflowTemplateRef": {"name": _bell_held(schedule)},
            # Each is an expression: a name that is text has to be quoted.
            "metadata": {"name": _text(bell_name(schedule.name)), "labels": {BELL_OF: _text(schedule.name)}},
        },
    }
    return made


def _bell_held(schedule: Schedule) -> str:
    return f"{held(schedule)}-bell"


def _expr(bell: Bell) -> str:
    """Return the filter in the language of Argo's event bindings (expr-lang)."""
    if bell.repository.forge == GITHUB:
        name, default, gone = "payload.repository.full_name", "payload.repository.default_branch", "!payload.deleted"
        header, cut = "x-github-event", ""
    else:
        name, default = "payload.project.path_with_namespace", "payload.project.default_branch"
        gone, header = _ALIVE.format("payload"), "x-gitlab-event"
        cut = "payload.total_commits_count > len(payload.commits) || "
    events = " || ".join(f'metadata["{header}"] == [{_text(one)}]' for one in _EVENTS[bell.repository.forge])
    said = [
        f"({events})", f"lower({name}) == {_text(bell.repository.path)}", gone, refs(bell, "payload", default),
    ]  # fmt: skip
    if bell.paths:
        changed = f"any(concat(.added, .modified, .removed), # matches {_text(pattern(bell.paths))})"
        said.append(f"({cut}len(payload.commits) == 0 || any(payload.commits, {changed}))")
    return " && ".join(said)


# All: their languages agree in this


_ALIVE = f'{{}}.after != "{NO_COMMIT}"'


def refs(bell: Bell, body: str, default: str) -> str:
    """Return what says whether a push is to one of the branches or tags, in CEL or Argo's expressions."""
    named = [f"refs/{kind}/{ref}" for ref in bell.refs if ref for kind in ("heads", "tags")]
    said = [f"{body}.ref in {json.dumps(named, ensure_ascii=False)}"] if named else []
    if "" in bell.refs or not bell.refs:
        said.append(f'{body}.ref == "refs/heads/" + {default}')
    return f"({' || '.join(said)})"


def pattern(paths: Sequence[str]) -> str:
    """Return the patterns as one regular expression (RE2)."""
    return f"^({'|'.join('.*'.join(map(re.escape, path.split('*'))) for path in paths)})$"


def _text(value: str) -> str:
    """Return a text as both languages write it: as JSON does."""
    return json.dumps(value, ensure_ascii=False)
