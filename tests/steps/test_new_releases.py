"""The planner of a trigger on releases: asked of a real registry with a synthetic OpenShift, and of an update graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dtkpipe.app.clusters import Place
from dtkpipe.app.matrix.outcome import ExitCode
from dtkpipe.app.matrix.plan import Request
from dtkpipe.app.new_releases import Question, digest, knows, listed, look
from dtkpipe.clients.cluster import Cluster
from dtkpipe.engines.rights import SEEN
from dtkpipe.errors import NothingSelectedError, UnreachableError
from dtkpipe.releases.lock import Lock
from dtkpipe.values.arch import AARCH64, X86_64
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.mirrors import parse_mirrors
from tests.fixtures.api import Answer, FakeApi, fake_api, refusal
from tests.fixtures.cli import Cli
from tests.fixtures.faults import Exchange, on
from tests.fixtures.graph import UpdateGraph, update_graph
from tests.fixtures.matrix import Shelf
from tests.fixtures.openshift import KERNEL, Site, known

NOTHING = refusal(404, "NotFound", "there is none")


@pytest.fixture
def graph() -> Iterator[UpdateGraph]:
    with update_graph() as found:
        yield found


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as found:
        yield found


@dataclass
class Asking:
    """A trigger, and what its planner did."""

    site: Site
    graph: UpdateGraph
    api: FakeApi
    place: Place
    code: ExitCode = field(default_factory=lambda: ExitCode(0))
    planned: list[list[str]] = field(default_factory=list)
    """The releases of the lock that each planning had."""
    said: list[str] = field(default_factory=list)
    seen: str = ""

    def question(self, releases: str = "4.71") -> Question:
        access = self.site.proxy.access(mirrors=parse_mirrors(self.site.openshift.mirrors()))
        request = Request(
            modules=["x"], releases=releases, arches=[X86_64, AARCH64], variants=["std"], signer="unsigned",
            lock=self.site.folder, graph=self.graph.url,
        )  # fmt: skip
        spoken = replace(access, insecure=(*access.insecure, self.graph.host))
        return Question(request=request, access=spoken, words=["--releases", releases])

    def look(self, *, at_once: bool = False) -> int:
        def plan(folder: Path) -> ExitCode:
            self.planned.append([str(row.version) for row in Lock(folder)])
            return self.code

        self.api.asked.clear()
        self.api.answers.clear()
        kept = Answer(200, {"data": {"mine": self.seen}}) if self.seen else NOTHING
        self.api.give(*([] if at_once else [kept]), Answer(200, {}))
        code = look(self.place, "mine", self.question(), plan, self.said.append, at_once=at_once)
        for one in self.api.asked:
            if one.method == "PATCH":
                assert one.path.endswith(f"/configmaps/{SEEN}")
                self.seen = one.body["data"]["mine"]
        return code


@pytest.fixture
def asking(site: Site, graph: UpdateGraph, api: FakeApi, tmp_path: Path) -> Asking:
    site.know(known("4.71.0", KERNEL))
    place = Place(Cluster(api.kubeconfig(tmp_path / "kubeconfig")), "here")
    return Asking(site, graph, api, place)


def test_a_new_release_is_planned_once_with_what_registries_know_of_it(asking: Asking) -> None:
    asking.graph.lists("stable-4.71", {"4.71.1": asking.site.openshift.standard("4.71.1").digest})
    assert asking.look() == 0
    assert asking.planned == [["4.71.0", "4.71.1"]]
    before = Lock(asking.site.folder)
    assert [str(row.version) for row in before] == ["4.71.0"], "the lock itself is as it was"
    asking.site.proxy.requests.clear()
    asking.graph.asked.clear()
    assert asking.look() == 0
    assert len(asking.planned) == 1
    assert asking.said[-1].startswith("no new release: 1 are listed")
    assert asking.site.proxy.requests == [], "nothing else was asked"
    assert asking.graph.asked == ["stable-4.71 amd64", "stable-4.71 arm64"], "one request for a channel and arch"
    asking.graph.lists("stable-4.71", {"4.71.2": asking.site.openshift.standard("4.71.2").digest})
    asking.graph.lists("stable-4.71", {"4.70.9": "sha256:" + "0" * 64})
    asking.look()
    assert asking.planned[1:] == [["4.71.0", "4.71.1", "4.71.2"]]


def test_red_cells_are_no_reason_to_plan_again(asking: Asking) -> None:
    asking.graph.lists("stable-4.71", {"4.71.1": asking.site.openshift.standard("4.71.1").digest})
    asking.code = ExitCode(10)
    assert (asking.look(), asking.look(), len(asking.planned)) == (10, 0, 1)


@pytest.mark.parametrize(
    "code", [ExitCode(12, unknown=True), ExitCode(10, unknown=True), ExitCode(130)], ids=["unknown", "red", "ended"]
)
def test_what_was_not_known_is_planned_again(asking: Asking, code: ExitCode) -> None:
    asking.graph.lists("stable-4.71", {"4.71.1": asking.site.openshift.standard("4.71.1").digest})
    asking.code = code
    assert (asking.look(), asking.look(), len(asking.planned)) == (code, code, 2)
    asking.code = ExitCode(0)
    assert (asking.look(), asking.look(), len(asking.planned)) == (0, 0, 3)


def test_a_release_that_cannot_be_read_is_read_again(asking: Asking) -> None:
    asking.graph.lists("stable-4.71", {"4.71.1": asking.site.openshift.standard("4.71.1").digest})
    asking.site.proxy.faults.append(on("GET", "manifests", Exchange.drop))
    assert asking.look() == UnreachableError.exit_code
    assert asking.planned == [["4.71.0"]], "the others are planned meanwhile"
    asking.site.proxy.faults.clear()
    assert asking.look() == 0
    assert asking.planned[1:] == [["4.71.0", "4.71.1"]]


def test_by_hand_it_plans_at_once(asking: Asking) -> None:
    asking.graph.lists("stable-4.71", {"4.71.1": asking.site.openshift.standard("4.71.1").digest})
    asking.look()
    assert (asking.look(at_once=True), len(asking.planned)) == (0, 2)
    assert asking.look() == 0
    assert len(asking.planned) == 2


def test_a_graph_that_fails_plans_nothing(asking: Asking) -> None:
    asking.graph.status = 503
    with pytest.raises(UnreachableError):
        asking.look()
    asking.graph.status = 200
    with pytest.raises(NothingSelectedError):
        asking.look()
    assert (asking.planned, asking.seen) == ([], "")


def test_a_kernel_that_is_newer_than_the_lock_is_looked_for(asking: Asking, tmp_path: Path) -> None:
    newer, question = Kernel("5.14.0-570.1.1.el9_6.x86_64"), asking.question()
    image = asking.site.openshift.standard("4.71.1", str(newer))
    asking.graph.lists("stable-4.71", {"4.71.1": image.digest})
    (folder := tmp_path / "newer").mkdir()
    for known_or_not_red_hats in (Kernel(KERNEL), Kernel("6.1.0-53-amd64")):
        assert not knows(question, [known_or_not_red_hats], folder, asking.said.append)
    assert asking.graph.asked == []
    assert knows(question, [Kernel(KERNEL), newer], folder, asking.said.append)
    assert [str(one.version) for one in Lock(folder).with_kernel(newer)] == ["4.71.1"]
    asking.graph.status = 503
    assert not knows(question, [newer], folder, asking.said.append)
    assert asking.said[-1].endswith("planned with what is known")


def test_what_is_admitted_counts_and_nothing_else(asking: Asking) -> None:
    asking.graph.lists("stable-4.71", {"4.71.1": "sha256:" + "1" * 64, "4.71.2-rc.1": "sha256:" + "2" * 64})
    asking.graph.lists("fast-4.72", {"4.72.0": "sha256:" + "3" * 64})
    found = listed(asking.question("4.71,fast-4.72,4.71..4.72"), asking.said.append)
    assert [str(one.version) for one in found] == ["4.71.1", "4.72.0"]
    assert len(asking.graph.asked) == len(set(asking.graph.asked)), "each channel once, whoever means it"
    assert digest(["a"], found) != digest(["b"], found), "another matrix was never planned"
    assert digest(["a"], found) == digest(["a"], list(found))


def test_the_program_submits_with_the_lock_that_it_made(asking: Asking, cli: Cli, tmp_path: Path) -> None:
    """As the pod runs it: here no cell is for the new kernel, which ends before any run is made."""
    asking.graph.lists("stable-4.71", {"4.71.1": asking.site.openshift.standard("4.71.1").digest})
    (tmp_path / "mirrors.yaml").write_text(asking.site.openshift.mirrors())
    Shelf.at(cli.here).module("one", more="kernels: {min: '99'}\n")
    asking.api.give(NOTHING)
    said = cli(
        "trigger", "look", "mine", "-n", "here", "--", "--engine", "argo", "-n", "here", "--modules", "modules/*",
        "--releases", "4.71", "--arch", "x86_64", "--lock", str(asking.site.folder), "--push-to", "quay.io/org",
        "--graph", asking.graph.url, "--insecure-registry", asking.graph.host, "--insecure-registry",
        asking.site.proxy.host, "--registry-mirrors", str(tmp_path / "mirrors.yaml"),
        env={"KUBECONFIG": str(tmp_path / "kubeconfig")},
    )  # fmt: skip
    assert (said.code, "+ 4.71.1 x86_64" in said.err) == (9, True), said.err
    assert "no cell is left" in said.err
    assert [one.method for one in asking.api.asked] == ["GET"], "nothing was kept"
