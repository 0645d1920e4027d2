"""`dtkpipe matrix submit` on a real cluster, both engines: every cell comes to its end, and none is run twice."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from dtkpipe.app.clusters import ENGINES
from dtkpipe.matrix.failure import read, read_log
from dtkpipe.values.image import ImageRef
from tests.e2e.cells import Cells, cells
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster
from tests.fixtures.cli import Said
from tests.fixtures.registry import LoopbackRegistry

both = pytest.mark.parametrize("engine", list(ENGINES))


@pytest.fixture(scope="module")
def site(
    cluster: Cluster, registry: LoopbackRegistry, git_server: GitServer, runner_image: ImageRef,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cells]:  # fmt: skip
    with cells(cluster, registry, git_server, runner_image, tmp_path_factory.mktemp("cells")) as made:
        made.kernels(2)
        yield made


def results(said: Said) -> Counter[str]:
    assert said.out.startswith("{"), said.err
    return Counter(json.loads(said.out)["summary"])


@pytest.mark.core
@both
def test_one_bad_cell_stops_no_other_and_is_recorded(site: Cells, engine: str) -> None:
    case = f"good-{engine}"
    site.modules(case, "good", "bad")
    first = site.submit(engine, case, "--jobs", "3")
    assert first.code == 10, first.err
    assert results(first) == {"built": 2, "failed": 2}
    (cause,) = {one["cause"] for one in json.loads(first.out)["cells"] if one["module"] == "bad"}
    assert cause == "compile: 'gone' undeclared"
    assert len(site.runs(engine, case)) == 4

    plan = json.loads(site.cli("matrix", "plan", *site.matrix(case), "-o", "json", env=site.environ).out)
    states = {(one["module"], one["state"]): one for one in plan["cells"]}
    assert set(states) == {("good", "current"), ("bad", "failed-before")}
    at = ImageRef.parse(states["bad", "failed-before"]["image"])
    failure = read(site.registry.client, at)
    assert (failure.module, failure.step, failure.kind) == ("bad", "resolve", "compile")
    assert failure.run in site.runs(engine, case)
    assert b"a line of the log" in read_log(site.registry.client, at)

    again = site.submit(engine, case)
    assert (again.code, results(again)) == (10, {"reused": 2, "failed": 2}), again.err
    assert len(site.runs(engine, case)) == 4
    assert results(site.submit(engine, case, "--retry-failed")) == {"reused": 2, "failed": 2}
    assert len(site.runs(engine, case)) == 6


@both
def test_an_interrupted_planner_leaves_its_runs_going_and_is_gone_on_with(site: Cells, engine: str) -> None:
    case = f"slow-{engine}"
    site.modules(case, "slow")
    planner = site.start(engine, case, "--jobs", "2")
    site.cluster.wait("there are two runs", lambda: len(site.runs(engine, case)) == 2, 180)
    planner.send_signal(signal.SIGINT)
    out, err = planner.communicate(timeout=60)
    assert planner.returncode == 130, err
    assert json.loads(out)["summary"] == {"running": 2}
    assert "the same command goes on where it was" in err
    said = site.submit(engine, case)
    assert (said.code, results(said).total()) == (0, 2), said.err
    assert len(site.runs(engine, case)) == 2


@both
def test_two_planners_at_once_and_one_that_is_killed(site: Cells, engine: str) -> None:
    case = f"two-{engine}"
    site.modules(case, "one", "slow-two", "bad")
    killed, other = site.start(engine, case, "--jobs", "6"), site.start(engine, case, "--jobs", "6")
    site.cluster.wait("there are runs", lambda: len(site.runs(engine, case)) >= 2)
    killed.kill()
    killed.communicate()
    out, err = other.communicate(timeout=300)
    assert other.returncode == 10, err
    assert Counter(json.loads(out)["summary"]) - Counter(reused=9) - Counter(built=9) == {"failed": 2}
    assert len(site.runs(engine, case)) == 6


def test_what_a_cluster_lacks_is_told_before_anything_runs(site: Cells) -> None:
    site.modules("lacks", "good")
    for more, code, words in (
        (("--pipeline", "kmod", "-n", "default"), 5, "pipeline `kmod` is not installed in namespace default"),
        (("--sign-key", "key.pem"), 2, "--sign-key is for runs on this machine"),
    ):
        said = site.submit("argo", "lacks", *more)
        assert (said.code, words in said.err) == (code, True), said.err
    assert site.runs("argo", "lacks") == []
