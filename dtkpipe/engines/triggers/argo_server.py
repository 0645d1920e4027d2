"""What rings where Argo's server receives the calls (WorkflowEventBinding): the bell is a Workflow that waits. Pure."""

from __future__ import annotations

from dtkpipe.engines.rendered import Object
from dtkpipe.engines.schedules import DAY, Schedule, held, schedule_object
from dtkpipe.engines.triggers.bell import (
    EVENTS,
    Bell,
    alive,
    bell_labels,
    bell_name,
    pattern,
    refs,
    text,
)
from dtkpipe.values.forge import GITHUB


def rings(trigger: Schedule, bell: Bell) -> tuple[Object, ...]:
    """Return the template of the bell, and the binding: Argo's server makes nothing but Workflows."""
    name = f"{held(trigger)}-bell"
    template = schedule_object("argoproj.io/v1alpha1", "WorkflowTemplate", name, trigger)
    template["spec"] = {
        "entrypoint": "bell", "templates": [{"name": "bell", "suspend": {}}], "activeDeadlineSeconds": DAY,
        "ttlStrategy": {"secondsAfterCompletion": 0},
    }  # fmt: skip
    labels = {key: text(value) for key, value in bell_labels(trigger.name, bell.receiver).items()}
    made = schedule_object("argoproj.io/v1alpha1", "WorkflowEventBinding", trigger.name, trigger)
    made["spec"] = {
        "event": {"selector": _expr(bell)},
        "submit": {
            "workflowTemplateRef": {"name": name},
            # Each is an expression: a name that is text has to be quoted.
            "metadata": {"name": text(bell_name(trigger.name)), "labels": labels},
        },
    }
    return (template, made)


def _expr(bell: Bell) -> str:
    """Return the filter in the language of Argo's event bindings (expr-lang)."""
    if bell.repository.forge == GITHUB:
        name, default, gone = "payload.repository.full_name", "payload.repository.default_branch", "!payload.deleted"
        header, cut = "x-github-event", ""
    else:
        name, default = "payload.project.path_with_namespace", "payload.project.default_branch"
        gone, header = alive("payload"), "x-gitlab-event"
        cut = "payload.total_commits_count > len(payload.commits) || "
    events = " || ".join(f'metadata["{header}"] == [{text(one)}]' for one in EVENTS[bell.repository.forge])
    said = [f"({events})", f"lower({name}) == {text(bell.repository.path)}", gone, refs(bell, "payload", default)]
    if bell.paths:
        changed = f"any(concat(.added, .modified, .removed), # matches {text(pattern(bell.paths))})"
        said.append(f"({cut}len(payload.commits) == 0 || any(payload.commits, {changed}))")
    return " && ".join(said)
