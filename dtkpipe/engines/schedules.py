"""Schedules as objects of an engine: what starts the planner, and what it takes along. Pure.

Argo has CronWorkflow for it (argo-workflows, cron_workflow_types.go), beside Tekton it is Kubernetes' own CronJob
(batch/v1). Both start `dtkpipe matrix submit`, never two at a time; one that was missed is caught up once. A trigger
(triggers.py) is a schedule that fires by its bell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dtkpipe import __version__
from dtkpipe.engines.container import Spelling, container, node_selector, resources, volumes
from dtkpipe.engines.rendered import Object, carried
from dtkpipe.engines.rights import EXECUTOR, PLANNER
from dtkpipe.model.images import RUNNER
from dtkpipe.model.pipeline import Program, Resources, Rights, Secret, Task
from dtkpipe.tasks import GIT, REGISTRY_AUTH, SECRET_ENV, SECRET_PARAMS
from dtkpipe.values.cron import Cron

SCHEDULE = "dtkpipe.io/schedule"
"""Label of all that belongs to a schedule: its name."""
TRIGGER = "dtkpipe.io/trigger"
"""Label of all that belongs to a schedule that is a trigger: on what it rings."""
RUNG_BY = "dtkpipe.io/rung-by"
"""Label of a planner and its pod: uid of the bell that it answers, or BY_HAND."""
RUNG_BY_ENV = "RUNG_BY"
"""The same, for the program in it."""
BY_HAND = "hand"
"""Somebody tests the trigger."""
KERNELS = "dtkpipe.io/kernels"
"""Annotation of the pod of a planner: the kernels that it is started for, with commas; without it for all."""
KERNELS_ENV = "KERNELS"
"""The same, for the program in it."""
FOLDER = "/etc/dtkpipe/schedule"
"""Where the planner's pod has its files."""
NAME_LIMIT = 52
"""Characters of a name: engines add the time to it, and Kubernetes takes 63."""
CATCH_UP = 3600
"""Seconds in which a missed start is caught up, once."""
DAY = 86400
"""Seconds that a planner may take: one that hangs keeps the next from starting."""
_KEPT = {"successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 3}
_PLAIN = Spelling(
    param="{}", result="{}", status="{}", run_name="", input="{}", result_path="{}", run_name_inside="",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What shall be started when. `files` are below FOLDER: path -> text."""

    name: str
    cron: Cron
    argv: Sequence[str]
    files: Mapping[str, str]
    image: str
    trigger: str = ""
    """On what it rings, when it is a trigger."""
    suspended: bool = False
    """It has no times: a watcher fires it."""
    bare: bool = False
    """Its program needs no files and no credentials."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Annotations of what fires."""
    told: Mapping[str, str] = field(default_factory=dict)
    """What its program is told of its pod: variable -> field."""


def render(schedule: Schedule, engine: str) -> tuple[Object, ...]:
    """Return the objects in the order in which they are made; the last one fires.

    Raises UsageError for words that Kubernetes or Argo would not take as data.
    """
    carried({f"word {number}": word for number, word in enumerate(schedule.argv, 1)})
    data = {_key(path): text for path, text in schedule.files.items()}
    files = {**schedule_object("v1", "ConfigMap", held(schedule), schedule), "data": data}
    # What a watcher fires is a Job everywhere: it starts in half the time of a Workflow.
    if engine == "argo" and not schedule.suspended:
        return (files, _template(schedule), _cron_workflow(schedule))
    return (files, _cron_job(schedule))


def _template(schedule: Schedule) -> Object:
    """Return the WorkflowTemplate: where Argo is told to be strict, it runs nothing but those."""
    made = schedule_object("argoproj.io/v1alpha1", "WorkflowTemplate", held(schedule), schedule)
    task = _task(schedule)
    planner = {
        "name": task.name, "container": {**_container(task, schedule), "resources": resources(task, task.program)},
        "volumes": _volumes(task, schedule), "nodeSelector": node_selector(task, _PLAIN),
        "activeDeadlineSeconds": DAY,
    }  # fmt: skip
    made["spec"] = {
        "entrypoint": task.name, "serviceAccountName": PLANNER, "executor": {"serviceAccountName": EXECUTOR},
        "podMetadata": {"labels": pod_labels(schedule)}, "templates": [planner],
    }  # fmt: skip
    return made


def _cron_workflow(schedule: Schedule) -> Object:
    made = schedule_object("argoproj.io/v1alpha1", "CronWorkflow", schedule.name, schedule)
    made["spec"] = {
        "schedules": [schedule.cron.expression], "timezone": schedule.cron.zone, "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": CATCH_UP, **_KEPT,
        "workflowMetadata": {"labels": {SCHEDULE: schedule.name}},
        "workflowSpec": {"workflowTemplateRef": {"name": held(schedule)}},
    }  # fmt: skip
    return made


def _cron_job(schedule: Schedule) -> Object:
    made = schedule_object("batch/v1", "CronJob", schedule.name, schedule)
    made["spec"] = {
        **({"suspend": True} if schedule.suspended else {}),
        "schedule": schedule.cron.expression, "timeZone": schedule.cron.zone, "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": CATCH_UP, **_KEPT,
        "jobTemplate": {
            "metadata": {"labels": {SCHEDULE: schedule.name}},
            # What fails is red cells: the next start is early enough to try what can be tried again.
            "spec": {
                "backoffLimit": 0, "activeDeadlineSeconds": DAY,
                "template": {
                    "metadata": {"labels": pod_labels(schedule)},
                    "spec": {**pod(schedule, "planner", PLANNER), "restartPolicy": "Never"},
                },
            },
        },
    }  # fmt: skip
    return made


def pod(schedule: Schedule, name: str, account: str) -> Object:
    """Return the spec of a pod that runs the schedule's argv in one container."""
    task = _task(schedule)
    program = {**_container(task, schedule), "name": name, "resources": resources(task, task.program)}
    return {
        "serviceAccountName": account, "containers": [program], "volumes": _volumes(task, schedule),
        "nodeSelector": node_selector(task, _PLAIN),
    }  # fmt: skip


def _task(schedule: Schedule) -> Task:
    """Return the planner as a task: its container is that of every other."""
    secrets = () if schedule.bare else (REGISTRY_AUTH, GIT)
    memory = "128Mi" if schedule.bare else "256Mi"
    program = Program(image=RUNNER, argv=tuple(schedule.argv), env=tuple(SECRET_ENV[one] for one in secrets))
    return Task(
        name="planner", description="Submits a matrix", program=program, secrets=tuple(map(_by_name, secrets)),
        rights=Rights(service_account=PLANNER), retries=2,
        resources=Resources(cpu="100m", memory=memory, memory_limit="1Gi", scratch="1Gi"),
    )  # fmt: skip


def _by_name(secret: Secret) -> Secret:
    """Return a secret with the name of the object in the place of the parameter that would say it."""
    return dataclasses.replace(secret, param=SECRET_PARAMS[secret.param].default or secret.param)


def _container(task: Task, schedule: Schedule) -> dict[str, Any]:
    made = container(task, task.program, _PLAIN, {RUNNER: schedule.image})
    if schedule.bare:
        return made
    mounted = {"name": "schedule", "mountPath": FOLDER, "readOnly": True}
    told = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}} for name, field in schedule.told.items()]
    return {**made, "env": [*made["env"], *told], "volumeMounts": [*made["volumeMounts"], mounted]}


