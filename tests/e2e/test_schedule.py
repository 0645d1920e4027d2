"""`dtkpipe schedule` on a real cluster, both engines: it fires, its planner may make runs and nothing else, it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.app.clusters import ENGINES
from dtkpipe.app.schedules import KINDS
from dtkpipe.clients.registry import Registry
from dtkpipe.engines.schedules import SCHEDULE
from dtkpipe.values.image import ImageRef
from tests.e2e.archive import archive, told_of
from tests.e2e.cells import Cells, cells
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster
from tests.fixtures.cli import Said
from tests.fixtures.registry import LoopbackRegistry

both = pytest.mark.parametrize("engine", list(ENGINES))
_SECONDS = 240
"""In which a schedule of every minute has fired, and its planner has ended."""


@pytest.fixture(scope="module")
def site(
    cluster: Cluster, registry: LoopbackRegistry, git_server: GitServer, runner_image: ImageRef,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cells]:  # fmt: skip
    with cells(cluster, registry, git_server, runner_image, tmp_path_factory.mktemp("schedules")) as made:
        made.kernels(1)
        git_server.secret(made.namespace)
        yield made


def schedule(site: Cells, verb: str, *words: str, after: tuple[str, ...] = ()) -> Said:
    return site.ask("schedule", verb, *words, after=after)


def create(site: Cells, runner: ImageRef, name: str, engine: str, case: str, pipeline: str = "cell") -> Said:
    words = (name, "--cron", "* * * * *", "--timezone", "Europe/Berlin", "--engine", engine)
    after = (*site.matrix(case), "--pipeline", f"{pipeline}.py")
    return schedule(site, "create", *words, "--runner-image", str(runner), after=after)


def listed(site: Cells, name: str) -> dict[str, Any]:
    (one,) = (one for one in json.loads(schedule(site, "list", "-o", "json").out) if one["name"] == name)
    return dict(one)


def starts(site: Cells, engine: str, name: str) -> list[dict[str, Any]]:
    words = KINDS[engine].starts.words
    found = site.cluster.kubectl.json("get", words, "-n", site.namespace, "-l", f"{SCHEDULE}={name}")
    return list(found["items"])


@both
def test_it_fires_by_itself_and_says_how_it_ended(site: Cells, runner_image: ImageRef, engine: str) -> None:
    case = name = f"every-minute-{engine}"
    site.modules(case, "good", "bad")
    made = create(site, runner_image, name, engine, case)
    assert (made.code, f"schedule/{name} created, first at" in made.out) == (0, True), made.err
    assert create(site, runner_image, name, engine, case).code == 6, "its name is taken"
    try:
        ended = site.cluster.wait(
            "it has ended", lambda: listed(site, name)["outcome"] == "failed: red cells", _SECONDS
        )
        assert ended
        assert len(site.runs(engine, case)) == 2, "a run for each cell, made by the planner"
        plan = json.loads(site.cli("matrix", "plan", *site.matrix(case), "-o", "json", env=site.environ).out)
        assert {(one["module"], one["state"]) for one in plan["cells"]} == {
            ("good", "current"),
            ("bad", "failed-before"),
        }
        assert schedule(site, "suspend", name).out == f"schedule/{name} suspended\n"
        seen = listed(site, name)
        assert (seen["suspended"], seen["next"], bool(seen["last"])) == (True, "", True)
        assert schedule(site, "suspend", name).out == f"schedule/{name} was suspended already\n"
        assert schedule(site, "resume", name).out == f"schedule/{name} resumed\n"
        before = {one["metadata"]["name"] for one in starts(site, engine, name)}
        site.cluster.wait(
            "it fires again", lambda: {one["metadata"]["name"] for one in starts(site, engine, name)} - before, _SECONDS
        )
        assert len(site.runs(engine, case)) == 2, "nothing was stale"
    finally:
        assert schedule(site, "delete", name).code == 0
    left = f"configmaps,{KINDS[engine].crons.words}" + (",workflowtemplates" if engine == "argo" else "")
    assert site.cluster.kubectl.json("get", left, "-n", site.namespace, "-l", f"{SCHEDULE}={name}")["items"] == []
    assert len(site.runs(engine, case)) == 2, "the cells' runs stay"


def test_packages_are_looked_up_by_the_planner(
    site: Cells, registry: LoopbackRegistry, runner_image: ImageRef, tmp_path: Path
) -> None:
    case = name = "package"
    (site.cli.here / case).mkdir()
    spec = "apiVersion: dtkpipe/v1\nname: bbswitch\nsource: {repo: 'apt:bbswitch-dkms/bookworm'}\n"
    (site.cli.here / case / "bbswitch.yaml").write_text(spec)
    with archive(site.cluster.address) as host:
        runner = told_of(host, runner_image, Registry(registry.access), tmp_path)
        site.pipeline("tekton", "packaged", runner, scratch="512Mi")  # it holds the archive's index
        made = create(site, runner, name, "tekton", case, "packaged")
        assert made.code == 0, made.err
        try:
            outcome = site.cluster.wait(
                "it has ended", lambda: (said := listed(site, name)["outcome"]) != "running" and said, _SECONDS
            )
        finally:
            assert schedule(site, "delete", name).code == 0
    assert (outcome, len(site.runs("tekton", case))) == ("succeeded", 1)
    plan = json.loads(site.cli("matrix", "plan", *site.matrix(case), "-o", "json", env=site.environ).out)
    assert [one["state"] for one in plan["cells"]] == ["current"], "it was built of the package that the archive has"
