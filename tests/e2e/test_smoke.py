"""smoke-test on real nodes: what is loaded there is what was built, and whatever else it is has its word."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dtkpipe.values.image import ImageRef
from tests.e2e.cluster.faults import Faults
from tests.e2e.cluster.target import Cluster, Node
from tests.fixtures.building import Build, Built
from tests.fixtures.cli import Cli, Said
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.toolkit import Toolkit

SOURCE = """\
#include <linux/module.h>
static int level = 1;
module_param(level, int, 0644);
static bool loud;
module_param(loud, bool, 0444);
static int __init start(void) { pr_info("%s\\n", WORDS); return 0; }
static void __exit stop(void) { }
module_init(start);
module_exit(stop);
MODULE_LICENSE("GPL");
MODULE_VERSION("1");
MODULE_DESCRIPTION("a driver");
"""
Make = Callable[..., Built]


@pytest.fixture(scope="module")
def make(build_module: Build, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Build a module: `make("name", words="what it says", toolkit=..., **keys of dtkpipe.yaml)`."""

    def build(name: str, words: str = "first", toolkit: Toolkit | None = None, **spec: object) -> Built:
        folder = tmp_path_factory.mktemp(name)
        (folder / "Makefile").write_text(f"obj-m := {name}.o\n")
        (folder / f"{name}.c").write_text(f'#define WORDS "{words}"\n{SOURCE}')
        document = json.dumps({"name": name.replace("_", "-"), "modules": [{"name": name}], **spec})
        more = {"toolkit": toolkit} if toolkit else {}
        return build_module(folder, spec=document, **more)

    return build


