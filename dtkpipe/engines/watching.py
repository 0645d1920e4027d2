"""What watches for a trigger, as objects of Kubernetes. Pure.

Nodes are watched by a Deployment. The update graph can only be asked: of what was seen there, a ConfigMap has a digest.
docs/adr/0017-watching.md says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dtkpipe.engines.rendered import Object, carried
from dtkpipe.engines.rights import SEEN, WATCHER
from dtkpipe.engines.schedules import SCHEDULE, Schedule, held, pod, schedule_object


def watcher(schedule: Schedule, watch: Sequence[str]) -> Object:
    """Return the Deployment that runs `watch`: one pod, never two.

    Raises UsageError for words that Kubernetes would not take as data.
    """
    carried({f"word {number}": word for number, word in enumerate(watch, 1)})
    labels = {"app.kubernetes.io/name": "watcher", SCHEDULE: schedule.name}
    bare = dataclasses.replace(schedule, argv=watch, bare=True)
    made = schedule_object("apps/v1", "Deployment", held(schedule), schedule)
    made["spec"] = {
        "replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": dict(labels)}, "spec": pod(bare, "watcher", WATCHER)},
    }  # fmt: skip
    return made


def seen(namespace: str) -> Object:
    """Return the ConfigMap for what all triggers of a namespace saw, empty."""
    return {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": SEEN, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "dtkpipe"}},
    }  # fmt: skip
