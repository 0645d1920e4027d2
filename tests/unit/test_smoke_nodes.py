"""Every node of a cluster has its word before its pod is asked; only pods that are ready are asked."""

from typing import Any

from dtkpipe.steps.deploy.daemonset import CONTAINER, KERNEL, REVISION
from dtkpipe.steps.deploy.rollout import Workload
from dtkpipe.steps.smoke_test.nodes import Place, places
from dtkpipe.values.node import Node, Taint

RELEASE = "6.1.0-1-cloud-amd64"
LABELS = {"dtkpipe.io/kernel": RELEASE}
WORKLOAD = Workload(
    {
        "metadata": {"name": "hello-1", "uid": "1", "annotations": {KERNEL: RELEASE, REVISION: "r2"}},
        "spec": {
            "template": {"spec": {"nodeSelector": LABELS, "tolerations": [{"key": "gpu", "operator": "Exists"}]}}
        },
    }
)  # fmt: skip


def node(name: str = "a", **changes: Any) -> Node:
    return Node(**{"name": name, "kernel": RELEASE, "labels": LABELS, **changes})


def pod(name: str = "a", *, revision: str = "r2", ready: bool = True, **state: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": f"pod-{name}-{revision}", "uid": name, "annotations": {REVISION: revision}},
        "spec": {"nodeName": name},
        "status": {"containerStatuses": [{"name": CONTAINER, "ready": ready, "state": state}]},
    }


def only(one: Node, *pods: dict[str, Any]) -> Place:
    (found,) = places(WORKLOAD, [one], pods)
    return found


def said(place: Place) -> str:
    assert place.verdict
    return place.verdict.text


def test_a_pod_that_is_ready_is_asked() -> None:
    assert only(node(), pod(), pod("b"), pod(revision="r1")) == Place(node="a", pod="pod-a-r2")


def test_nodes_that_the_driver_is_not_for_say_why() -> None:
    assert said(only(node(kernel="6.12.1"))) == "other-kernel: runs kernel 6.12.1; its label says 6.1.0-1-cloud-amd64"
    assert said(only(node(kernel="6.12.1", labels={}))) == "other-kernel: runs kernel 6.12.1"
    assert said(only(node(labels={}))) == f"not-selected: has no label dtkpipe.io/kernel={RELEASE}"
    assert said(only(node(taints=(Taint("db", "", "NoSchedule"),)))) == "kept-away: taint db:NoSchedule"
    assert only(node(taints=(Taint("gpu", "", "NoSchedule"),)), pod()).pod


def test_a_node_that_is_down_is_not_waited_for() -> None:
    down = only(node(ready=False, trouble="Kubelet stopped posting node status."), pod())
    assert said(down) == "node-not-ready: Kubelet stopped posting node status."
    assert not down.waiting


def test_a_pod_that_is_not_ready_has_its_cause_in_one_line() -> None:
    waits = only(node(), pod(ready=False, waiting={"reason": "ContainerCreating"}))
    assert (said(waits), waits.waiting) == ("pod-not-ready: ContainerCreating", True)
    why = {"exitCode": 1, "message": "the kernel does not take hello\n  Unknown symbol\n"}
    failed = only(node(), pod(ready=False, terminated=why))
    assert (said(failed), failed.waiting) == ("pod-not-ready: the kernel does not take hello; Unknown symbol", False)
    assert only(node(), pod(revision="r1")).waiting
    assert said(only(node())) == "pod-not-ready: has no pod yet"
