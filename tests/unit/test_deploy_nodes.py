"""Which nodes get a driver: labels, taints, tolerations; and how far it is on each, judged from what the API says."""

from dataclasses import replace
from typing import Any

import pytest

from dtkpipe.errors import InvalidError, NothingSelectedError, UsageError
from dtkpipe.steps.deploy.daemonset import REVISION
from dtkpipe.steps.deploy.nodes import select
from dtkpipe.steps.deploy.standing import standings
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.node import KERNEL_LABELS, OWN_LABEL, Node, Taint, Toleration, parse_label

K = Kernel.parse("5.14.0-427.13.1.el9_4.aarch64+64k")
NFD, KMM, OWN = KERNEL_LABELS
TAG = "5.14.0-427.13.1.el9_4.aarch64_64k"
DOWN = "Kubelet stopped posting node status."


def node(name: str, *labels: str, kernel: str = K.release, **more: Any) -> Node:
    return Node(name=name, kernel=kernel, labels=dict.fromkeys(labels, TAG), **more)


def test_the_label_that_somebody_keeps_fresh_wins() -> None:
    assert select([node("a", OWN, NFD), node("b", NFD, KMM, OWN)], K).label == NFD
    assert select([node("a", OWN, KMM), node("b", NFD, KMM)], K).label == KMM
    assert OWN_LABEL == OWN


def test_nodes_with_another_kernel_are_not_selected() -> None:
    other = replace(node("b"), kernel="6.1.0-1-amd64", labels={NFD: "6.1.0-1-amd64"})
    assert select([node("a", NFD), other], K).names == {"a"}


def test_a_node_that_is_down_is_selected_by_its_label_and_decides_nothing() -> None:
    assert select([node("a", NFD), node("b", ready=False, trouble=DOWN)], K).names == {"a"}
    assert select([node("a", NFD), node("b", NFD, ready=False)], K).names == {"a", "b"}


def test_without_a_label_nothing_is_deployed() -> None:
    with pytest.raises(InvalidError, match="no label tells that b runs kernel") as refused:
        select([node("a", NFD), node("b"), node("c", OWN)], K)
    assert "nor c" in refused.value.details
    assert "label-nodes" in refused.value.hint


def test_no_node_with_the_kernel() -> None:
    with pytest.raises(NothingSelectedError, match="no node runs kernel") as refused:
        select([node("a", kernel="6.1.0-1-amd64"), node("b", kernel="6.1.0-1-amd64")], K)
    assert refused.value.details == ("2 run 6.1.0-1-amd64",)


def test_canaries_need_the_label() -> None:
    marked = replace(node("b"), labels={NFD: TAG, "tier": "canary"})
    assert select([node("a", NFD), marked], K, (), {"tier": "canary"}).names == {"b"}
    with pytest.raises(NothingSelectedError, match="has the label tier=gold"):
        select([node("a", NFD), marked], K, (), {"tier": "gold"})


def test_taints_keep_the_driver_away_until_they_are_tolerated() -> None:
    gpu, drain = Taint("gpu", "yes", "NoSchedule"), Taint("drain", "", "NoExecute")
    nodes = [node("a", NFD), node("b", NFD, taints=(gpu,)), node("c", NFD, taints=(drain,))]
    chosen = select(nodes, K)
    assert (chosen.names, dict(chosen.repelled)) == ({"a"}, {"b": gpu, "c": drain})
    assert select(nodes, K, (Toleration.parse("gpu=yes:NoSchedule"),)).names == {"a", "b"}
    assert select(nodes, K, (Toleration.parse("*"),)).names == {"a", "b", "c"}
    with pytest.raises(NothingSelectedError, match="keeps the driver away") as refused:
        select(nodes[1:2], K, (Toleration.parse("gpu=no"),))
    assert refused.value.hint == "--tolerations='[\"gpu=yes:NoSchedule\"]'"


@pytest.mark.parametrize(
    "taint",
    [
        Taint("node.kubernetes.io/unschedulable", "", "NoSchedule"),
        Taint("node.kubernetes.io/unreachable", "", "NoSchedule"),
        Taint("node.kubernetes.io/not-ready", "", "NoExecute"),
        Taint("anything", "", "PreferNoSchedule"),
    ],
    ids=str,
)
def test_what_daemonsets_always_tolerate(taint: Taint) -> None:
    assert node("a", taints=(taint,)).repelled_by(()) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", {"operator": "Exists"}),
        ("gpu", {"key": "gpu", "operator": "Exists"}),
        ("gpu:NoExecute", {"key": "gpu", "operator": "Exists", "effect": "NoExecute"}),
        ("a.b/gpu=yes", {"key": "a.b/gpu", "operator": "Equal", "value": "yes"}),
        ("gpu=:NoSchedule", {"key": "gpu", "operator": "Equal", "effect": "NoSchedule"}),
    ],
)
def test_tolerations_are_spelled_as_taints_are(text: str, expected: dict[str, str]) -> None:
    assert Toleration.parse(text).to_mapping() == expected


@pytest.mark.parametrize("text", ["", "=x", "gpu:Never", "a b", "gpu=a:b:NoSchedule", "gpu=$(x)"])
def test_what_is_no_toleration(text: str) -> None:
    with pytest.raises(UsageError, match="is no toleration"):
        Toleration.parse(text)


@pytest.mark.parametrize("text", ["tier", "=canary", "tier=a b", "tier=canary,x=y"])
def test_what_is_no_label(text: str) -> None:
    with pytest.raises(UsageError, match="is no label"):
        parse_label(text)