@dataclass(frozen=True)
class Drivers:
    """Drivers in a namespace of a test's own."""

    cli: Cli
    cluster: Cluster
    registry: LoopbackRegistry
    namespace: str

    def __call__(self, *words: str | Path) -> Said:
        """Run a command of ours."""
        return self.cli(*words, "--target-namespace", self.namespace, env=self.cluster.environ, timeout=600)

    def deploy(self, image: ImageRef) -> None:
        said = self("deploy", str(image), *self.insecure)
        assert said.code == 0, said.err

    def test(self, target: str, *words: str) -> tuple[Said, dict[str, str]]:
        """Run the smoke test; return what was said, and the verdicts of the workers with their reasons."""
        said = self("smoke-test", target, "-o", "json", *self.insecure, *words)
        found = json.loads(said.out)[0]["nodes"] if said.out else {}
        return said, {
            node: f"{one['verdict']}: {one['reason']}" if one["reason"] else one["verdict"]
            for node, one in found.items()
            if node != "node0"
        }

    def on(self, node: str, *argv: str, given: bytes = b"") -> str:
        """Run a program in the driver's pod on a node."""
        kubectl = self.cluster.kubectl
        pods = kubectl.json("-n", self.namespace, "get", "pods", "--field-selector", f"spec.nodeName={node}")["items"]
        (name,) = (pod["metadata"]["name"] for pod in pods)
        there = ("--kubeconfig", str(kubectl.kubeconfig), "-n", self.namespace)
        done = subprocess.run(
            [kubectl.program, *there, "exec", "-i", name, "--", *argv], input=given, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def replace(self, node: str, module: str, file: bytes) -> None:
        """Take a module out of a node's kernel, and put a file in its place."""
        self.on(node, "rmmod", module)
        self.on(node, "sh", "-c", "cat >/run/dtkpipe/other.ko && insmod /run/dtkpipe/other.ko", given=file)

    @property
    def insecure(self) -> tuple[str, ...]:
        return ("--insecure-registry", self.registry.host)


@pytest.fixture
def drivers(
    cluster: Cluster, namespace: str, registry: LoopbackRegistry, cli: Cli, workers: tuple[Node, ...]
) -> Iterator[Drivers]:
    """A namespace that drivers may be in, on a cluster whose nodes are labelled; the modules are gone afterwards."""
    assert workers
    kubectl = cluster.kubectl
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")
    kubectl("-n", namespace, "create", "serviceaccount", "dtkpipe-driver")
    said = cli("label-nodes", env=cluster.environ)
    assert said.code == 0, said.err
    yield Drivers(cli, cluster, registry, namespace)
    kubectl("-n", namespace, "delete", "daemonsets", "--all", "--cascade=foreground", "--timeout=120s")


def ko(built: Built) -> bytes:
    """The module's file in an image, without its debug information."""
    (file,) = (path for name, path in built.files().contents.items() if name.endswith(".ko"))
    bare = file.with_suffix(".bare")
    subprocess.run(["strip", "-g", "-o", bare, file], check=True)
    return bare.read_bytes()


def test_what_is_on_a_node_is_told_from_what_should_be_there(
    drivers: Drivers, make: Make, workers: tuple[Node, ...]
) -> None:
    cloud = workers[0].name
    checks = [{"run": ["grep", "-q", "^smoke_one ", "/proc/modules"]}]
    parameters = [{"name": "smoke_one", "parameters": ["level=0x10", "loud"]}]
    good = make("smoke_one", modules=parameters, checks=checks)
    drivers.deploy(good.image)
    said, nodes = drivers.test("smoke-one")
    assert said.code == 0, said.err
    for other in [one for one in workers if one.kernel != workers[0].kernel]:
        assert nodes.pop(other.name).startswith("other-kernel: runs kernel ")
    assert nodes == {cloud: "healthy"}

    drivers.on(cloud, "sh", "-c", "mount -o remount,rw /sys; echo 3 >/sys/module/smoke_one/parameters/level")
    said, nodes = drivers.test("smoke-one")
    assert (said.code, nodes[cloud]) == (10, "wrong-parameters: smoke_one has level=3, asked was level=0x10")
    assert f"node {cloud}: wrong-parameters" in said.err

    drivers.replace(cloud, "smoke_one", ko(make("smoke_one", "another")))
    said, nodes = drivers.test(str(good.image))
    assert said.code == 10
    assert nodes[cloud].startswith("wrong-build: smoke_one has srcversion ")
    table = drivers("status", "smoke-one", "-o", "wide").out
    assert "wrong-build" in table
    assert "0/1" in drivers("status", "smoke-one").out

    drivers.on(cloud, "rmmod", "smoke_one")
    said, nodes = drivers.test("smoke-one")
    assert (said.code, nodes[cloud]) == (10, "not-loaded: smoke_one is not in /proc/modules")


def test_the_kernels_own_module_of_the_same_name_is_found(
    drivers: Drivers, make: Make, workers: tuple[Node, ...]
) -> None:
    node = workers[0].name
    drivers.deploy(make("dummy", inTreeModulesToRemove=["dummy"]).image)
    said, nodes = drivers.test("dummy")
    assert (said.code, nodes[node]) == (0, "healthy"), said.err
    drivers.on(node, "rmmod", "dummy")
    drivers.on(node, "modprobe", "dummy")
    said, nodes = drivers.test("dummy")
    assert (said.code, nodes[node]) == (10, "in-tree: dummy is the kernel's own: it does not count as out of tree")


def test_a_warning_since_the_module_was_loaded_is_found(
    drivers: Drivers, make: Make, workers: tuple[Node, ...]
) -> None:
    node = workers[0].name
    drivers.deploy(make("smoke_log").image)
    warns = make("smoke_warns", 'x"); WARN(1, "on purpose')
    drivers.on(node, "sh", "-c", "cat >/run/dtkpipe/other.ko && insmod /run/dtkpipe/other.ko", given=ko(warns))
    drivers.on(node, "rmmod", "smoke_warns")
    said, nodes = drivers.test("smoke-log")
    assert said.code == 10
    assert nodes[node].startswith("kernel-log: WARNING: CPU: ")
    assert "smoke_warns" in said.err


def test_a_check_that_fails_on_a_node_fails_the_test_and_the_image_before_comes_back(
    drivers: Drivers, make: Make, workers: tuple[Node, ...]
) -> None:
    node = workers[0].name
    first = make("smoke_check")
    drivers.deploy(first.image)
    drivers.deploy(make("smoke_check", "second", checks=[{"run": ["test", "-e", "/dev/nothing"]}]).image)
    said, nodes = drivers.test("smoke-check")
    assert (said.code, nodes[node]) == (10, "check-failed: `test -e /dev/nothing` failed: exit code 1")
    assert f"error: node {node}: check-failed: `test -e /dev/nothing` failed: exit code 1" in said.err
    back = drivers("rollback", "smoke-check")
    assert back.code == 0, back.err
    said, nodes = drivers.test(str(first.image))
    assert (said.code, nodes[node]) == (0, "healthy"), said.err


def test_checks_that_hang_or_are_not_there_are_told_apart(
    drivers: Drivers, make: Make, workers: tuple[Node, ...]
) -> None:
    node = workers[0].name
    drivers.deploy(make("smoke_none", checks=[{"run": ["no-such-program"]}]).image)
    said, nodes = drivers.test("smoke-none")
    assert said.code == 10
    assert nodes[node].startswith("check-failed: `no-such-program` failed: there is no such command")
    drivers.deploy(make("smoke_none", checks=[{"run": ["sleep", "60"], "timeout": "1s"}]).image)
    said, nodes = drivers.test("smoke-none")
    assert (said.code, nodes[node]) == (10, "check-failed: `sleep 60` failed: not done within 1 s")


def test_a_node_without_power_is_reported_and_tested_when_it_is_back(
    drivers: Drivers, make: Make, workers: tuple[Node, ...], toolkit_std: Toolkit, faults: Faults
) -> None:
    node = workers[1].name
    built = make("smoke_off", toolkit=toolkit_std)
    drivers.deploy(built.image)
    faults.power_off(node)
    said, nodes = drivers.test("smoke-off")
    assert said.code == 10
    assert nodes[node].startswith("node-not-ready: ")
    assert "no node could be tested" in said.err
    faults.power_on(node)
    said, nodes = drivers.test("smoke-off", "--ready-within", "180")
    assert (said.code, nodes[node]) == (0, "healthy"), said.err


def test_an_image_made_elsewhere_says_what_it_lacks(
    drivers: Drivers, registry: LoopbackRegistry, small_base: ImageRef
) -> None:
    said = drivers("deploy", str(small_base), *drivers.insecure)
    assert said.code == 6
    assert "is no driver image: it has no modules" in said.err
    said = drivers("smoke-test", str(small_base), *drivers.insecure)
    assert said.code == 6
    said = drivers("rollback", "nothing")
    assert said.code == 5
    assert said.err.startswith(f"error: there is no driver `nothing` in namespace {drivers.namespace}")
    assert json.loads(drivers("status", "-o", "json").out) == []


def test_a_pod_that_is_not_ready_has_its_cause(drivers: Drivers, make: Make, workers: tuple[Node, ...]) -> None:
    node = workers[0].name
    drivers.deploy(make("smoke_pod").image)
    kubectl = drivers.cluster.kubectl
    (name,) = (one["metadata"]["name"] for one in kubectl.json("-n", drivers.namespace, "get", "ds")["items"])
    assert json.loads(drivers("status", "-o", "json").out)[0]["workload"] == f"daemonset/{name}"
    drivers.on(node, "rmmod", "smoke_pod")
    kubectl("-n", drivers.namespace, "create", "quota", "none", "--hard=pods=0")
    kubectl("-n", drivers.namespace, "delete", "pods", "--all")
    said, nodes = drivers.test("smoke-pod", "--ready-within", "5")
    assert said.code == 10
    assert nodes[node].startswith("pod-not-ready: ")
