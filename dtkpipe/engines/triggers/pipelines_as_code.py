"""A trigger as a file for a repository's `.tekton/`: a PipelineRun that Pipelines-as-Code starts on a push. Pure.

Annotations: openshift-pipelines/pipelines-as-code, pkg/apis/pipelinesascode/keys. Its CEL is that of Tekton's
interceptors without their library, and knows the call as `body`, as the forge's client in Go has it: empty lists and
texts are not there. It refuses what is not signed and deleted branches itself, and looks at repositories alone that a
Repository in the namespace names.
"""

from __future__ import annotations

import json

from dtkpipe.engines.rendered import Object, carried
from dtkpipe.engines.rights import PLANNER
from dtkpipe.engines.schedules import DAY, SCHEDULE, Schedule, pod
from dtkpipe.engines.tekton.build import an_object, step
from dtkpipe.engines.triggers.bell import Bell, pattern, refs
from dtkpipe.errors import UnsupportedError, UsageError
from dtkpipe.values.forge import GITHUB

NAMESPACE = "$(context.pipelineRun.namespace)"
"""Where the planner runs, as the planner is told: it is not known before."""
_ANNOTATION = "pipelinesascode.tekton.dev"
_KEPT = "3"
"""Runs of the planner that are kept, as those of schedules are."""
_FILE = "dtkpipe.io/file-{}"
_MOST = 200_000
"""Bytes of files that annotations of a pod take, with some left for those of others: their limit is 256 KiB."""


def pipeline_run(schedule: Schedule, bell: Bell) -> Object:
    """Return the PipelineRun that runs the schedule's argv; its files go along as annotations of the planner's pod.

    Raises UsageError for words and files that would not be taken as data, UnsupportedError for too large files.
    """
    _checked(schedule)
    whole = pod(schedule, "planner", PLANNER)
    (program,) = whole["containers"]
    container = {key: program[key] for key in program if key not in ("name", "resources")}
    held = {_FILE.format(number): text for number, text in enumerate(schedule.files.values())}
    volume = {"name": "schedule", "downwardAPI": {"items": _items(schedule)}}
    planner = {
        "metadata": {"labels": {"app.kubernetes.io/name": "planner"}, **({"annotations": held} if held else {})},
        "steps": [step("planner", container, program["resources"])],
        "volumes": [volume if one["name"] == "schedule" else one for one in whole["volumes"]],
    }  # fmt: skip
    metadata = {
        "generateName": f"{schedule.name}-",
        "labels": {SCHEDULE: schedule.name},  # and no other of ours: it is no run of a cell
        "annotations": {f"{_ANNOTATION}/on-cel-expression": _cel(bell), f"{_ANNOTATION}/max-keep-runs": _KEPT},
    }
    return an_object("PipelineRun", metadata, {
        "timeouts": {"pipeline": f"{DAY // 3600}h0m0s"},
        "taskRunTemplate": {"serviceAccountName": PLANNER, "podTemplate": {"nodeSelector": whole["nodeSelector"]}},
        "pipelineSpec": {"tasks": [{"name": "planner", "taskSpec": planner}]},
    })  # fmt: skip


def _checked(schedule: Schedule) -> None:
    words = [word for word in schedule.argv if word != NAMESPACE]
    carried({f"word {number}": word for number, word in enumerate(words, 1)})
    for path, text in schedule.files.items():
        if "{{" in text:
            raise UsageError(f"{path} holds `{{{{`", "Pipelines-as-Code would take it for a variable of its own")
    if (size := sum(len(text.encode()) for text in schedule.files.values())) > _MOST:
        raise UnsupportedError(
            f"the files of the matrix are too large for a PipelineRun: {size} bytes, the most is {_MOST}",
            hint="name module specs in git: --modules 'github.com/org/catalog//modules/*'",
        )


def _items(schedule: Schedule) -> list[Object]:
    field = f"metadata.annotations['{_FILE}']"
    return [
        {"path": path, "fieldRef": {"fieldPath": field.format(number)}} for number, path in enumerate(schedule.files)
    ]


def _cel(bell: Bell) -> str:
    if bell.repository.forge == GITHUB:
        default, cut = "body.repository.default_branch", ""
    else:
        default, cut = (
            "body.project.default_branch",
            "double(body.total_commits_count) > double(size(body.commits)) || ",
        )
    said = ['event == "push"', refs(bell, "body", default)]
    if bell.paths:
        files = f"k in c && c[k].exists(f, f.matches({json.dumps(pattern(bell.paths), ensure_ascii=False)}))"
        each = f'body.commits.exists(c, ["added", "modified", "removed"].exists(k, {files}))'
        said.append(f"(!has(body.commits) || size(body.commits) == 0 || {cut}{each})")
    return " && ".join(said)