def _volumes(task: Task, schedule: Schedule) -> list[dict[str, Any]]:
    if schedule.bare:
        return volumes(task, _PLAIN)
    items = [{"key": _key(path), "path": path} for path in schedule.files]
    return [*volumes(task, _PLAIN), {"name": "schedule", "configMap": {"name": held(schedule), "items": items}}]


def held(schedule: Schedule) -> str:
    """Return the name of what a schedule holds: its files, and on Argo its template."""
    return f"dtkpipe-schedule-{schedule.name}"


def _key(path: str) -> str:
    """Return the key of a file in a ConfigMap, which knows no folders."""
    return path.replace("/", ".")


def pod_labels(schedule: Schedule) -> dict[str, str]:
    """Return the labels of a planner's pod."""
    return {"app.kubernetes.io/name": "planner", SCHEDULE: schedule.name}


def schedule_object(api: str, kind: str, name: str, schedule: Schedule) -> Object:
    """Return an object that belongs to a schedule, without what it is for."""
    own = {"app.kubernetes.io/managed-by": "dtkpipe", "app.kubernetes.io/version": __version__.replace("+", "_")}
    labels = {**own, SCHEDULE: schedule.name, **({TRIGGER: schedule.trigger} if schedule.trigger else {})}
    notes = {"annotations": dict(schedule.notes)} if schedule.notes and name == schedule.name else {}
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": labels, **notes}}
