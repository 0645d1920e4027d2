"""Triggers that nobody calls: on releases that are new in the update graph, and on kernels that are new on nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.app import bell, calls, node_kernels, schedules, triggers
from dtkpipe.app.clusters import Place
from dtkpipe.clients.cluster import Cluster
from dtkpipe.engines.rights import SEEN, WATCHER
from dtkpipe.errors import NotAllowedError, NothingSelectedError, UsageError
from dtkpipe.values.kernel import Kernel
from tests.fixtures.api import Answer, FakeApi, event, fake_api, refusal
from tests.fixtures.api import listed as items
from tests.fixtures.cli import Cli
from tests.fixtures.matrix import Shelf
from tests.fixtures.schedules import MATRIX, create, modules

OLD, NEW = "5.14.0-427.13.1.el9_4.x86_64", "5.14.0-503.11.1.el9_5.x86_64"
engines = pytest.mark.parametrize("engine", ["argo", "tekton"])


@pytest.fixture
def desk(cli: Cli) -> Cli:
    modules(cli, "one")
    return cli


def rendered(cli: Cli, on: str, engine: str, *words: str) -> dict[str, dict[str, Any]]:
    """The objects by their kind; of ConfigMaps the one with files."""
    said = create(cli, "trigger", "mine", "--on", on, "--engine", engine, *words, "--dry-run=client", "-o", "json")
    assert said.code == 0, said.err
    return {one["kind"]: one for one in json.loads(said.out)}


def planner(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The container of the planner. One that a watcher starts is a Job on each engine."""
    if job := objects.get("CronJob"):
        return dict(job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0])
    return dict(objects["WorkflowTemplate"]["spec"]["templates"][0]["container"])


@engines
def test_on_releases_it_fires_by_itself_and_asks_first(desk: Cli, engine: str) -> None:
    objects = rendered(desk, "release", engine)
    spec = objects["CronWorkflow" if engine == "argo" else "CronJob"]["spec"]
    assert "suspend" not in spec
    assert "*/15 * * * *" in (spec.get("schedule"), *spec.get("schedules", ()))
    assert (spec.get("timeZone") or spec.get("timezone")) == "UTC"
    container = planner(objects)
    assert container["args"][:6] == ["trigger", "look", "mine", "--namespace", "here", "--"]
    assert [one["name"] for one in container["env"] if "valueFrom" in one] == ["RUNG_BY"]
    often = rendered(desk, "release", engine, "--cron", "0 * * * *")
    assert "0 * * * *" in json.dumps(often)
    said = create(desk, "trigger", "mine", "--on", "release", "--engine", engine, "--dry-run=client", "-o", "json")
    (seen,) = (one for one in json.loads(said.out) if one["metadata"]["name"] == SEEN)
    assert "data" not in seen, "applying it once more forgets nothing"


@engines
def test_on_kernels_it_is_fired_by_a_watcher(desk: Cli, engine: str) -> None:
    objects = rendered(desk, "node-kernel", engine, "--debounce", "7")
    assert objects["CronJob"]["spec"]["suspend"] is True
    assert [one["name"] for one in planner(objects)["env"] if "valueFrom" in one] == ["RUNG_BY", "KERNELS"]
    spec = objects["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod = spec["template"]["spec"]
    assert pod["serviceAccountName"] == WATCHER
    assert pod["containers"][0]["args"] == ["trigger", "watch", "mine", "--namespace", "here", "--debounce=7"]
    assert "secret" not in json.dumps(pod), "it needs none"
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("words", "after", "code", "said"),
    [
        (("release", "--repo", "github.com/org/one"), MATRIX, 2, "--repo is not for --on release"),
        (("release", "--secret", "s"), MATRIX, 2, "--secret is not for --on release"),
        (("release", "--debounce", "0"), MATRIX, 2, "--debounce is not for --on release"),
        (("release", "--cron", "61 * * * *"), MATRIX, 6, "is not a cron expression"),
        (("release",), (*MATRIX[:2], "--releases", "4.16.3,debian-12", *MATRIX[4:]), 2, "no new release can be one of"),
        (("node-kernel", "--repo", "github.com/org/one"), MATRIX, 2, "--repo is not for --on node-kernel"),
        (("node-kernel", "--path", "x"), MATRIX, 2, "--path is not for --on node-kernel"),
        (("node-kernel", "--cron", "0 3 * * *"), MATRIX, 2, "--cron is not for --on node-kernel"),
        (("node-kernel", "--debounce", "-1"), MATRIX, 2, "--debounce"),
        (("node-kernel",), (*MATRIX, "--kernel", OLD), 2, "--kernel is not for --on node-kernel"),
        (("release",), (*MATRIX, "--kernel", "$(reboot)"), 6, "is not a kernel release"),
        (("release",), MATRIX, 7, "cannot be reached"),
    ],
)
def test_bad_input_is_told(desk: Cli, words: tuple[str, ...], after: tuple[str, ...], code: int, said: str) -> None:
    answer = create(desk, "trigger", "mine", "--engine", "argo", "--on", *words, after=after)
    assert (answer.code, said in answer.err) == (code, True), answer.err


