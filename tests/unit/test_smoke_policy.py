"""Which nodes fail a smoke test, and which are only told of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.app.drivers import Driver, uncovered
from dtkpipe.errors import NothingSelectedError
from dtkpipe.steps.contract import Room, StepRefusedError
from dtkpipe.steps.deploy.rollout import Workload
from dtkpipe.steps.smoke_test import Args, Results, conclude
from dtkpipe.steps.smoke_test.report import NodeReport
from dtkpipe.values.health import NodeVerdict
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

IMAGE = ImageRef.parse("quay.io/org/hello").at("sha256:" + "0" * 64)
DOWN = ("b", "node-not-ready", "Kubelet stopped posting node status.")
WELL, ELSE = ("a", "healthy"), ("z", "other-kernel", "runs kernel 5")


def report(node: str, word: str, reason: str = "", *details: str) -> NodeReport:
    return NodeReport(verdict=NodeVerdict(node=node, word=word, reason=reason), details=details)


def concluded(*nodes: tuple[str, ...], strict: bool = False) -> tuple[Results, Mapping[str, Any]]:
    documents: list[Mapping[str, Any]] = []
    args = Args(
        image=IMAGE, kernel=Kernel.parse("6.1.0-1-cloud-amd64"), workload="daemonset/x", require_all_nodes=strict
    )
    room = Room(work=Path(), cache=Path(), environ={}, say=lambda _: None, document=documents.append)
    return conclude([report(*one) for one in nodes], args, room), documents[0]


def test_nodes_that_are_down_or_have_another_kernel_are_only_told_of() -> None:
    results, document = concluded(ELSE, WELL, DOWN)
    assert list(json.loads(results.nodes)) == ["b", "a", "z"]
    assert list(document["nodes"]) == ["b", "a", "z"]
    assert document["workload"] == "daemonset/x"


def test_a_node_that_is_down_fails_the_test_where_all_are_required() -> None:
    with pytest.raises(StepRefusedError, match=r"^node b: node-not-ready: Kubelet stopped"):
        concluded(WELL, DOWN, strict=True)
    concluded(WELL, ELSE, ("k", "kept-away", "taint gpu:NoSchedule"), strict=True)


def test_a_test_that_tested_nothing_is_no_success() -> None:
    with pytest.raises(StepRefusedError, match="no node could be tested: node b: node-not-ready"):
        concluded(DOWN, ELSE)
    with pytest.raises(NothingSelectedError, match=r"none with kernel 6\.1\.0-1-cloud-amd64 is selected"):
        concluded(ELSE)


def test_the_first_node_that_is_not_well_is_the_cause() -> None:
    log = ("c", "kernel-log", "BUG: x", "BUG: x", "Call Trace:")
    with pytest.raises(StepRefusedError) as refused:
        concluded(WELL, ("d", "not-loaded", "hello is not in /proc/modules"), log)
    assert refused.value.what == "node c: kernel-log: BUG: x (and 1 more)"
    assert refused.value.details == ("BUG: x", "Call Trace:")
    assert json.loads(refused.value.results.nodes)["d"] == "not-loaded: hello is not in /proc/modules"


def driver(module: str, *nodes: tuple[str, ...]) -> Driver:
    workload = Workload({"metadata": {"name": module, "labels": {"dtkpipe.io/module": module}}})
    return Driver(workload=workload, reports=tuple(report(*one) for one in nodes))


def test_nodes_for_whose_kernel_there_is_no_driver_are_known() -> None:
    one = driver("hello", WELL, ("b", "other-kernel"), ("c", "other-kernel"))
    two = driver("hello", ("a", "other-kernel"), ("b", "healthy"), ("c", "other-kernel"))
    assert uncovered([one, two, driver("other", WELL)]) == {"hello": ["c"]}
    assert (one.healthy, one.ready) == (1, 0)
