"""Fixtures of the tests on a real cluster: ours (tests/e2e/cluster), or the one that KUBECONFIG names.

What only our own cluster can do is not run on another one, and the end of the output says so.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from dtkpipe.clients.registry import Registry
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.image import ImageRef
from tests.e2e.cluster import bringup, git, images, layout, target
from tests.e2e.cluster.faults import Faults
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.processes import Box
from tests.e2e.cluster.target import Cluster, Node
from tests.e2e.runner import runner
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.toolkit import MakeToolkit, Toolkit

_OWN_ONLY = ("faults", "workers", "taken_down", "bells", "strange_node")
"""Fixtures that only our own cluster has."""
_BREAKS = ("faults", "taken_down")
"""Fixtures of tests that nothing else may run beside."""
_NODES = "tests/e2e/nodes/"
_left_out = pytest.StashKey[list[str]]()
_was_up = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Find the cluster as it is, before any test."""
    config.stash[_was_up] = bringup.is_up(Box(layout.run()))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Give a file's tests to one worker; and those of `nodes/`, since only one module of a name fits into a kernel."""
    return _Scheduling(config, log)


class _Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _NODES if file.startswith(_NODES) else file


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say which tests get in each other's way, and leave out what another cluster cannot do."""
    items.sort(key=lambda one: one.path.name == "test_teardown.py")
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.nodeid.startswith(_NODES):
            item.add_marker(pytest.mark.nodes)
        if fixtures & set(_BREAKS):
            item.add_marker(pytest.mark.breaks)
    if target.foreign() is None:
        return
    left_out = [one for one in items if set(_OWN_ONLY) & set(getattr(one, "fixturenames", ()))]
    config.stash[_left_out] = [one.nodeid for one in left_out]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [one for one in items if one not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say loudly what was left out."""
    if left_out := config.stash.get(_left_out, []):
        terminalreporter.section("NOT RUN on this cluster", sep="!", red=True, bold=True)
        terminalreporter.line(f"{len(left_out)} tests break programs, boot machines, load modules, install engines:")
        for name in left_out:
            terminalreporter.line(f"  {name}")
        terminalreporter.line("They run on the tests' own cluster: `make e2e` as root, without KUBECONFIG.")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave the cluster as it was found: down, or up."""
    if hasattr(session.config, "workerinput") or target.foreign() is not None:
        return
    if session.config.stash[_was_up]:
        bringup.up(print)
    else:
        bringup.down(print)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A cluster that is up, with `cluster.busybox` in its registry."""
    if named := target.foreign():
        found = target.other(named)
        images.push(images.busybox(), Registry(RegistryAccess(insecure=(found.registry,))), found.registry)
        return found
    bringup.up(print)
    return target.ours()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace with Pod Security `baseline`; it is removed afterwards, nobody waits for that."""
    name = f"t-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=baseline")
    cluster.kubectl("-n", name, "wait", "--for=create", "serviceaccount/default", "--timeout=60s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="session")
def registry(cluster: Cluster) -> LoopbackRegistry:
    """The cluster's registry, in the place of the one of tests/fixtures: use repositories of your own."""
    access = RegistryAccess(insecure=(cluster.registry,))
    run = layout.run()
    return LoopbackRegistry(cluster.registry, run.registry, access, run.log("registry"))


@pytest.fixture(scope="session")
def toolkit_std(make_toolkit: MakeToolkit) -> Toolkit:
    """Debian 12, standard kernel, x86_64: that of worker2. `toolkit_cloud` is for the kernel of worker1."""
    return make_toolkit(release="debian-12", variant="std", arch="x86_64")


@pytest.fixture(scope="session")
def git_server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    """A git server that stands for all https:// ones."""
    with git.running(cluster, tmp_path_factory.mktemp("git")) as server:
        yield server


@pytest.fixture(scope="session")
def runner_image(registry: LoopbackRegistry) -> ImageRef:
    """The runner image of this checkout, in the cluster's registry, by digest."""
    return runner(registry.repo("runner"))


@pytest.fixture
def workers(cluster: Cluster) -> tuple[Node, ...]:
    """The nodes with kernels of their own; all of them up."""
    assert cluster.own
    return cluster.workers


@pytest.fixture
def faults(cluster: Cluster) -> Iterator[Faults]:
    """Breaks our own cluster. What a test leaves broken is repaired after it."""
    assert cluster.own
    breaks = Faults()
    with contextlib.ExitStack() as stack:
        stack.callback(breaks.repair)
        yield breaks
