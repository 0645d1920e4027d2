"""Kernels that are new on the nodes of a cluster: what the watcher of a trigger does.

What was seen is in this process alone. One that starts takes every kernel for new: of what is built already the planner
makes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from dtkpipe.app import bell
from dtkpipe.app.clusters import Place
from dtkpipe.clients.cluster import NODES, Cluster, Object
from dtkpipe.errors import InvalidError
from dtkpipe.values.kernel import Kernel

DEBOUNCE = 60
"""Seconds in which kernels that are new are planned together, where nobody says otherwise."""
Say = Callable[[str], None]


def watch(place: Place, name: str, debounce: float, say: Say) -> None:
    """Start the planner of a trigger for the kernels that no node ran before, for ever.

    Raises NotFoundError for a trigger that is not there, UnreachableError for a cluster that does not answer for long:
    whoever starts this again loses nothing.
    """
    place.cluster.be_patient()
    for kernels in batches(place.cluster, debounce, say):
        say(f"new on nodes: {', '.join(map(str, kernels))}")
        say(f"started {bell.start(place, bell.fires(place, name), kernels=kernels)}")


def batches(cluster: Cluster, debounce: float, say: Say) -> Iterator[list[Kernel]]:
    """Give the kernels that no node ran before: together those that come within `debounce` seconds of the first one.

    Time counts from the first, not from the last: a node that flaps cannot put it off.
    """
    seen: set[str] = set()
    while first := next(_new(cluster.watch(NODES), seen, say), None):
        rest = cluster.watch(NODES, until=time.monotonic() + debounce)
        yield sorted([first, *_new(rest, seen, say)], key=lambda one: one.order)


def there(cluster: Cluster, say: Say) -> Sequence[Kernel]:
    """Return the kernels that nodes run, oldest first."""
    nodes = (("ADDED", one) for one in cluster.list(NODES))
    return sorted(_new(nodes, set(), say), key=lambda one: one.order)


def _new(events: Iterable[tuple[str, Object]], seen: set[str], say: Say) -> Iterator[Kernel]:
    """Give each kernel that is not among those `seen`, once. What is no kernel is said, once."""
    for kind, node in events:
        info = (node.get("status") or {}).get("nodeInfo") or {}
        text = str(info.get("kernelVersion") or "")
        if kind == "DELETED" or not text or text in seen:
            continue
        seen.add(text)
        try:
            yield Kernel.parse(text)
        except InvalidError:
            say(f"left out: node {node['metadata']['name']} runs {text[:80]!r}, which is no kernel release")