@pytest.mark.parametrize("on", ["release", "node-kernel"])
def test_github_has_no_such_trigger(desk: Cli, on: str) -> None:
    answer = create(desk, "trigger", "mine", "--on", on, "--engine", "github")
    assert (answer.code, f"GitHub does not know of --on {on}" in answer.err) == (8, True), answer.err


def test_kernels_go_along_with_a_schedule(desk: Cli) -> None:
    said = create(
        desk, "trigger", "mine", "--on", "release", "--engine", "argo", "--dry-run=client", "-o", "json",
        after=(*MATRIX, "--kernel", f"{OLD},{NEW}"),
    )  # fmt: skip
    assert all(f"--kernel={one}" in said.out for one in (OLD, NEW)), said.err


# The watcher


def node(name: str, kernel: str, version: int = 1) -> dict[str, Any]:
    """A node that runs a kernel; "": it has not said yet."""
    info = {"nodeInfo": {"kernelVersion": kernel}} if kernel else {}
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": info}


class Nodes(Cluster):
    """A cluster whose watches give what a test says, one after the other; the last one ends."""

    def __init__(self, *watches: list[tuple[str, dict[str, Any]]]) -> None:
        self.watches = list(watches)

    def watch(self, *_what: object, **_how: object) -> Iterator[tuple[str, dict[str, Any]]]:
        return iter(self.watches.pop(0) if self.watches else ())


def batches(*watches: list[tuple[str, dict[str, Any]]]) -> tuple[list[list[str]], list[str]]:
    """What is planned together, and what is said."""
    said: list[str] = []
    found = [[str(one) for one in some] for some in node_kernels.batches(Nodes(*watches), 60, said.append)]
    return found, said


def test_all_kernels_are_new_to_a_watcher_that_starts() -> None:
    there = [("ADDED", node("a", NEW)), ("ADDED", node("b", OLD)), ("ADDED", node("c", OLD))]
    assert batches(there, there) == ([[OLD, NEW]], [])


def test_a_node_that_flaps_is_planned_once() -> None:
    up = [("ADDED", node("a", OLD)), ("MODIFIED", node("a", NEW)), ("MODIFIED", node("a", OLD))]
    assert batches(up[:1], up, [*up, *up], up)[0] == [[OLD, NEW]]


def test_many_nodes_that_come_together_are_one_planning() -> None:
    pool = [("ADDED", node(f"n{number}", f"5.14.0-{number % 3}.el9.x86_64")) for number in range(100)]
    assert batches(pool[:1], pool, pool)[0] == [[f"5.14.0-{number}.el9.x86_64" for number in range(3)]]


def test_a_node_that_is_deleted_brings_no_kernel() -> None:
    assert batches([("DELETED", node("a", OLD)), ("ADDED", node("b", "")), ("MODIFIED", node("b", NEW))], []) == (
        [[NEW]], [],
    )  # fmt: skip


