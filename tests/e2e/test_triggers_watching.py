"""`dtkpipe trigger` on a real cluster, both engines: on releases of an update graph, and on kernels of nodes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from dtkpipe.app.clusters import ENGINES
from dtkpipe.engines.rights import SEEN
from dtkpipe.engines.schedules import SCHEDULE
from dtkpipe.values.image import ImageRef
from tests.e2e.cells import Cells, cells
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster
from tests.e2e.cluster.waiting import NotYet
from tests.fixtures.cli import Said
from tests.fixtures.graph import UpdateGraph, update_graph
from tests.fixtures.matrix import row, write_lock
from tests.fixtures.registry import LoopbackRegistry

_SECONDS = 240
"""In which a trigger of every minute has fired, and its planner has ended."""
KERNELS = tuple(f"5.14.0-427.{number}.1.el9_4.x86_64" for number in range(2))
"""Those of 4.16.0 and 4.16.1."""


def digest(release: str) -> str:
    return "sha256:" + hashlib.sha256(release.encode()).hexdigest()


@dataclass(frozen=True)
class Watched:
    """A namespace with one engine: so the accounts in it have the rights of that one alone."""

    cells: Cells
    engine: str
    runner: ImageRef
    seen: set[str] = field(default_factory=set)
    """Every planner that was there at some time."""

    def trigger(self, verb: str, *words: str, after: tuple[str, ...] = ()) -> Said:
        return self.cells.ask("trigger", verb, *words, after=after)

    def create(self, name: str, on: str, *words: str, more: tuple[str, ...] = ()) -> None:
        after = (*self.cells.matrix(name), *more, "--pipeline", "cell.py")
        own = (name, "--on", on, "--engine", self.engine, *words, "--runner-image", str(self.runner))
        made = self.trigger("create", *own, after=after)
        assert made.code == 0, made.err

    def listed(self, name: str) -> dict[str, Any]:
        (one,) = (one for one in json.loads(self.trigger("list", "-o", "json").out) if one["name"] == name)
        return dict(one)

    def planners(self, name: str) -> set[str]:
        kinds = "jobs,workflows" if self.engine == "argo" else "jobs"
        found = self.kubectl_json("get", kinds, "-l", f"{SCHEDULE}={name}")["items"]
        self.seen.update(str(one["metadata"]["name"]) for one in found)
        return {one for one in self.seen if one.startswith(f"{name}-")}

    def kubectl_json(self, *words: str) -> Any:
        return self.cells.cluster.kubectl.json("-n", self.cells.namespace, *words)

    def runs(self, name: str) -> int:
        return len(self.cells.runs(self.engine, name))

    def ended(self, name: str, planners: int, outcome: str) -> None:
        """Wait until so many planners were started, and the last of them has ended in that way."""

        def look() -> bool:
            number, last = len(self.planners(name)), str(self.listed(name)["outcome"])
            if number < planners or last != outcome:
                raise NotYet(f"{number} planners, {last or 'none'}")
            return True

        self.cells.cluster.wait(f"planner {planners} of {name}: {outcome}", look, _SECONDS)

    def log(self, name: str) -> str:
        """What the pods of a trigger said, as far as they are there."""
        words = ("logs", "-l", f"{SCHEDULE}={name}", "--all-containers", "--tail=200", "--prefix")
        try:
            return self.cells.cluster.kubectl("-n", self.cells.namespace, *words)
        except RuntimeError as error:  # one of them has not started yet
            raise NotYet(str(error)) from error

    def left(self, name: str) -> list[str]:
        """What is left of a trigger but what its engine clears away after it."""
        kinds = ["configmaps", "deployments", "cronjobs"]
        kinds += ["cronworkflows", "workflowtemplates"] if self.engine == "argo" else []
        found = self.kubectl_json("get", ",".join(kinds), "-l", f"{SCHEDULE}={name}")["items"]
        return [f"{one['kind']}/{one['metadata']['name']}" for one in found]


@pytest.fixture(scope="module", params=ENGINES)
def watched(
    request: pytest.FixtureRequest, cluster: Cluster, registry: LoopbackRegistry, git_server: GitServer,
    runner_image: ImageRef, tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:  # fmt: skip
    engine = str(request.param)
    folder = tmp_path_factory.mktemp(f"watching-{engine}")
    with cells(cluster, registry, git_server, runner_image, folder, (engine,)) as made:
        rows = [
            row(release, kernel.removesuffix(".x86_64"), payload=digest(release))
            for release, kernel in zip(("4.16.0", "4.16.1"), KERNELS, strict=True)
        ]
        write_lock(made.cli.here / "lock", rows)
        git_server.secret(made.namespace)
        yield Watched(made, engine, runner_image)


@pytest.fixture
def graph(cluster: Cluster) -> Iterator[UpdateGraph]:
    with update_graph(cluster.address) as found:
        found.lists("stable-4.16", {"4.16.0": digest("4.16.0")})
        yield found


def test_a_new_release_is_planned_once_and_none_is_not(watched: Watched, graph: UpdateGraph) -> None:
    name = f"releases-{watched.engine}"
    watched.cells.modules(name, "good")
    more = ("--releases", "4.16,stable", "--graph", graph.url, "--insecure-registry", graph.host)
    watched.create(name, "release", "--cron", "* * * * *", more=more)
    try:
        wait = watched.cells.cluster.wait
        watched.ended(name, 1, "succeeded")
        assert watched.runs(name) == 1, "what was there before is planned once"
        before = len(graph.asked)
        wait("it looks twice more", lambda: len(graph.asked) >= before + 2, _SECONDS)
        wait("it says so", lambda: "no new release: 1 are listed" in watched.log(name), 60)
        assert watched.runs(name) == 1
        kept = watched.kubectl_json("get", "configmap", SEEN)["data"]
        assert list(kept) == [name]

        graph.lists("stable-4.16", {"4.16.1": digest("4.16.1")})
        wait("the new one is built", lambda: watched.runs(name) == 2, _SECONDS)
        wait(
            "it is kept that it was seen",
            lambda: watched.kubectl_json("get", "configmap", SEEN)["data"][name] != kept[name], _SECONDS,
        )  # fmt: skip
        wait("nothing is new again", lambda: "no new release: 2 are listed" in watched.log(name), _SECONDS)
        seen = watched.listed(name)
        assert (seen["on"], seen["cron"], seen["repository"]) == ("release", "* * * * *", "")

        tested = watched.trigger("test", name)
        assert (tested.code, "plans at once" in tested.err) == (0, True), tested.err
        wait("it is planned by hand", lambda: "asked for by hand: planned at once" in watched.log(name), _SECONDS)
        assert watched.runs(name) == 2
    finally:
        assert watched.trigger("delete", name).code == 0
    assert watched.left(name) == []
    assert watched.kubectl_json("get", "configmaps", f"--field-selector=metadata.name={SEEN}")["items"] == []
    assert watched.runs(name) == 2, "the cells' runs stay"


@dataclass(frozen=True)
class StrangeNode:
    """A node that is no machine: it says what the test says, and takes no pods."""

    cluster: Cluster
    name: str

    def runs(self, kernel: str) -> None:
        """Say that it runs a kernel now."""
        info = {"nodeInfo": {"kernelVersion": kernel, "architecture": "amd64", "operatingSystem": "linux"}}
        if self._is_there():
            patch = json.dumps({"status": info})
            self.cluster.kubectl("patch", "node", self.name, "--subresource=status", "--type=merge", "-p", patch)
            return
        taint = {"key": "dtkpipe.io/test", "effect": "NoExecute"}
        node = {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name},
            "spec": {"unschedulable": True, "taints": [taint]}, "status": info,
        }  # fmt: skip
        self.cluster.kubectl("create", "-f", "-", stdin=json.dumps(node))

    def goes(self) -> None:
        self.cluster.kubectl("delete", "node", self.name, "--ignore-not-found")

    def _is_there(self) -> bool:
        return any(one.name == self.name for one in self.cluster.nodes)


@pytest.fixture
def strange_node(cluster: Cluster) -> Iterator[StrangeNode]:
    node = StrangeNode(cluster, f"strange-{secrets.token_hex(3)}")
    with contextlib.ExitStack() as stack:
        stack.callback(node.goes)
        yield node


def test_a_new_kernel_is_planned_once_and_alone(watched: Watched, strange_node: StrangeNode) -> None:
    name = f"kernels-{watched.engine}"
    watched.cells.modules(name, "good")
    watched.create(name, "node-kernel", "--debounce", "3")
    try:
        wait = watched.cells.cluster.wait
        wait("its watcher runs", lambda: watched.listed(name)["watched"], _SECONDS)
        watched.ended(name, 1, "failed: nothing selected")  # no real node has a kernel of the releases
        strange_node.runs(KERNELS[0])
        watched.ended(name, 2, "succeeded")
        assert watched.runs(name) == 1, "of two kernels the one that is new"
        runs = watched.kubectl_json("get", ENGINES[watched.engine].runs.words)["items"]
        (run,) = (json.dumps(one) for one in runs if f"/{name}/" in str(one["spec"]))
        assert (KERNELS[0] in run, KERNELS[1] in run) == (True, False)

        for kernel in ("$(reboot)", KERNELS[0], "$(reboot)", KERNELS[0]):
            strange_node.runs(kernel)
        wait("it says what is no kernel", lambda: "runs '$(reboot)', which is no kernel" in watched.log(name), 60)
        strange_node.goes()
        strange_node.runs(KERNELS[1])
        watched.ended(name, 3, "succeeded")
        assert (len(watched.planners(name)), watched.runs(name)) == (3, 2)
        assert watched.log(name).count("which is no kernel release") == 1

        tested = watched.trigger("test", name)
        assert (tested.code, KERNELS[1] in tested.err) == (0, True), tested.err
        watched.ended(name, 4, "succeeded")
        assert watched.runs(name) == 2, "it is built already"
    finally:
        assert watched.trigger("delete", name).code == 0
    assert watched.left(name) == []
    assert watched.runs(name) == 2, "the cells' runs stay"
