"""The nodes of a cluster, asked by commands in the pods of a DaemonSet. Nothing is written but one line of each log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtkpipe.errors import NotFoundError, RunUnknownError, UnreachableError
from dtkpipe.proof.module import KernelModule
from dtkpipe.steps.smoke_test import facts as reading
from dtkpipe.steps.smoke_test.judge import CheckRun, checks, judge
from dtkpipe.steps.smoke_test.nodes import Place, name_of, not_ready, places
from dtkpipe.steps.smoke_test.report import NodeReport, report
from dtkpipe.values.health import HEALTHY, NodeVerdict
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.module import Check, ModuleSpec

if TYPE_CHECKING:
    from dtkpipe.clients.cluster import Cluster, Object

_AT_ONCE = 16
"""Nodes that are asked at the same time."""
_INSPECTION = 120.0
"""Seconds that reading a node's files and log may take: a large log on a slow machine."""
_REPLACED = 20.0
"""Seconds in which a pod that is gone is replaced."""
_GRACE = 60.0
"""Seconds in which a node that went down is noticed: node-monitor-grace-period is 40 to 50."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a node is compared with."""

    modules: Sequence[KernelModule]
    spec: ModuleSpec | None
    kernel: Kernel
    image: ImageRef | None


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A DaemonSet and the nodes it is for."""

    cluster: Cluster
    daemon_set: Object

    @property
    def namespace(self) -> str:
        """Where it is."""
        return str(self.daemon_set["metadata"]["namespace"])

    @property
    def _labels(self) -> str:
        labels = self.daemon_set["spec"]["selector"].get("matchLabels") or {}
        return ",".join(f"{name}={value}" for name, value in labels.items())

    def places(self, expected: Expected, wait: float = 0) -> list[Place]:
        """Return every node; for those whose pod may yet get ready, after up to `wait` seconds."""
        from dtkpipe.clients.cluster import NODES, PODS

        end = time.monotonic() + wait
        nodes = self.cluster.list(NODES)
        pods = {_uid(pod): pod for pod in self.cluster.list(PODS, self.namespace, labels=self._labels)}

        def now() -> list[Place]:
            return places(self.daemon_set, nodes, pods.values(), expected.kernel, expected.image)

        found = now()
        if not wait or not any(place.may_change for place in found):
            return found
        for kind, pod in self.cluster.watch(PODS, self.namespace, labels=self._labels, until=end):
            if kind == "DELETED":
                pods.pop(_uid(pod), None)
            else:
                pods[_uid(pod)] = pod
            if not any(place.may_change for place in now()):
                break
        nodes = self.cluster.list(NODES)
        return now()

    def reports(
        self, expected: Expected, say: Callable[[NodeReport], None], *, wait: float = 0, with_checks: bool = True
    ) -> list[NodeReport]:
        """Ask every node, several at a time, and `say` each report as it comes.

        A pod that does not answer is asked again: it may have been replaced, or its node went down. Raises
        NotAllowedError.
        """
        found = self._ask_all(self.places(expected, wait), expected, say, with_checks)
        for turn in (1, 2):
            silent = {node for node, told in found.items() if told is None}
            if not silent:
                break
            if turn == 1:
                self.places(expected, _REPLACED)
            else:
                self._until_down(silent)
            again = [place for place in self.places(expected) if place.node in silent]
            found |= self._ask_all(again, expected, say, with_checks)
        return [told or _not_answering(node) for node, told in found.items()]

    def _ask_all(
        self, asked: Sequence[Place], expected: Expected, say: Callable[[NodeReport], None], with_checks: bool
    ) -> dict[str, NodeReport | None]:
        def ask(place: Place) -> NodeReport | None:
            found = self._ask(place, expected, with_checks)
            if found:
                say(found)
            return found

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip((place.node for place in asked), pool.map(ask, asked), strict=True))

    def _until_down(self, silent: set[str]) -> None:
        """Wait until the nodes that do not answer count as down, but not for ever."""
        from dtkpipe.clients.cluster import NODES

        left = set(silent)
        for _, node in self.cluster.watch(NODES, until=time.monotonic() + _GRACE):
            if not_ready(node):
                left.discard(name_of(node))
            if not left:
                return

    def _ask(self, place: Place, expected: Expected, with_checks: bool) -> NodeReport | None:
        """Return a node's report; None where its pod does not answer. Raises NotAllowedError."""
        if place.verdict:
            return NodeReport(verdict=place.verdict)
        wanted = reading.paths(expected.modules, expected.spec)
        mark, argv = reading.inspection(wanted)
        try:
            done = self.cluster.exec(self.namespace, place.pod, place.container, argv, timeout=_INSPECTION)
            contents, log = reading.from_inspection(mark, wanted, done.raw)
            facts = reading.understand(contents, [module.name for module in expected.modules], log)
            finding = judge(expected.modules, expected.spec, facts)
            if finding.word == HEALTHY and with_checks and expected.spec:
                finding = checks(self._check(place, check) for check in expected.spec.checks) or finding
        except (UnreachableError, RunUnknownError, NotFoundError):
            return None
        return report(place.node, finding, expected.modules, facts)

    def _check(self, place: Place, check: Check) -> CheckRun:
        try:
            done = self.cluster.exec(self.namespace, place.pod, place.container, check.run, timeout=check.timeout)
        except RunUnknownError:
            return CheckRun(check=check, status=None)
        except NotFoundError as error:
            if "cannot be run" not in error.what:
                raise
            return CheckRun(check=check, status=127, output="\n".join(error.details))
        return CheckRun(check=check, status=done.returncode, output=f"{done.output}\n{done.errors}")


def _not_answering(node: str) -> NodeReport:
    return NodeReport(verdict=NodeVerdict(node=node, word="not-answering", reason="commands cannot be run in its pod"))


def _uid(one: Object) -> str:
    return str(one["metadata"]["uid"])