@pytest.mark.parametrize("text", ["$(reboot)", "--help", "5.14.0 -j", "{{workflow.name}}", "5.14\n", "9." + "9" * 99])
def test_what_is_no_kernel_is_said_once_and_left_out(text: str) -> None:
    odd = [("ADDED", node("a", text)), ("MODIFIED", node("a", text)), ("ADDED", node("b", OLD))]
    found, said = batches(odd, odd)
    assert found == [[OLD]]
    assert len(said) == 1
    assert said[0].startswith("left out: node a runs ")


def test_a_kernel_that_comes_later_is_planned_alone() -> None:
    old, new = ("ADDED", node("a", OLD)), ("MODIFIED", node("a", NEW, 2))
    assert batches([old], [old], [old, new], [new])[0] == [[OLD], [NEW]]


# On a cluster


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as found:
        yield found


def place(api: FakeApi, folder: Path) -> Place:
    return Place(Cluster(api.kubeconfig(folder / "kubeconfig")), "here")


def fires(on: str, engine: str = "tekton") -> Answer:
    """The object that fires: by watchers one of Kubernetes."""
    labels = {"dtkpipe.io/schedule": "mine", "dtkpipe.io/trigger": on}
    metadata = {"name": "mine", "uid": "uid-mine", "labels": labels}
    if engine == "argo":
        spec: dict[str, Any] = {"schedules": ["0 0 1 1 *"], "workflowSpec": {"workflowTemplateRef": {"name": "held"}}}
        return Answer(
            200, {"apiVersion": "argoproj.io/v1alpha1", "kind": "CronWorkflow", "metadata": metadata, "spec": spec}
        )
    pod = {"metadata": {"labels": {"app.kubernetes.io/name": "planner"}}, "spec": {"containers": []}}
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"backoffLimit": 0, "template": pod}}}
    return Answer(200, {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec})


FORBIDDEN = refusal(403, "Forbidden", "cronworkflows is forbidden")
MADE = Answer(201, {"metadata": {"name": "mine-x"}})


def test_a_planner_is_told_its_kernels_by_its_pod(api: FakeApi, tmp_path: Path) -> None:
    api.give(fires("node-kernel"), MADE)
    where = place(api, tmp_path)
    assert bell.start(where, bell.fires(where, "mine"), kernels=[Kernel(OLD), Kernel(NEW)]) == "mine-x"
    made = api.asked[-1].body
    assert made["spec"]["template"]["metadata"]["annotations"] == {"dtkpipe.io/kernels": f"{OLD},{NEW}"}
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-mine"
    assert "5.14.0" not in json.dumps(made["spec"]["template"]["spec"])


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_with_the_rights_of_one_engine_its_triggers_are_found(api: FakeApi, tmp_path: Path, engine: str) -> None:
    served = Answer(200, {"resources": [{"name": "cronworkflows"}, {"name": "cronjobs"}]})
    api.give(*((fires("release", "argo"),) if engine == "argo" else (FORBIDDEN, served, fires("release", "tekton"))))
    assert schedules.existing(place(api, tmp_path), "mine", trigger=True)[0].engine == engine


def test_who_may_look_at_nothing_hears_it(api: FakeApi, tmp_path: Path) -> None:
    served = Answer(200, {"resources": [{"name": "cronworkflows"}, {"name": "cronjobs"}]})
    api.give(FORBIDDEN, served, FORBIDDEN, served)
    with pytest.raises(NotAllowedError):
        schedules.existing(place(api, tmp_path), "mine", trigger=True)