def test_a_node_is_read_as_the_api_has_it() -> None:
    data: dict[str, Any] = {
        "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]},
        "status": {
            "nodeInfo": {"kernelVersion": K.release},
            "conditions": [{"type": "Ready", "status": "Unknown", "message": DOWN}],
        },
    }
    assert Node.from_object(data) == Node(
        name="a", kernel=K.release, ready=False, trouble=DOWN, labels={"x": "y"},
        taints=(Taint("gpu", "", "NoSchedule"),),
    )  # fmt: skip
    assert not Node.from_object({"metadata": {"name": "a"}}).ready


# How far the driver is.

NEW = "r2"


def pod(
    node: str = "a",
    *,
    revision: str = NEW,
    ending: bool = False,
    name: str = "driver",
    conditions: Any = (),
    **status: Any,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "p", "annotations": {REVISION: revision}}
    if ending:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    containers = [{"name": name, **status}] if status else []
    return {
        "metadata": metadata, "spec": {"nodeName": node},
        "status": {"containerStatuses": containers, "conditions": list(conditions)},
    }  # fmt: skip


def judge(node: Node, *pods: dict[str, Any]) -> str:
    (found,) = standings([node], pods, K, NEW)
    return str(found)


UP, OFF = node("a"), node("a", ready=False, trouble=DOWN)
FAILED = {"exitCode": 1, "message": "the kernel does not take hello\n  modprobe: ERROR", "reason": "Error"}


def test_loaded_is_who_is_ready_with_the_new_image() -> None:
    running = {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
    assert judge(UP, pod(ready=True, **running)) == "loaded"
    assert judge(UP, pod(ready=False, **running)) == "waiting: its modules are loading"
    assert judge(UP, pod(revision="r1", ready=True, **running)) == "waiting: its turn has not come"
    assert judge(UP, pod(ready=True, ending=True, **running)) == "waiting: the pod before is unloading its modules"
    assert judge(UP) == "waiting: has no pod yet"
    assert judge(UP, pod("b", ready=True)) == "waiting: has no pod yet"
    assert judge(UP, pod(ready=True, name="injected-sidecar")) == "waiting: its pod is starting"


def test_the_loaders_own_word_is_the_cause() -> None:
    assert judge(UP, pod(ready=False, state={"terminated": FAILED})) == "failed: the kernel does not take hello"
    backing_off = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": FAILED}}
    assert judge(UP, pod(ready=False, **backing_off)) == "failed: the kernel does not take hello"
    (found,) = standings([UP], [pod(ready=False, **backing_off)], K, NEW)
    assert found.why.splitlines()[1] == "  modprobe: ERROR"


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        ({"exitCode": 255, "reason": "Unknown"}, "waiting: its pod is starting"),
        ({"exitCode": 143, "reason": "Error"}, "waiting: its pod is starting"),
        ({"exitCode": 128, "reason": "StartError", "message": "no /bin/sh"}, "failed: StartError: no /bin/sh"),
        ({"exitCode": 137, "reason": "OOMKilled"}, "failed: OOMKilled: the loader was ended"),
    ],
)
def test_a_reboot_is_no_failure(ended: dict[str, Any], expected: str) -> None:
    assert judge(UP, pod(ready=False, state={"terminated": ended})) == expected


@pytest.mark.parametrize(
    ("reason", "message", "state"),
    [
        ("ImagePullBackOff", 'Back-off pulling image: failed to resolve: "x": not found', "failed"),
        ("ErrImagePull", "pull access denied, repository does not exist or may require authorization", "failed"),
        ("ErrImagePull", "unexpected status 401 Unauthorized", "failed"),
        ("ErrImagePull", "dial tcp 10.0.0.1:5000: connect: connection refused", "waiting"),
        ("ImagePullBackOff", "unexpected status code 503", "waiting"),
        ("CreateContainerConfigError", 'secret "x" not found', "failed"),
        ("CrashLoopBackOff", "back-off 10s", "waiting"),
    ],
)
def test_a_registry_that_is_away_is_waited_for_a_refusal_is_not(reason: str, message: str, state: str) -> None:
    found = judge(UP, pod(ready=False, state={"waiting": {"reason": reason, "message": message}}))
    assert found == f"{state}: {reason}: {message}"


def test_a_node_that_is_down_is_told_from_one_that_the_driver_took_down() -> None:
    running = {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
    assert judge(OFF) == f"down: {DOWN}"
    assert judge(OFF, pod()) == f"down: {DOWN}"
    assert judge(OFF, pod(ready=True, **running)) == f"down: {DOWN}"
    assert judge(OFF, pod(revision="r1", ready=False, **running)) == f"down: {DOWN}"
    assert judge(OFF, pod(ready=False, **running)).startswith("waiting: stopped answering while its modules were")


def test_a_node_with_another_kernel_than_its_label_says() -> None:
    found = judge(node("a", kernel="6.1.0-1-amd64"), pod(ready=False, state={"terminated": FAILED}))
    assert found == f"other kernel: runs kernel 6.1.0-1-amd64; its label says {K}"


def test_a_pod_that_is_not_scheduled_belongs_to_the_node_it_is_for() -> None:
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}
    unscheduled = pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "Insufficient memory"}])
    unscheduled["spec"] = {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    }
    assert judge(UP, unscheduled) == "waiting: cannot be scheduled: Insufficient memory"
