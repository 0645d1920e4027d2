"""smoke-test on real nodes: what is loaded there is what was built, and whatever else it is has its word."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from tests.e2e.cluster.faults import Faults
from tests.e2e.cluster.target import Node
from tests.fixtures.cli import Cli, Said
from tests.fixtures.drivers import Drivers, Ground
from tests.fixtures.images import layer, push_image, symlink
from tests.fixtures.modules import SOURCES

GOOD = (SOURCES / "good.c").read_text()
OTHER = GOOD.replace('MODULE_VERSION("1.0")', 'MODULE_VERSION("2.0")')
WARNS = (SOURCES / "warns.c").read_text()
INSPECTED = ("sh", "dash", "cat", "busybox", "modprobe", "kmod")
"""Programs of an image that somebody else made: a shell, cat, and what loads modules."""


@dataclass(frozen=True)
class Site:
    """Our commands on the drivers of one namespace."""

    ground: Ground
    drivers: Drivers
    cli: Cli

    def __call__(self, *words: str | Path) -> Said:
        """Run a command of ours."""
        target = ("--target-namespace", self.ground.namespace)
        return self.cli(*words, *target, env=self.ground.cluster.environ, timeout=600)

    def deploy(self, kernel: Kernel, name: str, source: str, **spec: object) -> ImageRef:
        """Make a driver of one module, and roll it out."""
        modules = {name: self.drivers.module(kernel, name, source)}
        image = self.drivers.image(kernel, modules, {"name": name.replace("_", "-"), "modules": [name], **spec})
        self.ground.deploy(image, kernel, rollout_timeout=300)
        return image

    def test(self, target: str, *words: str) -> tuple[Said, dict[str, str]]:
        """Run the smoke test; return what was said, and the verdicts of all nodes with their reasons."""
        said = self("smoke-test", target, "-o", "json", "--insecure-registry", self.ground.registry.host, *words)
        found = json.loads(said.out)[0]["nodes"] if said.out else {}
        return said, {
            node: f"{one['verdict']}: {one['reason']}" if one["reason"] else one["verdict"]
            for node, one in found.items()
        }

    def on(self, node: str, *argv: str, given: bytes = b"") -> str:
        """Run a program in the driver's pod on a node."""
        kubectl, place = self.ground.cluster.kubectl, ("-n", self.ground.namespace)
        (name,) = (one["metadata"]["name"] for one in self.ground.pods() if one["spec"].get("nodeName") == node)
        done = subprocess.run(
            [kubectl.program, "--kubeconfig", kubectl.kubeconfig, *place, "exec", "-i", name, "--", *argv],
            input=given, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def insert(self, node: str, file: bytes) -> None:
        """Load a module file into a node's kernel, by hand."""
        self.on(node, "sh", "-c", "cat >/run/dtkpipe/other.ko && /usr/sbin/insmod /run/dtkpipe/other.ko", given=file)


@pytest.fixture
def site(ground: Ground, drivers: Drivers, cli: Cli) -> Site:
    """A namespace for drivers."""
    return Site(ground, drivers, cli)


@pytest.fixture
def node(workers: tuple[Node, ...]) -> str:
    """The node that most tests are about."""
    return workers[0].name


@pytest.fixture
def kernel(workers: tuple[Node, ...]) -> Kernel:
    """Its kernel."""
    return Kernel.parse(workers[0].kernel)


def bare(file: bytes, folder: Path) -> bytes:
    """A module without its debug information."""
    path = folder / "bare.ko"
    path.write_bytes(file)
    subprocess.run(["strip", "-g", path], check=True)
    return path.read_bytes()


@pytest.mark.core
def test_what_is_on_a_node_is_told_from_what_should_be_there(
    site: Site, node: str, kernel: Kernel, workers: tuple[Node, ...], tmp_path: Path
) -> None:
    name = "smoke_one"
    asked = {"name": name, "parameters": ["answer=0x10", "words=hello"]}
    image = site.deploy(kernel, name, GOOD, modules=[asked], checks=[{"run": ["grep", "-q", name, "/proc/modules"]}])
    said, nodes = site.test("smoke-one")
    assert (said.code, nodes[node]) == (0, "healthy"), said.err
    for other in workers[1:]:
        assert nodes[other.name] == f"other-kernel: runs kernel {other.kernel}"
    assert "1/1" in site("status", "smoke-one").out

    site.on(node, "/usr/sbin/rmmod", name)
    site.on(node, "/usr/sbin/modprobe", "-d", "/opt", name, "answer=3", "words=hello")
    said, nodes = site.test("smoke-one")
    assert (said.code, nodes[node]) == (10, f"wrong-parameters: {name} has answer=3, asked was answer=0x10")
    assert said.err.rstrip().splitlines()[-3].startswith(f"error: node {node}: wrong-parameters: ")

    site.on(node, "/usr/sbin/rmmod", name)
    site.insert(node, bare(site.drivers.module(kernel, name, OTHER), tmp_path))
    said, nodes = site.test(str(image))
    assert said.code == 10
    assert nodes[node].startswith(f"wrong-build: {name} has srcversion ")
    assert "0/1" in site("status", "smoke-one").out
    assert "wrong-build" in site("status", "-o", "wide").out

    site.on(node, "/usr/sbin/rmmod", name)
    said, nodes = site.test("smoke-one")
    assert (said.code, nodes[node]) == (10, f"not-loaded: {name} is not in /proc/modules")


def test_the_kernels_own_module_of_the_same_name_is_found(site: Site, node: str, kernel: Kernel) -> None:
    site.deploy(kernel, "dummy", GOOD, inTreeModulesToRemove=["dummy"])
    said, nodes = site.test("dummy")
    assert (said.code, nodes[node]) == (0, "healthy"), said.err
    site.on(node, "/usr/sbin/rmmod", "dummy")
    site.on(node, "/usr/sbin/modprobe", "dummy")
    said, nodes = site.test("dummy")
    assert (said.code, nodes[node]) == (10, "in-tree: dummy is the kernel's own: it does not count as out of tree")


def test_a_warning_since_the_module_was_loaded_is_found(site: Site, node: str, kernel: Kernel, tmp_path: Path) -> None:
    site.deploy(kernel, "smoke_log", GOOD)
    site.insert(node, bare(site.drivers.module(kernel, "smoke_warns", WARNS), tmp_path))
    site.on(node, "/usr/sbin/rmmod", "smoke_warns")
    said, nodes = site.test("smoke-log")
    assert said.code == 10
    assert nodes[node].startswith("kernel-log: WARNING: CPU: ")
    assert "smoke_warns" in said.err


def test_a_check_that_fails_on_a_node_fails_the_test_and_the_image_before_comes_back(
    site: Site, node: str, kernel: Kernel
) -> None:
    first = site.deploy(kernel, "smoke_check", GOOD)
    site.deploy(kernel, "smoke_check", OTHER, checks=[{"run": ["test", "-e", "/dev/nothing"]}])
    said, nodes = site.test("smoke-check")
    why = "check-failed: `test -e /dev/nothing` failed: exit code 1"
    assert (said.code, nodes[node]) == (10, why)
    assert f"error: node {node}: {why}" in said.err
    back = site("rollback", "smoke-check")
    assert back.code == 0, back.err
    said, nodes = site.test(str(first))
    assert (said.code, nodes[node]) == (0, "healthy"), said.err


def test_checks_that_hang_or_are_not_there_are_told_apart(site: Site, node: str, kernel: Kernel) -> None:
    site.deploy(kernel, "smoke_none", GOOD, checks=[{"run": ["no-such-program"]}])
    said, nodes = site.test("smoke-none")
    assert said.code == 10
    assert nodes[node].startswith("check-failed: `no-such-program` failed: there is no such command")
    site.deploy(kernel, "smoke_none", GOOD, checks=[{"run": ["sleep", "60"], "timeout": "1s"}])
    said, nodes = site.test("smoke-none")
    assert (said.code, nodes[node]) == (10, "check-failed: `sleep 60` failed: not done within 1 s")


def test_a_node_without_power_is_reported_and_tested_when_it_is_back(
    site: Site, workers: tuple[Node, ...], faults: Faults
) -> None:
    node, kernel = workers[1].name, Kernel.parse(workers[1].kernel)
    site.deploy(kernel, "smoke_off", GOOD)
    faults.power_off(node)
    said, nodes = site.test("smoke-off")
    assert said.code == 10
    assert nodes[node].startswith("node-not-ready: ")
    assert "error: no node could be tested" in said.err
    faults.power_on(node)
    said, nodes = site.test("smoke-off", "--ready-within", "180")
    assert (said.code, nodes[node]) == (0, "healthy"), said.err


def test_an_image_made_elsewhere_is_tested_with_a_shell_and_cat(site: Site, node: str, kernel: Kernel) -> None:
    name = "smoke_else"
    base = site.drivers.base(
        lambda path: "/lib" in f"/{path}" or path.rpartition("/")[2] in INSPECTED or "/" not in path.strip("/")
    )
    image = site.drivers.image(kernel, {name: site.drivers.module(kernel, name, GOOD)}, base=[base])
    said = site("deploy", str(image), "--insecure-registry", site.ground.registry.host)
    assert said.code == 0, said.err
    assert f"{image} has no label dtkpipe.kernel; it holds modules for {kernel}" in said.err
    said, nodes = site.test(str(image))
    assert (said.code, nodes[node]) == (0, "healthy"), said.err


def test_what_is_not_there_is_said(site: Site) -> None:
    registry = site.ground.registry
    empty = push_image(registry.client, registry.repo("smoke/empty"), [layer(symlink("bin/sh", "busybox"))])
    for command in ("deploy", "smoke-test"):
        said = site(command, str(empty), "--insecure-registry", registry.host)
        assert said.code == 6
        assert f"error: {empty} is no driver image: it has no modules" in said.err
    said = site("rollback", "nothing")
    assert said.code == 5
    assert said.err.startswith(f"error: there is no driver `nothing` in namespace {site.ground.namespace}")
    assert json.loads(site("status", "-o", "json").out) == []


def test_a_node_whose_pod_cannot_be_made_has_the_cause(site: Site, node: str, kernel: Kernel) -> None:
    site.deploy(kernel, "smoke_pod", GOOD)
    kubectl, place = site.ground.cluster.kubectl, ("-n", site.ground.namespace)
    kubectl(*place, "create", "quota", "none", "--hard=pods=0")
    kubectl(*place, "delete", "pods", "--all")
    said, nodes = site.test("smoke-pod", "--ready-within", "3")
    assert said.code == 10
    assert nodes[node].startswith("pod-not-ready: ")
