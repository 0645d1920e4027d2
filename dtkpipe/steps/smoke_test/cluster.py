"""The nodes of a cluster, asked by commands in the pods of a driver. All that is written is one line of each log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtkpipe.errors import NotFoundError, RunUnknownError, UnreachableError
from dtkpipe.steps.deploy import daemonset as ds
from dtkpipe.steps.deploy.rollout import Workload
from dtkpipe.steps.deploy.trouble import patiently
from dtkpipe.steps.smoke_test import facts as reading
from dtkpipe.steps.smoke_test.judge import Built, CheckRun, checks, judge
from dtkpipe.steps.smoke_test.nodes import Place, places
from dtkpipe.steps.smoke_test.report import NodeReport, report
from dtkpipe.values.health import HEALTHY, NodeVerdict
from dtkpipe.values.module import Check, ModuleSpec
from dtkpipe.values.node import Node

if TYPE_CHECKING:
    from dtkpipe.clients.cluster import Cluster

_AT_ONCE = 16
"""Nodes that are asked at the same time."""
_INSPECTION = 120.0
"""Seconds that reading a node's files and log may take: a large log on a slow machine."""
_LARGEST_LOG = 32 * 1024 * 1024
"""Bytes: the kernel's own limit for its buffer (CONFIG_LOG_BUF_SHIFT is at most 25)."""
_REPLACED = 20.0
"""Seconds in which a pod that is gone is replaced."""
_GRACE = 60.0
"""Seconds in which a node that went down is noticed: node-monitor-grace-period is 40 to 50."""


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """A driver on a cluster, and the modules that its nodes shall have loaded. Without `checks` none is run."""

    cluster: Cluster
    namespace: str
    workload: Workload
    modules: Sequence[Built]
    spec: ModuleSpec | None
    checks: Sequence[Check] = ()

    def places(self, wait: float = 0) -> list[Place]:
        """Look at every node; where a pod may yet get ready, for up to `wait` seconds."""
        from dtkpipe.clients.cluster import PODS

        labels, end = f"{ds.DRIVER_LABEL}={self.workload.name}", time.monotonic() + wait
        nodes = self._nodes()
        listed = patiently(lambda: self.cluster.list(PODS, self.namespace, labels=labels))
        pods = {str(pod["metadata"]["uid"]): pod for pod in listed}
        found = places(self.workload, nodes, pods.values())
        if not wait or not any(place.waiting for place in found):
            return found
        for kind, pod in self.cluster.watch(PODS, self.namespace, labels=labels, until=end):
            uid = str(pod["metadata"]["uid"])
            if kind == "DELETED":
                pods.pop(uid, None)
            else:
                pods[uid] = pod
            if not any(place.waiting for place in places(self.workload, nodes, pods.values())):
                break
        return places(self.workload, self._nodes(), pods.values())

    def reports(self, say: Callable[[NodeReport], None], *, wait: float | None = None) -> list[NodeReport]:
        """Ask every node, several at a time, and `say` each report as it comes.

        With `wait`, pods get so many seconds to be ready, and one that does not answer is asked again: it may have
        been replaced, or its node went down. Raises NotAllowedError.
        """
        found = self._ask_all(self.places(wait or 0), say)
        for turn in (1, 2) if wait is not None else ():
            silent = {node for node, told in found.items() if told is None}
            if not silent:
                break
            if turn == 1:
                self.places(_REPLACED)
            else:
                self._until_down(silent)
            found |= self._ask_all([place for place in self.places() if place.node in silent], say)
        for node in [node for node, told in found.items() if told is None]:
            verdict = NodeVerdict(node=node, word="not-answering", reason="commands cannot be run in its pod")
            found[node] = NodeReport(verdict=verdict)
            say(NodeReport(verdict=verdict))
        return [told for told in found.values() if told]

    def _nodes(self) -> list[Node]:
        from dtkpipe.clients.cluster import NODES

        return [Node.from_object(one) for one in patiently(lambda: self.cluster.list(NODES))]

    def _until_down(self, silent: set[str]) -> None:
        """Wait until the nodes that do not answer count as down, but not for ever."""
        from dtkpipe.clients.cluster import NODES

        left = set(silent)
        for _, one in self.cluster.watch(NODES, until=time.monotonic() + _GRACE):
            node = Node.from_object(one)
            if not node.ready:
                left.discard(node.name)
            if not left:
                return

    def _ask_all(self, asked: Sequence[Place], say: Callable[[NodeReport], None]) -> dict[str, NodeReport | None]:
        found: dict[str, NodeReport | None] = {}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            asking = {pool.submit(self._ask, place): place.node for place in asked}
            for done in as_completed(asking):
                found[asking[done]] = told = done.result()
                if told:
                    say(told)
        return found

    def _ask(self, place: Place) -> NodeReport | None:
        """Return a node's report; None where its pod does not answer. Raises NotAllowedError."""
        if place.verdict:
            return NodeReport(verdict=place.verdict)
        names = [module.name for module in self.modules]
        wanted = reading.paths(names, self.spec)
        mark, argv = reading.inspection(wanted)
        try:
            done = self.cluster.exec(
                self.namespace, place.pod, ds.CONTAINER, argv, timeout=_INSPECTION, most=_LARGEST_LOG
            )
            contents, log = reading.from_inspection(mark, wanted, done.raw)
            facts = reading.understand(contents, names, log)
            finding = judge(self.modules, self.spec, facts)
            if finding.word == HEALTHY:
                finding = checks(self._check(place, check) for check in self.checks) or finding
        except (UnreachableError, RunUnknownError, NotFoundError):
            return None
        return report(place.node, finding, self.modules, facts)

    def _check(self, place: Place, check: Check) -> CheckRun:
        try:
            done = self.cluster.exec(self.namespace, place.pod, ds.CONTAINER, check.run, timeout=check.timeout)
        except RunUnknownError:
            return CheckRun(check=check, status=None)
        except NotFoundError as error:
            if "cannot be run" not in error.what:
                raise
            return CheckRun(check=check, status=127, output="\n".join(error.details))
        return CheckRun(check=check, status=done.returncode, output=f"{done.output}\n{done.errors}")