def test_the_watcher_starts_a_planner_and_goes_on(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def start(_place: object, _one: object, kernels: list[Kernel]) -> str:
        started.append([str(one) for one in kernels])
        if len(started) == 2:
            raise NotAllowedError("enough of it")
        return "mine-x"

    monkeypatch.setattr(bell, "start", start)
    monkeypatch.setattr(bell, "fires", lambda _place, name: {"metadata": {"name": name}})
    quiet = Answer(lines=[])
    api.give(
        items(1, node("a", OLD)), items(1, node("a", OLD)), quiet, items(2, node("a", OLD)),
        Answer(lines=[event("MODIFIED", node("a", NEW, 3))]), items(3, node("a", NEW, 3)), quiet,
    )  # fmt: skip
    said: list[str] = []
    with pytest.raises(NotAllowedError):
        node_kernels.watch(place(api, tmp_path), "mine", 0.3, said.append)
    assert started == [[OLD], [NEW]]
    assert said[:2] == [f"new on nodes: {OLD}", "started mine-x"]


@pytest.mark.parametrize(
    ("kernels", "code", "said"),
    [
        (f"{OLD},5.14.0-999.el9.x86_64", 9, f"kernel {OLD}: it is of OpenShift 4.16.0-2, 4.17.0, or of a variant"),
        ("5.14.0-999.el9.x86_64", 9, "do not have kernel 5.14.0-999.el9.x86_64"),
        (f"{OLD},$(reboot)", 6, "`$(reboot)` is not a kernel release"),
        (f"{OLD},--releases=4.16", 6, "is not a kernel release"),
        ("", 9, "no cell is left"),
    ],
)
def test_a_planner_plans_the_kernels_that_it_is_told(
    api: FakeApi, cli: Cli, tmp_path: Path, kernels: str, code: int, said: str
) -> None:
    """Here no module is for them, or no release has them: that ends before a registry is asked."""
    Shelf.at(cli.here).module("one", more="kernels: {min: '99'}\n")
    place(api, tmp_path)
    answer = cli(
        "trigger", "answer", "mine", "-n", "here", "--", "--engine", "argo", "-n", "here", "--lock", "lock",
        "--modules", "modules/*", "--releases", "4.17.1", "--arch", "x86_64", "--push-to", "127.0.0.1:9/org",
        "--insecure-registry", "127.0.0.1:9", "--graph", "http://127.0.0.1:9/graph",
        env={"KERNELS": kernels, "KUBECONFIG": str(tmp_path / "kubeconfig")},
    )  # fmt: skip
    assert (answer.code, said in answer.err) == (code, True), answer.err


def test_a_test_plans_at_once(api: FakeApi, tmp_path: Path) -> None:
    where, said = place(api, tmp_path), list[str]()
    api.give(fires("release", "argo"), MADE)
    assert calls.try_out(where, "mine", "", said.append) == "mine-x"
    assert "at once" in said[-1]
    assert api.asked[-1].body["spec"]["podMetadata"]["labels"]["dtkpipe.io/rung-by"] == "hand"
    api.answers.clear()
    none = refusal(404, "NotFound", "no CronWorkflow")
    api.give(none, fires("node-kernel"), items(1, node("a", OLD)), MADE)
    assert calls.try_out(where, "mine", "", said.append) == "mine-x"
    assert OLD in said[-1]
    api.answers.clear()
    api.give(none, fires("node-kernel"), items(1, node("a", "")))
    with pytest.raises(NothingSelectedError):
        calls.try_out(where, "mine", "", said.append)
    api.answers.clear()
    api.give(fires("release", "argo"))
    with pytest.raises(UsageError, match="--url is not for a trigger on release"):
        calls.try_out(where, "mine", "https://x", said.append)


def test_the_last_one_takes_along_what_was_seen(api: FakeApi, tmp_path: Path) -> None:
    where, none, gone = place(api, tmp_path), items(1), Answer(200, {})
    another = items(1, {"metadata": {"name": "another"}, "spec": {}})
    api.give(fires("release", "tekton"), gone, none, none, another, gone)
    api.answers.appendleft(refusal(404, "NotFound", "no such kind"))
    triggers.delete(where, "mine")
    assert (api.asked[-1].method, api.asked[-1].body) == ("PATCH", {"data": {"mine": None}})
    api.answers.clear()
    api.give(refusal(404, "NotFound", "none"), fires("release", "tekton"), gone, none, none, none, none, gone)
    triggers.delete(where, "mine")
    assert (api.asked[-1].method, api.asked[-1].path.rpartition("/")[2]) == ("DELETE", SEEN)
