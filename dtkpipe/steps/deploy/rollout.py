"""Part of deploy: a driver's DaemonSet on a cluster: put there, waited for, put back.

Which image was there before is an annotation; its whole template is in the DaemonSet's history (ControllerRevisions),
where `kubectl rollout history` finds it, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dtkpipe.errors import DtkpipeError, NotFoundError, RunFailedError
from dtkpipe.steps.deploy import daemonset as ds
from dtkpipe.steps.deploy.standing import DOWN, ELSEWHERE, FAILED, LOADED, NO_POD, WAITING, Standing, standings
from dtkpipe.steps.deploy.trouble import Absences, Troubles, patiently
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.node import Node, Toleration

if TYPE_CHECKING:
    from dtkpipe.clients.cluster import Cluster

Object = dict[str, Any]
PUT_BACK_LIMIT = 300.0
"""Seconds that nodes have to get back what they had before."""
_SLICE, _MOMENT = 10.0, 2.0
"""Seconds after which nodes, and what is being removed, are looked at again; changes of pods are seen as they come."""


class RolloutFailedError(RunFailedError):
    """A node does not get its driver. `standings` are those of all nodes."""

    def __init__(self, what: str, *details: str, standings: Sequence[Standing], hint: str = "") -> None:
        super().__init__(what, *details, hint=hint)
        self.standings = tuple(standings)


@dataclass(frozen=True)
class Workload:
    """A driver's DaemonSet, as the API has it."""

    data: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.data["metadata"]["name"])

    @property
    def kernel(self) -> Kernel:
        """The kernel it is for. Raises InvalidError for one that somebody else made."""
        return Kernel.parse(self.annotation(ds.KERNEL))

    @property
    def selector(self) -> Mapping[str, str]:
        """The labels of the nodes that its pods are for."""
        return dict(self.data["spec"]["template"]["spec"].get("nodeSelector") or {})

    def annotation(self, name: str) -> str:
        """Return one of its annotations, or an empty string."""
        return str((self.data["metadata"].get("annotations") or {}).get(name) or "")


