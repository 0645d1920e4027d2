"""Rollouts that the cluster, the registry or the kernel does not let end: each names its cause and leaves nothing."""

import secrets
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dtkpipe.clients.cluster import Cluster as Client
from dtkpipe.errors import NotAllowedError, NothingSelectedError, UsageError
from dtkpipe.resources import shipped
from dtkpipe.steps.contract import StepRefusedError
from dtkpipe.steps.deploy.daemonset import Deployment
from dtkpipe.steps.deploy.rollout import RolloutFailedError
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.node import OWN_LABEL
from tests.e2e.cluster.faults import Faults
from tests.e2e.cluster.target import Node
from tests.fixtures.drivers import Drivers, Ground
from tests.fixtures.modules import SOURCES

ONE = "dep_refused"
GOOD = (SOURCES / "good.c").read_text()


def spec(*modules: object, **more: object) -> dict[str, object]:
    return {"name": "dep-refused", "modules": list(modules), **more}


@pytest.fixture
def node(workers: tuple[Node, ...]) -> Node:
    return workers[0]


@pytest.fixture
def kernel(node: Node) -> Kernel:
    return Kernel.parse(node.kernel)


@pytest.fixture
def image(drivers: Drivers, kernel: Kernel) -> ImageRef:
    return drivers.image(kernel, {ONE: drivers.module(kernel, ONE, GOOD)}, spec(ONE))


def deployment(kernel: Kernel, image: ImageRef) -> Deployment:
    """What deploy makes of an image, without reading it."""
    loader = (shipped("catalog/driver") / "load").read_text()
    acts = (f"kernel {kernel}", "own /opt", "host /", "unload required", f"load {ONE} {ONE} - -")
    return Deployment(module="dep-refused", kernel=kernel, image=image, acts=acts, loader=loader, label=OWN_LABEL)


def leaves_nothing(ground: Ground) -> bool:
    """Nothing of ours is left in the namespace; what a DaemonSet owned goes a moment after it."""

    def gone() -> bool:
        kinds = "daemonsets,controllerrevisions,configmaps,pods"
        left = ground.cluster.kubectl.json("-n", ground.namespace, "get", kinds)["items"]
        return [one["metadata"]["name"] for one in left] == ["kube-root-ca.crt"]

    return bool(ground.cluster.wait("nothing to be left", gone))


def test_a_namespace_without_rights(ground: Ground, image: ImageRef, kernel: Kernel, tmp_path: Path) -> None:
    kubectl = ground.cluster.kubectl
    kubectl("-n", ground.namespace, "create", "serviceaccount", "nobody")
    nodes = f"{ground.namespace}-nodes"
    kubectl("create", "clusterrole", nodes, "--verb=get,list", "--resource=nodes")
    kubectl(
        "create", "clusterrolebinding", nodes, f"--clusterrole={nodes}", f"--serviceaccount={ground.namespace}:nobody"
    )
    token = kubectl("-n", ground.namespace, "create", "token", "nobody").strip()
    config = yaml.safe_load(ground.cluster.kubeconfig.read_text())
    config["users"] = [{"name": one["name"], "user": {"token": token}} for one in config["users"]]
    mine = tmp_path / "nobody.kubeconfig"
    mine.write_text(yaml.safe_dump(config))
    try:
        with pytest.raises(NotAllowedError, match="daemonsets") as refused:
            ground.deploy(image, kernel, client=Client(mine))
    finally:
        kubectl("delete", "clusterrole,clusterrolebinding", nodes)
    assert ground.namespace in str(refused.value)
    assert token not in str(refused.value)
    assert leaves_nothing(ground)


def test_a_namespace_that_allows_no_privilege(ground: Ground, image: ImageRef, kernel: Kernel) -> None:
    label = "pod-security.kubernetes.io/enforce=baseline"
    ground.cluster.kubectl("label", "--overwrite", "namespace", ground.namespace, label)
    with pytest.raises(StepRefusedError, match="the cluster makes no pod for dep-refused") as refused:
        ground.deploy(image, kernel)
    assert "violates PodSecurity" in str(refused.value)
    assert leaves_nothing(ground)


def test_a_service_account_that_is_not_there(ground: Ground, image: ImageRef, kernel: Kernel) -> None:
    ground.cluster.kubectl("-n", ground.namespace, "delete", "serviceaccount", "dtkpipe-driver")
    with pytest.raises(StepRefusedError, match="the cluster makes no pod") as refused:
        ground.deploy(image, kernel)
    assert 'serviceaccount "dtkpipe-driver" not found' in str(refused.value)


def test_an_image_that_nodes_may_not_pull(ground: Ground, kernel: Kernel, node: Node) -> None:
    gone = ground.registry.repo("drivers/nowhere").at("sha256:" + "0" * 64)
    rollout = ground.rollout()
    with pytest.raises(RolloutFailedError, match=f"node {node.name}: .*not found"):
        rollout.wait(rollout.apply(deployment(kernel, gone)))


def test_what_is_refused_before_anything_is_done(ground: Ground, image: ImageRef, kernel: Kernel) -> None:
    with pytest.raises(NothingSelectedError, match="has the label tier=gold"):
        ground.deploy(image, kernel, canary="tier=gold")
    for wrong in ({"max_unavailable": "0"}, {"tolerations": ("a b",)}, {"canary": "x"}, {"firmware_folder": "/a/../b"}):
        with pytest.raises(UsageError):
            ground.deploy(image, kernel, **wrong)
    with pytest.raises(NothingSelectedError, match="no node runs kernel"):
        ground.deploy(image, Kernel.parse("5.14.0-1.el9.x86_64"))
    assert leaves_nothing(ground)


