"""Builds with kaniko as pods on both engines: the same images and the same causes as buildah's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dtkpipe.clients.image import read_image
from dtkpipe.values.image import ImageRef
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster
from tests.e2e.pipelines import ENGINES, Site, at_once, described, site_of
from tests.fixtures.building import SOURCES
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.submit import HELLO, source
from tests.fixtures.toolkit import Toolkit

KANIKO = ("--builder", "kaniko")


@pytest.fixture(scope="module")
def site(
    cluster: Cluster, registry: LoopbackRegistry, git_server: GitServer, toolkit_cloud: Toolkit, runner_image: ImageRef,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:  # fmt: skip
    with site_of(cluster, registry, git_server, toolkit_cloud, tmp_path_factory.mktemp("site")) as made:
        made.install(runner_image, *KANIKO, "--kaniko-image", cluster.kaniko)
        yield made


def test_recipes_and_authors_containerfiles_are_built(site: Site, tmp_path: Path) -> None:
    """A recipe on one engine, on the other an author's Containerfile whose image is the toolkit itself."""
    runs = at_once(
        partial(site.run, "tekton", "hello", HELLO, *KANIKO),
        partial(site.run, "argo", "one-stage", SOURCES / "one-stage", *KANIKO, "--build-arg", "WORDS=a; exit 1"),
    )
    for run, module in zip(runs, ("hello", "staged"), strict=True):
        assert (run.code, run.card.state) == (0, "succeeded"), described(run)
        image = ImageRef.parse(run.results("publish")["IMAGE_URL"]).at(run.results("publish")["IMAGE_DIGEST"])
        files = read_image(site.registry.client, image, None, lambda path: path.endswith(".ko"), tmp_path / module)
        assert set(files.contents) == {f"opt/lib/modules/{site.toolkit.kernel.release}/updates/{module}.ko"}
        assert files.entry("bin/sh")
        labels = files.config.labels
        assert labels["dtkpipe.kernel"] == site.toolkit.kernel.release
        assert labels["dtkpipe.commit"] == run.results("build")["COMMIT"]
        assert run.results("verify")["VERDICT"] == "proven"
        assert not site.candidates(run)
    assert "words: a; exit 1" in site.pod_log(runs[1], "build")


def test_a_compile_error_is_the_cause_on_every_engine(site: Site, tmp_path: Path) -> None:
    folder = source(tmp_path / "broken", init="return no_such_call();", name="broken")
    for run in at_once(*(partial(site.run, engine, "broken", folder, *KANIKO) for engine in ENGINES)):
        assert (run.code, run.card.state) == (10, "failed"), described(run)
        assert "implicit declaration of function 'no_such_call'" in run.card.cause
        assert run.states()["publish"] != "succeeded"
        assert not site.candidates(run)


def test_what_kaniko_cannot_do_is_said_before_anything_runs(site: Site) -> None:
    said = site.cli(
        "submit", "--engine", "argo", "-n", site.namespace, "--pipeline", "prebuild", *KANIKO, "--hermetic",
        "--repo", "github.com/some/module", "--ref", "0" * 40, "--toolkit", str(site.toolkit.image),
        "--push-to", str(site.registry.repo("nowhere")), env=site.cluster.environ,
    )  # fmt: skip
    assert said.code == 8
    assert "kaniko cannot take the network away" in said.err
