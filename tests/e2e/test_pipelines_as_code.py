"""`dtkpipe trigger create --engine pipelines-as-code`: what Pipelines-as-Code itself makes of it, run by Tekton."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from dtkpipe.values.image import ImageRef
from tests.e2e.cells import Cells, cells
from tests.e2e.cluster import binaries
from tests.e2e.cluster.binaries import PIPELINES_AS_CODE
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster
from tests.e2e.cluster.waiting import NotYet
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.webhooks import Call, push


@pytest.fixture(scope="module")
def place(
    cluster: Cluster, registry: LoopbackRegistry, git_server: GitServer, runner_image: ImageRef,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cells]:  # fmt: skip
    binaries.build(print, (PIPELINES_AS_CODE,))
    folder = tmp_path_factory.mktemp("pipelines-as-code")
    with cells(cluster, registry, git_server, runner_image, folder, ["tekton"]) as made:
        made.kernels(1)
        git_server.secret(made.namespace)
        yield made


def printed(place: Cells, runner: ImageRef, case: str, path: str, *own: str) -> str:
    """The file for the repository's `.tekton/`."""
    words = ("trigger", "create", case, "--repo", path, "--engine", "pipelines-as-code", *own)
    after = (*place.matrix(case), "--pipeline", "cell.py")
    said = place.cli(*words, "--runner-image", str(runner), "--", *after, env=place.environ)
    assert said.code == 0, said.err
    return said.out


def starts(file: str, call: Call, event: str = "push") -> list[dict[str, Any]]:
    """What Pipelines-as-Code starts."""
    happened = {
        "tekton": file, "event": event, "ref": call.body.get("ref", ""), "forge": call.forge, "body": call.body,
    }  # fmt: skip
    done = subprocess.run(
        [PIPELINES_AS_CODE.program("starts")], input=f"{json.dumps(happened)}\n", capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def built(place: Cells, case: str) -> list[str]:
    """The runs of cells: all but the planners."""
    return [name for name in place.runs("tekton", case) if not name.startswith(f"{case}-")]


def ended(place: Cells, run: dict[str, Any]) -> str:
    """Create the run, wait, and return why it ended."""
    made = place.cluster.kubectl("create", "-n", place.namespace, "-o", "name", "-f", "-", stdin=json.dumps(run))

    def look() -> str:
        seen = place.cluster.kubectl.json("get", made.strip(), "-n", place.namespace)
        (said,) = seen.get("status", {}).get("conditions") or [{}]
        if said.get("status") not in ("True", "False"):
            raise NotYet(str(said))
        return str(said["reason"])

    return place.cluster.wait(made.strip(), look, 300)


def test_a_push_starts_the_planner_and_the_same_commit_is_built_once(place: Cells, runner_image: ImageRef) -> None:
    place.modules("hello", "hello")
    path = f"{place.namespace}/source"
    file = printed(place, runner_image, "hello", f"github.com/{path}", "--on", "push")
    (run,) = starts(file, push("github", path))
    assert ended(place, run) in ("Succeeded", "Completed")
    assert len(built(place, "hello")) == 1
    listed = json.loads(place.ask("list", "-o", "json").out)
    assert [one["name"] for one in listed] == built(place, "hello"), "the planner is no run"
    assert ended(place, starts(file, push("github", path))[0]) in ("Succeeded", "Completed")
    assert len(built(place, "hello")) == 1
    silent = {
        "another branch": push("github", path, branch="topic"),
        "a name for a query": push("github", path, branch='main" || true || "'),
        "nothing of a push in it": Call("github", {}, {}),
    }
    assert {what: starts(file, call) for what, call in silent.items()} == {what: [] for what in silent}
    assert starts(file, push("github", path), event="pull_request") == []


@pytest.mark.parametrize("forge", ["github", "gitlab"])
def test_only_pushes_that_change_module_specs_start_it(place: Cells, runner_image: ImageRef, forge: str) -> None:
    case, path = f"catalogue-{forge}", f"{place.namespace}/catalogue-{forge}"
    place.modules(f"{case}/{case}", "first")
    place.git.serve(f"{forge}.com/{path}", place.cli.here / case)
    file = printed(place, runner_image, case, f"{forge}.com/{path}", "--on", "catalog")
    changes = {"README.md": False, f"{case}/first.yaml": True}
    for name, expected in changes.items():
        commit = {"added": [], "modified": [name], "removed": []}
        call = push(forge, path, commits=[commit], total_commits_count=1)
        assert bool(starts(file, call)) == expected, name
    (run,) = starts(file, call)
    assert ended(place, run) in ("Succeeded", "Completed")
    assert len(built(place, case)) == 1
