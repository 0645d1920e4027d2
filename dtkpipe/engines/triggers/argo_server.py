"""What rings where Argo's server receives the calls (WorkflowEventBinding): the bell is a Workflow. Pure."""

from __future__ import annotations

from dtkpipe.engines.rendered import Object
from dtkpipe.engines.schedules import Schedule, schedule_object
from dtkpipe.engines.triggers.bell import (
    BELL_OF,
    EVENTS,
    Bell,
    alive,
    bell_name,
    pattern,
    refs,
    template_name,
    text,
    workflow_template,
)
from dtkpipe.values.forge import GITHUB


def rings(rung: Schedule, bell: Bell) -> tuple[Object, ...]:
    """Return the template of the bell, and the binding."""
    made = schedule_object("argoproj.io/v1alpha1", "WorkflowEventBinding", rung.name, rung)
    made["spec"] = {
        "event": {"selector": _expr(bell)},
        "submit": {
            "workflowTemplateRef": {"name": template_name(rung)},
            # Each is an expression: a name that is text has to be quoted.
            "metadata": {"name": text(bell_name(rung.name)), "labels": {BELL_OF: text(rung.name)}},
        },
    }
    return (workflow_template(rung), made)


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
