"""Drivers on the nodes of a real cluster: who gets which image, how it is replaced, and how it comes back."""

import json
import os
import subprocess
import sys

import pytest

from dtkpipe.errors import NotFoundError
from dtkpipe.proof.module import parse_module
from dtkpipe.steps.contract import StepRefusedError
from dtkpipe.values.kernel import Kernel
from tests.e2e.cluster.target import Node
from tests.fixtures.drivers import Drivers, Ground
from tests.fixtures.images import file
from tests.fixtures.modules import SOURCES

ONE, TWO = "dep_first", "dep_second"
GOOD = (SOURCES / "good.c").read_text()
NEWER = GOOD.replace("1.0", "2.0")
REFUSES = (SOURCES / "finds_no_device.c").read_text()


def spec(*modules: object, **more: object) -> dict[str, object]:
    return {"name": "dep-test", "modules": list(modules), **more}


def kernel_of(node: Node) -> Kernel:
    return Kernel.parse(node.kernel)


def test_a_node_gets_the_image_for_its_kernel_and_no_other(
    ground: Ground, drivers: Drivers, workers: tuple[Node, ...]
) -> None:
    results = {}
    for node in workers:
        kernel = kernel_of(node)
        image = drivers.image(kernel, {ONE: drivers.module(kernel, ONE, GOOD)}, spec(ONE))
        results[node.name] = ground.deploy(image, kernel)
        assert json.loads(results[node.name]["nodes"]) == {node.name: "loaded"}
        others = [other for other in workers if other.name not in results]
        assert [ground.state(other.name, ONE) for other in others] == ["" for _ in others]
    assert [ground.state(node.name, ONE) for node in workers] == ["Live" for _ in workers]
    images = {pod["spec"]["nodeName"]: pod["spec"]["containers"][0]["image"] for pod in ground.pods()}
    assert images == {
        name: ground.workload(one)["metadata"]["annotations"]["dtkpipe.io/image"] for name, one in results.items()
    }


def test_the_old_goes_before_the_new_comes_and_both_ways(
    ground: Ground, drivers: Drivers, workers: tuple[Node, ...]
) -> None:
    node, kernel = workers[0], kernel_of(workers[0])
    built = [drivers.module(kernel, ONE, source) for source in (GOOD, NEWER)]
    sources = [parse_module(data, "x").srcversion for data in built]
    assert sources[0] != sources[1]
    old, new = (drivers.image(kernel, {ONE: data}, spec(ONE)) for data in built)
    ground.deploy(old, kernel)
    assert ground.srcversion(node.name, ONE) == sources[0]
    results = ground.deploy(new, kernel, run_name="run-2")
    assert ground.srcversion(node.name, ONE) == sources[1]
    annotations = ground.workload(results)["metadata"]["annotations"]
    assert (annotations["dtkpipe.io/previous-image"], annotations["dtkpipe.io/run"]) == (str(old), "run-2")

    workload = ground.rollout().find(results["workload"].removeprefix("daemonset/"))
    assert workload
    ground.rollout().put_back(workload, remove=False)
    assert ground.srcversion(node.name, ONE) == sources[0]
    again = ground.rollout().find(workload.name)
    assert again
    with pytest.raises(NotFoundError, match="cannot go back: there was no image before"):
        ground.rollout().put_back(again, remove=False)
    assert ground.state(node.name, ONE) == "Live"


@pytest.mark.core
def test_a_driver_that_a_node_refuses_is_taken_back(
    ground: Ground, drivers: Drivers, workers: tuple[Node, ...]
) -> None:
    node, kernel = workers[0], kernel_of(workers[0])
    good = drivers.module(kernel, ONE, GOOD)
    bad = drivers.image(kernel, {ONE: drivers.module(kernel, ONE, REFUSES)}, spec(ONE))
    with pytest.raises(StepRefusedError) as refused:
        ground.deploy(bad, kernel)
    assert refused.value.what == f"node {node.name}: the kernel does not take {ONE}"
    assert any("No such device" in line for line in refused.value.details)
    assert any("is removed: there was no image before" in line for line in refused.value.details)
    assert json.loads(refused.value.results.nodes)[node.name].startswith("failed: ")
    assert ground.pods() == []

    def left() -> list[str]:
        found = ground.cluster.kubectl.json("-n", ground.namespace, "get", "configmaps,daemonsets,controllerrevisions")
        return [one["metadata"]["name"] for one in found["items"]]

    ground.cluster.wait("what it owned to be gone", lambda: left() == ["kube-root-ca.crt"])

    before = drivers.image(kernel, {ONE: good}, spec(ONE))
    ground.deploy(before, kernel)
    with pytest.raises(StepRefusedError) as refused:
        ground.deploy(bad, kernel)
    assert any(f"is back at {before}" in line for line in refused.value.details)
    assert ground.srcversion(node.name, ONE) == parse_module(good, "x").srcversion