def test_a_module_that_never_ends_loading(ground: Ground, drivers: Drivers, kernel: Kernel, node: Node) -> None:
    """It sleeps, so that the node lives on: a module that stops the machine is in test_deploy_faults.py."""
    name = "dep_sleeps"
    source = GOOD.replace('pr_info("good: answer %d\\n", answer);', "msleep_interruptible(1000 * answer);").replace(
        "#include <linux/module.h>", "#include <linux/module.h>\n#include <linux/delay.h>"
    )
    image = drivers.image(
        kernel, {name: drivers.module(kernel, name, source)}, spec({"name": name, "parameters": ["answer=3600"]})
    )  # fmt: skip
    with pytest.raises(StepRefusedError, match=f"node {node.name} did not get its driver in time") as refused:
        ground.deploy(image, kernel, rollout_timeout=120)
    assert f"the loader's last words: loading {name} with answer=3600" in refused.value.details
    assert leaves_nothing(ground)
    ground.cluster.wait("the module to be gone", lambda: ground.state(node.name, name) == "")


def test_another_build_that_is_in_use_is_not_forced_out(
    ground: Ground, drivers: Drivers, kernel: Kernel, node: Node
) -> None:
    """A module without an exit function stays: the new build names it, and the old image comes back."""
    name = f"dep_stays_{secrets.token_hex(2)}"  # until the machine's end
    source = (SOURCES / "stays.c").read_text()
    old = drivers.image(kernel, {name: drivers.module(kernel, name, source)}, spec(name, unload="never"))
    newer = drivers.module(kernel, name, source + "/* another */")
    ground.deploy(old, kernel)
    with pytest.raises(StepRefusedError) as refused:
        ground.deploy(drivers.image(kernel, {name: newer}, spec(name, unload="never")), kernel)
    assert refused.value.what == f"node {node.name}: another build of {name} is loaded, and it cannot be unloaded"
    assert any(f"is back at {old}" in line for line in refused.value.details)
    assert ground.state(node.name, name) == "Live"


def test_a_module_of_the_kernels_own_is_not_removed_unasked(
    ground: Ground, drivers: Drivers, kernel: Kernel, node: Node
) -> None:
    kubectl = ground.cluster.kubectl
    keeps = drivers.image(kernel, {ONE: drivers.module(kernel, ONE, GOOD)}, spec(ONE))
    results = ground.deploy(keeps, kernel)
    kubectl("-n", ground.namespace, "exec", results["workload"], "--", "/usr/sbin/modprobe", "-d", "/", "dummy")
    ours = drivers.image(
        kernel, {"dummy": drivers.module(kernel, "dummy", (SOURCES / "dummy.c").read_text())},
        {"name": "dep-other", "modules": ["dummy"]},
    )  # fmt: skip
    try:
        with pytest.raises(StepRefusedError, match="dummy is loaded, and is the kernel's own module"):
            ground.deploy(ours, kernel)
    finally:
        kubectl(
            "-n", ground.namespace, "exec", results["workload"], "--", "/usr/sbin/modprobe", "-r", "-d", "/", "dummy"
        )


@pytest.mark.parametrize("place", ["opt", "usr"])
def test_an_image_that_others_made_needs_a_shell_and_modprobe(
    ground: Ground, drivers: Drivers, kernel: Kernel, node: Node, place: str
) -> None:
    programs = {"usr/bin/dash", "usr/bin/sh", "usr/bin/kmod", "usr/sbin/modprobe"}
    base = drivers.base(lambda path: path in programs or not path.startswith(("usr/bin/", "usr/sbin/")))
    sources = {name: (SOURCES / f"{name}.c").read_text() for name in ("provider", "consumer", "in_tree_user")}
    image = drivers.image(kernel, drivers.modules(kernel, sources), None, base=[base], place=place)
    results = ground.deploy(image, kernel)
    assert [ground.state(node.name, name) for name in sources] == ["Live"] * 3
    ground.cluster.kubectl("-n", ground.namespace, "delete", results["workload"], "--cascade=foreground", "--wait")
    assert [ground.state(node.name, name) for name in sources] == [""] * 3


def test_a_registry_that_is_gone_is_waited_for(ground: Ground, kernel: Kernel, image: ImageRef, faults: Faults) -> None:
    rollout = replace(ground.rollout(), deadline=time.monotonic() + 180)
    with faults.without("registry"):
        workload = rollout.apply(deployment(kernel, image))
        ground.cluster.wait("the pull to fail", lambda: _pull_fails(ground))
    assert [str(one) for one in rollout.wait(workload)] == ["loaded"]


def _pull_fails(ground: Ground) -> bool:
    reasons = [
        (one.get("state") or {}).get("waiting", {}).get("reason", "")
        for pod in ground.pods()
        for one in pod["status"].get("containerStatuses", [])
    ]
    return any(reason in ("ErrImagePull", "ImagePullBackOff") for reason in reasons)


def test_an_api_server_that_is_gone_for_twenty_seconds(
    ground: Ground, kernel: Kernel, image: ImageRef, node: Node, faults: Faults
) -> None:
    rollout = replace(ground.rollout(), deadline=time.monotonic() + 180)
    workload = rollout.apply(deployment(kernel, image))
    found: list[str] = []
    waiting = threading.Thread(target=lambda: found.extend(str(one) for one in rollout.wait(workload)))
    with faults.without("apiserver"):
        waiting.start()
        waiting.join(20)
    waiting.join(180)
    assert found == ["loaded"]