@dataclass(frozen=True)
class Rollout:
    """Drivers in one namespace of a cluster. `deadline` is of time.monotonic()."""

    cluster: Cluster
    namespace: str
    say: Callable[[str], None]
    deadline: float

    def find(self, name: str) -> Workload | None:
        """Return a driver's DaemonSet, or None."""
        from dtkpipe.clients.cluster import DAEMON_SETS

        found = self.cluster.find(DAEMON_SETS, name, self.namespace)
        return Workload(found) if found else None

    def all(self) -> list[Workload]:
        """Return the DaemonSets of all drivers in the namespace."""
        from dtkpipe.clients.cluster import DAEMON_SETS

        labels = ",".join(f"{key}={value}" for key, value in ds.OURS.items())
        return [Workload(one) for one in self.cluster.list(DAEMON_SETS, self.namespace, labels=labels)]

    def apply(self, wanted: ds.Deployment, *, strategy: str = "RollingUpdate") -> Workload:
        """Put the driver there. Nothing is changed unless the cluster takes all of it.

        Raises NotAllowedError, InvalidError with the cluster's words.
        """
        made = ds.daemon_set(wanted, strategy=strategy)
        self.cluster.apply(made, self.namespace, dry_run=True)
        done = self.cluster.apply(made, self.namespace)
        # With its owner from the beginning: OpenShift lets only those set an owner later who may delete the object.
        self.cluster.apply(ds.config_map(wanted, owner=done), self.namespace)
        return Workload(done)

    def renew(self, workload: Workload, nodes: frozenset[str]) -> None:
        """Delete the pods of some nodes that are not of the current template: new ones take their place."""
        from dtkpipe.clients.cluster import PODS

        for pod in self.cluster.list(PODS, self.namespace, labels=f"{ds.DRIVER_LABEL}={workload.name}"):
            revision = (pod["metadata"].get("annotations") or {}).get(ds.REVISION)
            if pod["spec"].get("nodeName") in nodes and revision != workload.annotation(ds.REVISION):
                self.cluster.delete(PODS, pod["metadata"]["name"], self.namespace)

    def complete(self, workload: Workload) -> None:
        """Write down that the rollout is done: it is what a later failure goes back to."""
        from dtkpipe.clients.cluster import DAEMON_SETS

        merge = {"metadata": {"annotations": {ds.ROLLOUT: ds.COMPLETE}}}
        self.cluster.patch(DAEMON_SETS, workload.name, self.namespace, merge)

    def wait(self, workload: Workload, nodes: frozenset[str] | None = None) -> list[Standing]:
        """Wait until every node that the driver is for has it, but for those that are down; return how each stands.

        With `nodes`, only those count. Raises RolloutFailedError for a node that does not get it.
        """
        from dtkpipe.clients.cluster import PODS

        troubles = Troubles(self.cluster, self.namespace, workload.name)
        labels = f"{ds.DRIVER_LABEL}={workload.name}"
        told, absences = dict[str, str](), Absences()
        down = 0
        while True:
            known = patiently(lambda: self._nodes(workload, nodes))
            there = patiently(lambda: self.cluster.list(PODS, self.namespace, labels=labels))
            pods = {one["metadata"]["uid"]: one for one in there}
            found = self._look(workload, known, pods, told, absences)
            down = self._allow_for(workload, found, down)
            until = min(self.deadline, time.monotonic() + _SLICE)
            for kind, pod in self.cluster.watch(PODS, self.namespace, labels=labels, until=until):
                pods[pod["metadata"]["uid"]] = pod
                if kind == "DELETED":
                    del pods[pod["metadata"]["uid"]]
                found = self._look(workload, known, pods, told, absences)
                if _settled(found):
                    break
            if failed := [one for one in found if one.state == FAILED]:
                raise self._failure(failed[0], found)
            if _settled(found):
                # A node that went down is seen now, not before.
                known = patiently(lambda: self._nodes(workload, nodes))
                found = self._look(workload, known, pods, told, absences)
                if _settled(found):
                    self._allow_for(workload, (), down)
                    return found
            if any(one.why == NO_POD for one in found) and (trouble := patiently(troubles.final)):
                raise RolloutFailedError(f"the cluster makes no pod for {workload.name}", trouble, standings=found)
            if time.monotonic() >= self.deadline:
                raise self._late(workload, found, patiently(troubles.last))

    def put_back(self, workload: Workload, *, remove: bool) -> str:
        """Put back the image that was there before `workload`, and wait for it. Return what was done, in words.

        Where there was none, `remove` the driver, or raise NotFoundError. Raises RolloutFailedError for a node that
        does not get its old driver back.
        """
        from dtkpipe.clients.cluster import DAEMON_SETS

        previous = workload.annotation(ds.PREVIOUS)
        template = self._template_of(workload, previous) if previous else None
        if not template:
            why = f"{previous} is not in its history" if previous else "there was no image before"
            if not remove:
                raise NotFoundError(
                    f"daemonset/{workload.name} cannot go back: {why}", f"it has: {workload.annotation(ds.IMAGE)}",
                    hint=f"dtkpipe deploy IMAGE --target-namespace {self.namespace}, the image that is wanted",
                )  # fmt: skip
            self.cluster.delete(DAEMON_SETS, workload.name, self.namespace, foreground=True)
            down = frozenset(node.name for node in patiently(lambda: self._nodes(workload, None)) if not node.ready)
            self.vacate(workload.name, but=down)
            later = f"; {', '.join(sorted(down))} is down and lets go of it when it answers again" if down else ""
            return f"daemonset/{workload.name} is removed: {why}{later}"
        self.say(f"daemonset/{workload.name} goes back to {previous}")
        done = Workload(self.cluster.apply(_restored(workload, template, previous), self.namespace))
        self.wait(done)
        self.complete(done)
        return f"daemonset/{workload.name} is back at {previous}"

    def vacate(self, name: str, *, but: frozenset[str] = frozenset()) -> None:
        """Wait until a driver that is being removed is gone from all nodes `but` some; nothing to wait for is fine.

        A pod that unloads its modules must not meet one that loads them.
        """
        from dtkpipe.clients.cluster import PODS

        labels, told = f"{ds.DRIVER_LABEL}={name}", False
        while True:
            found = patiently(lambda: self.find(name))
            ending = bool(found and found.data["metadata"].get("deletionTimestamp"))
            pods = patiently(lambda: self.cluster.list(PODS, self.namespace, labels=labels))
            others = [one for one in pods if one["spec"].get("nodeName") not in but]
            if (not ending and (found or not pods)) or (pods and not others):
                return
            nodes = ", ".join(sorted({str(one["spec"].get("nodeName") or "no node") for one in pods}))
            where = f" from {nodes}" if nodes else ""
            if not told:
                self.say(f"waiting for daemonset/{name} to be gone{where}")
                told = True
            if time.monotonic() >= self.deadline:
                raise RolloutFailedError(
                    f"daemonset/{name} does not go{where}",
                    "its modules do not unload, or the node does not answer", standings=(),
                    hint="restart the node: nothing is loaded after that",
                )  # fmt: skip
            until = min(self.deadline, time.monotonic() + _MOMENT)
            for kind, _ in self.cluster.watch(PODS, self.namespace, labels=labels, until=until):
                if kind == "DELETED":
                    break

    def _template_of(self, workload: Workload, image: str) -> Object | None:
        """Return the newest template of the DaemonSet's history that has `image`."""
        from dtkpipe.clients.cluster import CONTROLLER_REVISIONS

        labels = f"{ds.DRIVER_LABEL}={workload.name}"
        found = self.cluster.list(CONTROLLER_REVISIONS, self.namespace, labels=labels)
        for one in sorted(found, key=lambda one: int(one.get("revision") or 0), reverse=True):
            template: Object = ((one.get("data") or {}).get("spec") or {}).get("template") or {}
            annotations = (template.get("metadata") or {}).get("annotations") or {}
            if annotations.get(ds.IMAGE) == image and annotations.get(ds.REVISION) != workload.annotation(ds.REVISION):
                template.pop("$patch", None)
                return template
        return None

    def _nodes(self, workload: Workload, names: frozenset[str] | None) -> list[Node]:
        from dtkpipe.clients.cluster import NODES

        labels = ",".join(f"{key}={value}" for key, value in sorted(workload.selector.items()))
        tolerations = tolerations_of(workload)
        nodes = [Node.from_object(one) for one in self.cluster.list(NODES, labels=labels)]
        return [
            node
            for node in nodes
            if (names is None or node.name in names) and not node.repelled_by(tolerations)
        ]  # fmt: skip

    def _look(
        self, workload: Workload, nodes: Sequence[Node], pods: Mapping[str, Object], told: dict[str, str],
        absences: Absences,
    ) -> list[Standing]:  # fmt: skip
        """Judge all nodes, and say what is new."""
        found = absences.judge(standings(nodes, pods.values(), workload.kernel, workload.annotation(ds.REVISION)))
        for one in found:
            if told.get(one.node) != str(one):
                told[one.node] = str(one)
                self.say(f"{one.node}: {one}")
        return found

    def _allow_for(self, workload: Workload, found: Sequence[Standing], before: int) -> int:
        """Let as many more nodes be without the driver as are down, which were `before`; return how many are.

        The DaemonSet controller counts a node that is down as one that is without, and would renew no other instead.
        """
        from dtkpipe.clients.cluster import DAEMON_SETS

        down, share = sum(one.state == DOWN for one in found), _share(workload.data["spec"])
        if down != before and share:
            most = share["maxUnavailable"] if not down else _of(share["maxUnavailable"], len(found)) + down
            merge = {"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": most}}}}
            patiently(lambda: self.cluster.patch(DAEMON_SETS, workload.name, self.namespace, merge))
        return down

    def _failure(self, one: Standing, found: Sequence[Standing]) -> RolloutFailedError:
        first, *more = one.why.splitlines()
        return RolloutFailedError(
            f"node {one.node}: {first}", *(line.strip() for line in more[:12]), standings=found,
            hint=f"dtkpipe status --target-namespace {self.namespace} -o wide",
        )  # fmt: skip

    def _late(self, workload: Workload, found: Sequence[Standing], trouble: str) -> RolloutFailedError:
        waiting = [one for one in found if one.state == WAITING]
        if not waiting:
            return RolloutFailedError(f"no node has taken {workload.name} in time", standings=found)
        one = waiting[0]
        said = self._last_words(workload, one.node)
        others = [f"{other.node}: {other}" for other in waiting[1:10]]
        return RolloutFailedError(
            f"node {one.node} did not get its driver in time: {one.cause}",
            *([f"the loader's last words: {said}"] if said else []), *([trouble] if trouble else []), *others,
            standings=found,
        )  # fmt: skip

    def _last_words(self, workload: Workload, node: str) -> str:
        from dtkpipe.clients.cluster import PODS

        try:
            for pod in self.cluster.list(PODS, self.namespace, labels=f"{ds.DRIVER_LABEL}={workload.name}"):
                if pod["spec"].get("nodeName") == node:
                    lines = list(self.cluster.logs(self.namespace, pod["metadata"]["name"], ds.CONTAINER, tail=1))
                    return lines[-1].strip() if lines else ""
        except DtkpipeError:  # a node that does not answer has no logs to give
            return ""
        return ""


