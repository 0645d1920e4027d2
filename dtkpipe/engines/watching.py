"""What watches for a trigger, as objects of Kubernetes. Pure.

Nodes are watched by a Deployment of each trigger, bells by one that the triggers of a namespace share. The update graph
can only be asked: of what was seen there, a ConfigMap has a digest. docs/adr/0017-watching.md says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from dtkpipe.engines.rendered import Object, carried
from dtkpipe.engines.rights import SEEN, WATCHER
from dtkpipe.engines.schedules import SCHEDULE, Schedule, held, pod, schedule_object
from dtkpipe.engines.triggers.bell import RECEIVER

_APP = {"app.kubernetes.io/name": "watcher"}


def watcher(schedule: Schedule, watch: Sequence[str]) -> Object:
    """Return the Deployment that runs `watch` for one trigger.

    Raises UsageError for words that Kubernetes would not take as data.
    """
    made = schedule_object("apps/v1", "Deployment", held(schedule), schedule)
    return {**made, "spec": _deployment(schedule, watch, {**_APP, SCHEDULE: schedule.name})}


def bell_watcher(receiver: str, namespace: str, schedule: Schedule, watch: Sequence[str]) -> Object:
    """Return the Deployment that runs `watch` for all bells of a receiver in a namespace, as `schedule` has its image.

    Raises UsageError for words that Kubernetes would not take as data.
    """
    labels = {**_APP, RECEIVER: receiver}
    metadata = {
        "name": bell_watcher_name(receiver), "namespace": namespace,
        "labels": {"app.kubernetes.io/managed-by": "dtkpipe", RECEIVER: receiver},
    }  # fmt: skip
    spec = _deployment(schedule, watch, labels)
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def bell_watcher_name(receiver: str) -> str:
    """Return the name of that."""
    return f"dtkpipe-bells-{receiver}"


def _deployment(schedule: Schedule, watch: Sequence[str], labels: Mapping[str, str]) -> Object:
    """Return what a Deployment is of: one pod, never two."""
    carried({f"word {number}": word for number, word in enumerate(watch, 1)})
    bare = dataclasses.replace(schedule, argv=watch, bare=True)
    return {
        "replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": dict(labels)},
        "template": {"metadata": {"labels": dict(labels)}, "spec": pod(bare, "watcher", WATCHER)},
    }  # fmt: skip


def seen(namespace: str) -> Object:
    """Return the ConfigMap for what all triggers of a namespace saw, empty."""
    return {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": SEEN, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "dtkpipe"}},
    }  # fmt: skip
