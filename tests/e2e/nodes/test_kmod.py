"""The pipeline `kmod` on both engines: from a git address into the kernels of nodes, and back if one is not well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dtkpipe.values.image import ImageRef
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster, Node
from tests.e2e.pipelines import ENGINES, Ended, Site, at_once, described, site_of
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.submit import source
from tests.fixtures.toolkit import Toolkit


@pytest.fixture(scope="module")
def site(
    cluster: Cluster, registry: LoopbackRegistry, git_server: GitServer, toolkit_cloud: Toolkit, runner_image: ImageRef,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:  # fmt: skip
    with site_of(cluster, registry, git_server, toolkit_cloud, tmp_path_factory.mktemp("site")) as made:
        made.install(runner_image)
        said = made.cli("label-nodes", env=cluster.environ)
        assert said.code == 0, said.err
        yield made
        drivers = ("-n", f"{made.namespace}-drivers")
        cluster.kubectl(*drivers, "delete", "daemonsets", "--all", "--cascade=foreground", "--timeout=120s")


def name_of(engine: str) -> str:
    """The runs of both engines are on the same nodes at the same time: each has its own module."""
    return f"kmod_{engine}"


def on_both(site: Site, folders: dict[str, Path]) -> dict[str, Ended]:
    more = ("--pipeline", "kmod", "-p", f"target-namespace={site.namespace}-drivers")
    runs = (partial(site.run, engine, name_of(engine).replace("_", "-"), folders[engine], *more) for engine in ENGINES)
    return dict(zip(ENGINES, at_once(*runs), strict=True))


def image_of(run: Ended) -> str:
    published = run.results("publish")
    return f"{published['IMAGE_URL']}@{published['IMAGE_DIGEST']}"


def deployed(site: Site, engine: str) -> str:
    """The image that is rolled out, and loaded."""
    said = site.cli(
        "status", name_of(engine), "--target-namespace", f"{site.namespace}-drivers", "-o", "json",
        env=site.cluster.environ,
    )  # fmt: skip
    assert said.code == 0, said.err
    (found,) = json.loads(said.out)
    assert found["healthy"] == 1, found
    return str(found["image"])


def test_a_module_gets_onto_the_nodes_and_back_when_a_node_is_not_well(
    site: Site, workers: tuple[Node, ...], tmp_path: Path
) -> None:
    node = next(one for one in workers if one.kernel == site.toolkit.kernel.release).name
    folders = {engine: source(tmp_path / engine, name=name_of(engine)) for engine in ENGINES}
    good = on_both(site, folders)
    for engine, run in good.items():
        assert (run.code, run.card.state) == (0, "succeeded"), described(run)
        assert run.card.nodes[node] == "healthy"
        assert deployed(site, engine) == image_of(run)

    # True in the virtual machine of `verify`, which has no network; on a node it fails.
    check = {"run": ["test", "!", "-e", "/sys/class/net/eth0"]}
    for engine, folder in folders.items():
        (folder / "dtkpipe.yaml").write_text(json.dumps({"name": name_of(engine), "checks": [check]}))
    for engine, run in on_both(site, folders).items():
        assert (run.code, run.card.state) == (10, "failed"), described(run)
        assert run.results("verify")["VERDICT"] == "proven"
        why = "check-failed: `test ! -e /sys/class/net/eth0` failed: exit code 1"
        assert run.card.nodes[node] == why
        assert f"node {node}: {why}" in run.card.cause
        assert run.states()["rollback"] == "succeeded"
        assert deployed(site, engine) == image_of(good[engine])
        assert image_of(run) != image_of(good[engine])