def test_half_a_driver_is_none(ground: Ground, drivers: Drivers, workers: tuple[Node, ...]) -> None:
    node, kernel = workers[0], kernel_of(workers[0])
    modules = {**drivers.modules(kernel, {ONE: GOOD}), **drivers.modules(kernel, {TWO: REFUSES})}
    with pytest.raises(StepRefusedError, match=f"the kernel does not take {TWO}"):
        ground.deploy(drivers.image(kernel, modules, spec(ONE, TWO)), kernel)
    assert (ground.state(node.name, ONE), ground.state(node.name, TWO)) == ("", "")


def test_what_a_driver_needs_is_there(ground: Ground, drivers: Drivers, workers: tuple[Node, ...]) -> None:
    """Modules of the kernel's own, firmware, parameters, the order of loading; and it goes as it came."""
    node, kernel = workers[0], kernel_of(workers[0])
    sources = {name: (SOURCES / f"{name}.c").read_text() for name in ("provider", "consumer", "in_tree_user", "dummy")}
    modules = {
        **drivers.modules(kernel, {name: sources[name] for name in ("provider", "consumer", "in_tree_user", "dummy")}),
        **drivers.modules(kernel, {"with_firmware": (SOURCES / "with_firmware.c").read_text(), ONE: GOOD}),
    }
    wanted = {"name": ONE, "parameters": ["answer=42", "words=a$(HOME)$b"]}
    order = ["provider", "consumer", "in_tree_user", "dummy", {"name": "with_firmware", "firmware": ["demo/one.bin"]}]
    image = drivers.image(
        kernel, modules, spec(*order, wanted, inTreeModulesToRemove=["dummy"]),
        [file("opt/lib/firmware/demo/one.bin", b"hello")],
    )  # fmt: skip
    results = ground.deploy(image, kernel)
    names = ["provider", "consumer", "in_tree_user", "dummy", "with_firmware", ONE]
    assert [ground.state(node.name, name) for name in names] == ["Live"] * len(names)
    assert ground.state(node.name, "udp_tunnel") == "Live"
    assert ground.parameter(node.name, ONE, "answer") == "42"
    assert ground.parameter(node.name, ONE, "words") == "a$(HOME)$b"
    log = ground.logs(results)
    assert "firmware demo/one.bin is in /var/lib/firmware" in log
    ground.cluster.kubectl("-n", ground.namespace, "delete", results["workload"], "--cascade=foreground", "--wait")
    assert [ground.state(node.name, name) for name in names] == [""] * len(names)


def test_a_file_may_have_another_name_than_its_module(
    ground: Ground, drivers: Drivers, workers: tuple[Node, ...]
) -> None:
    node, kernel = workers[0], kernel_of(workers[0])
    image = drivers.image(kernel, {"vendor-driver": drivers.module(kernel, ONE, GOOD)}, spec(ONE))
    results = ground.deploy(image, kernel)
    assert ground.state(node.name, ONE) == "Live"
    ground.cluster.kubectl("-n", ground.namespace, "delete", results["workload"], "--cascade=foreground", "--wait")
    assert ground.state(node.name, ONE) == ""


def test_the_task_that_always_runs_takes_back_what_failed_later(
    ground: Ground, drivers: Drivers, workers: tuple[Node, ...]
) -> None:
    node, kernel = workers[0], kernel_of(workers[0])
    old, new = (drivers.module(kernel, ONE, source) for source in (GOOD, NEWER))
    ground.deploy(drivers.image(kernel, {ONE: old}, spec(ONE)), kernel, run_name="run-1")
    ground.deploy(drivers.image(kernel, {ONE: new}, spec(ONE)), kernel, run_name="run-2")

    def ended(run: str, how: str) -> str:
        statuses = json.dumps(["deploy=Succeeded", f"smoke-test={how}"])
        done = subprocess.run(
            [sys.executable, "-m", "dtkpipe", "step", "rollback", f"--run-name={run}", f"--statuses={statuses}",
             f"--target-namespace={ground.namespace}"],
            env={**os.environ, **ground.cluster.environ}, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip().removeprefix("ROLLED_BACK=")

    for run, how in (("run-2", "Succeeded"), ("run-2", "None"), ("run-1", "Failed")):
        ended(run, how)
        assert ground.srcversion(node.name, ONE) == parse_module(new, "x").srcversion
    assert "is back at" in ended("run-2", "Failed")
    assert ground.srcversion(node.name, ONE) == parse_module(old, "x").srcversion
    assert ended("run-2", "Failed") == "nothing is of this run"
    assert ground.state(node.name, ONE) == "Live"
