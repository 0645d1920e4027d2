"""Part of deploy: what passes by itself while a driver is rolled out, and what does not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from dtkpipe.errors import NotAllowedError, NotFoundError, UnreachableError
from dtkpipe.steps.deploy.standing import DOWN, WAITING, Standing

if TYPE_CHECKING:
    from dtkpipe.clients.cluster import Cluster

T = TypeVar("T")
_PATIENCE, _SETTLING = 120.0, 15.0
"""Seconds that the API server may be away, and may refuse what it allowed before."""
RETURNING = 90.0
"""Seconds that a node has to answer again. A kubelet needs up to a minute after an API server was away."""
_PASSING = re.compile(
    r"Error creating: (?:\w+ \"https?://|.*cannot create resource \"pods\"|etcdserver: |the server is currently unable)"
)
"""An API server that is away, or starts: the DaemonSet controller is refused what is its own right, for a moment."""


def patiently(ask: Callable[[], T]) -> T:
    """Ask again while the API server is away, as watches do by themselves: a rollout outlives its restart."""
    begun = time.monotonic()
    while True:
        try:
            return ask()
        except (UnreachableError, NotAllowedError) as error:
            # One that starts refuses for a moment what it allows: its own caches are empty.
            most = _PATIENCE if isinstance(error, UnreachableError) else _SETTLING
            if time.monotonic() - begun > most:
                raise
            time.sleep(1)


class Absences:
    """Nodes that stop answering while somebody looks: they are waited for, a moment.

    After an API server was away, the cluster takes nodes for down until they have answered the new one.
    """

    def __init__(self) -> None:
        self._answered: set[str] = set()
        self._since: dict[str, float] = {}

    def judge(self, found: Sequence[Standing]) -> list[Standing]:
        """Return how nodes stand, those that are down since a moment as waited for."""
        now = time.monotonic()
        for one in found:
            if one.state != DOWN:
                self._answered.add(one.node)
                self._since.pop(one.node, None)
        return [self._waited_for(one, now) if one.state == DOWN else one for one in found]

    def _waited_for(self, one: Standing, now: float) -> Standing:
        if one.node not in self._answered or now - self._since.setdefault(one.node, now) > RETURNING:
            return one
        return Standing(one.node, WAITING, f"does not answer: {one.why}")


class Troubles:
    """Warnings of the DaemonSet controller: why it cannot make pods. Those of earlier rollouts do not count."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster, self._namespace, self._name = cluster, namespace, name
        self._old = set(patiently(self._now))

    def final(self) -> str:
        """Return the first new one that does not pass by itself, or an empty string."""
        return next((message for message in self._new() if not passes(message)), "")

    def last(self) -> str:
        """Return the last new one, or an empty string."""
        return next(reversed(self._new()), "")

    def _new(self) -> list[str]:
        return [message for key, message in self._now().items() if key not in self._old]

    def _now(self) -> Mapping[tuple[str, int], str]:
        from dtkpipe.clients.cluster import EVENTS

        fields = f"involvedObject.kind=DaemonSet,involvedObject.name={self._name},reason=FailedCreate"
        try:
            found = self._cluster.list(EVENTS, self._namespace, fields=fields)
        except NotFoundError:
            return {}
        return {(one["metadata"]["uid"], int(one.get("count") or 1)): str(one.get("message", "")) for one in found}


def passes(message: str) -> bool:
    """Say whether what the DaemonSet controller could not do is done when it tries again."""
    return bool(_PASSING.match(message))