def _settled(found: Sequence[Standing]) -> bool:
    """Tell whether nothing more is to be waited for: each has it or cannot have it now, or one has failed."""
    return any(one.state == FAILED for one in found) or all(one.state in (LOADED, DOWN, ELSEWHERE) for one in found)


def tolerations_of(workload: Workload) -> tuple[Toleration, ...]:
    """Return what the pods of a driver tolerate."""
    found = workload.data["spec"]["template"]["spec"].get("tolerations") or ()
    return tuple(
        Toleration(one.get("key", ""), one.get("value", "") if one.get("operator") == "Equal" else None,
                   one.get("effect", ""))
        for one in found
    )  # fmt: skip


def _restored(workload: Workload, template: Object, image: str) -> Object:
    """Return the DaemonSet as it was with an earlier template. It is no run's any more, and knows no image before."""
    metadata = workload.data["metadata"]
    annotations = {
        ds.IMAGE: image, ds.KERNEL: workload.annotation(ds.KERNEL), ds.ROLLOUT: ds.PROGRESSING,
        ds.REVISION: template["metadata"]["annotations"][ds.REVISION],
    }  # fmt: skip
    spec = workload.data["spec"]
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": workload.name, "labels": metadata["labels"], "annotations": annotations},
        "spec": {
            "selector": spec["selector"],
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, **_share(spec)}},
            "template": template,
        },
    }


def _share(spec: Mapping[str, Any]) -> dict[str, Any]:
    found = ((spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("maxUnavailable")
    return {"maxUnavailable": found} if found else {}


def _of(share: int | str, nodes: int) -> int:
    """Return how many of so many nodes a number or a share such as `10%` is, rounded up as Kubernetes does."""
    return math.ceil(int(share.rstrip("%")) * nodes / 100) if isinstance(share, str) else share
