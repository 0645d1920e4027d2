"""Nodes that go away, come back, run another kernel, or are taken down by the driver itself."""

import json
import threading
from collections.abc import Iterator

import pytest

from dtkpipe.app.nodes import label_nodes
from dtkpipe.errors import InvalidError
from dtkpipe.proof.module import parse_module
from dtkpipe.steps.contract import StepRefusedError
from dtkpipe.values.kernel import Kernel
from tests.e2e.cluster.faults import Faults
from tests.e2e.cluster.target import Node
from tests.fixtures.drivers import Drivers, Ground
from tests.fixtures.modules import SOURCES

ONE = "dep_faults"
GOOD = (SOURCES / "good.c").read_text()
NEWER = GOOD.replace("1.0", "2.0")
REFUSES = (SOURCES / "finds_no_device.c").read_text()


def spec(*modules: object) -> dict[str, object]:
    return {"name": "dep-faults", "modules": list(modules)}


@pytest.fixture
def two(ground: Ground, workers: tuple[Node, ...], faults: Faults) -> Iterator[tuple[Node, Node]]:
    """Two nodes; afterwards each runs its own kernel again."""
    yield workers[0], workers[1]
    for node in workers:
        now = next(one for one in ground.cluster.workers if one.name == node.name)
        if now.kernel != node.kernel:
            reboot(faults, node.name, node.kernel)
    list(label_nodes(ground.cluster.client))


def reboot(faults: Faults, node: str, kernel: str = "") -> None:
    faults.power_off(node)
    faults.power_on(node, kernel)


def test_a_node_changes_its_kernel_and_one_is_off(
    ground: Ground, drivers: Drivers, two: tuple[Node, Node], faults: Faults
) -> None:
    first, second = two
    kernel, other = Kernel.parse(first.kernel), Kernel.parse(second.kernel)
    built = [drivers.module(kernel, ONE, source) for source in (GOOD, NEWER, REFUSES)]
    old, new, bad = (drivers.image(kernel, {ONE: data}, spec(ONE)) for data in built)
    srcversions = [parse_module(data, "x").srcversion for data in built]
    ground.deploy(drivers.image(other, {ONE: drivers.module(other, ONE, GOOD)}, spec(ONE)), other)

    # Another kernel: its label is out of date, which nothing passes over; the driver of the old kernel is not loaded.
    reboot(faults, second.name, kernel.release)
    with pytest.raises(InvalidError, match=f"no label tells that {second.name} runs kernel {kernel}"):
        ground.deploy(old, kernel)
    assert ground.state(second.name, ONE) == ""
    outcomes = {one.node: one.outcome for one in label_nodes(ground.cluster.client)}
    assert outcomes[second.name] == "corrected"
    found = json.loads(ground.deploy(old, kernel)["nodes"])
    assert found == {first.name: "loaded", second.name: "loaded"}

    # Canaries first: what fails there comes nowhere else.
    ground.cluster.kubectl("label", "node", second.name, "tier=canary")
    try:
        before = {pod["metadata"]["uid"] for pod in ground.pods() if pod["spec"]["nodeName"] == first.name}
        with pytest.raises(StepRefusedError, match=f"node {second.name}: the kernel does not take"):
            ground.deploy(bad, kernel, canary="tier=canary")
        assert before == {pod["metadata"]["uid"] for pod in ground.pods() if pod["spec"]["nodeName"] == first.name}
        assert [ground.srcversion(node.name, ONE) for node in two] == srcversions[:1] * 2
    finally:
        ground.cluster.kubectl("label", "node", second.name, "tier-")

    # One is off: the others get the new image, and it gets it when it comes back.
    faults.power_off(second.name)
    found = json.loads(ground.deploy(new, kernel)["nodes"])
    assert found[first.name] == "loaded"
    assert found[second.name].startswith("down: ")
    faults.power_on(second.name, kernel.release)
    ground.cluster.wait("the new driver", lambda: ground.srcversion(second.name, ONE) == srcversions[1], 180)


def test_a_node_whose_plug_is_pulled_during_the_rollout(
    ground: Ground, drivers: Drivers, two: tuple[Node, Node], faults: Faults
) -> None:
    node, kernel = two[0], Kernel.parse(two[0].kernel)
    name = "dep_slow"
    source = GOOD.replace('pr_info("good: answer %d\\n", answer);', "msleep(1000 * answer);").replace(
        "#include <linux/module.h>", "#include <linux/module.h>\n#include <linux/delay.h>"
    )
    image = drivers.image(
        kernel, {name: drivers.module(kernel, name, source)}, spec({"name": name, "parameters": ["answer=20"]})
    )
    found: list[dict[str, str]] = []
    rollout = threading.Thread(target=lambda: found.append(ground.deploy(image, kernel, rollout_timeout=400)))
    rollout.start()
    ground.cluster.wait("its modules to load", lambda: any("are loading" in line for line in ground.said), 120)
    faults.power_off(node.name)
    faults.power_on(node.name)
    rollout.join(400)
    assert [json.loads(one["nodes"]) for one in found] == [{node.name: "loaded"}]
    assert any("stopped answering while its modules were loading" in line for line in ground.said)


@pytest.mark.parametrize("name", ["oops_in_init", "hangs_in_init", "panics"])
def test_a_driver_that_takes_its_node_down(
    ground: Ground, drivers: Drivers, two: tuple[Node, Node], faults: Faults, name: str
) -> None:
    node, kernel = two[0], Kernel.parse(two[0].kernel)
    image = drivers.image(kernel, {name: drivers.module(kernel, name, (SOURCES / f"{name}.c").read_text())}, spec(name))
    try:
        with pytest.raises(StepRefusedError) as refused:
            ground.deploy(image, kernel, rollout_timeout=90)
        causes = [f"node {node.name} did not get its driver in time"]
        if name != "hangs_in_init":  # a kubelet has its kernel panic on an oops
            causes = [f"{causes[0]}: stopped answering while its modules were"]
            causes += ["no node has the driver: all went away"]  # before it could say that it had begun
            assert any(f"{node.name} is down" in line for line in refused.value.details), refused.value.details
        assert refused.value.what.startswith(tuple(causes)), refused.value.what
    finally:
        reboot(faults, node.name)
    ground.cluster.wait("the driver to be gone", lambda: ground.pods() == [], 180)
    assert ground.state(node.name, name) == ""
