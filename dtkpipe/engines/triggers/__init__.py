"""Triggers on pushes as objects: a schedule without times, and what makes the bell that fires it. Pure.

A bell is an object with a fixed name, made by what receives the calls of a forge. A call that finds it there adds
nothing. Nothing of a call goes into it: what was pushed is read from the repository. A watcher sees it, and starts the
planner. docs/adr/0016-bells.md says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dtkpipe.engines.rendered import Object
from dtkpipe.engines.schedules import Schedule
from dtkpipe.engines.schedules import render as render_schedule
from dtkpipe.engines.triggers import argo_events, argo_server, tekton_triggers
from dtkpipe.engines.triggers.bell import Bell


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """What receives the calls of a forge on a cluster."""

    title: str
    part_of: str
    """What has to be installed for it."""
    engine: str
    """On which the runs are."""
    rings: Callable[[Schedule, Bell], tuple[Object, ...]]
    """Returns the objects that make the bell."""
    own_secret: bool = True
    """Each trigger names the Secret with what its forge signs with."""
    service: str = ""
    """Name and port of the Service that takes the calls of a trigger (`{}`); "" for none of the namespace's."""
    logs: str = ""
    """Whose log says why a trigger (`{}`) did not ring, as `kubectl logs` takes it; "" for none of the namespace's."""


RECEIVERS: Mapping[str, Receiver] = {
    "argo": Receiver(
        title="Argo's server", part_of="Argo Workflows", engine="argo", rings=argo_server.rings, own_secret=False
    ),
    "tekton": Receiver(
        title="Tekton Triggers",
        part_of="Tekton Triggers",
        engine="tekton",
        rings=tekton_triggers.rings,
        service=tekton_triggers.SERVICE,
        logs=tekton_triggers.LOGS,
    ),
    "argo-events": Receiver(
        title="Argo Events",
        part_of="Argo Events",
        engine="argo",
        rings=argo_events.rings,
        service=argo_events.SERVICE,
        logs=argo_events.LOGS,
    ),
}
"""By the name that `--engine` has for it."""


def render(schedule: Schedule, bell: Bell) -> tuple[Object, ...]:
    """Return the objects of a trigger in the order in which they are made.

    Raises UsageError for names and words that Kubernetes or Argo would not take as data.
    """
    receiver = RECEIVERS[bell.receiver]
    rings = receiver.rings(dataclasses.replace(schedule, notes={}), bell)
    return (*render_schedule(schedule, receiver.engine), *rings)
