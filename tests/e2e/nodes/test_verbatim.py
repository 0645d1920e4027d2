"""`dtkpipe submit --release 4.14 --repo github.com/org/kmod`, to the letter: from a release's payload into a kernel."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from dtkpipe.clients.manifest import OCI_LAYER_GZIP, Descriptor, canonical
from dtkpipe.clients.registry import Registry
from dtkpipe.releases.images import CONTENT
from dtkpipe.values.health import HEALTHY
from dtkpipe.values.image import ImageRef
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster, Node
from tests.e2e.pipelines import Site, site_of
from tests.e2e.runner import ROOT
from tests.fixtures.images import file, layer, pack
from tests.fixtures.openshift import OpenShift
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.submit import HELLO
from tests.fixtures.toolkit import Toolkit

RELEASE = "4.14.999"
ROW = {
    "version": RELEASE, "arch": "x86_64", "stream": "rhel-9", "rhcos": "414.92.203001010000-0", "source": ["registry"],
    "date": "2026-01-01",
}  # fmt: skip
LOCK = Path("catalog/releases/4.14.yaml")
DATA = "opt/dtkpipe/lib/python3.13/site-packages/dtkpipe/_data"
"""Where the runner image has what ships with dtkpipe."""


@pytest.mark.core
def test_verbatim(
    cluster: Cluster, registry: LoopbackRegistry, git_server: GitServer, toolkit_std: Toolkit, runner_image: ImageRef,
    workers: tuple[Node, ...], tmp_path: Path,
) -> None:  # fmt: skip
    kernel = toolkit_std.kernel.release
    (node,) = [node.name for node in workers if node.kernel == kernel]
    lock = (ROOT / LOCK).read_text() + f"- {json.dumps(ROW)}\n"
    runner = with_file(registry.client, runner_image, f"{DATA}/{LOCK}", lock.encode())
    copy = tmp_path / "copy"
    for name in ("dtkpipe", "catalog", "pipelines"):
        shutil.copytree(ROOT / name, copy / name)
    (copy / LOCK).write_text(lock)
    shift = OpenShift(registry.client, registry.host, registry.host)
    digest = Registry(registry.access).copy(toolkit_std.image, shift.content)
    shift.release(RELEASE, {"driver-toolkit": CONTENT.at(digest), "rhel-coreos": shift.system(kernel)})
    git_server.serve("github.com/org/kmod", HELLO)
    (tmp_path / "here").mkdir()
    with site_of(cluster, registry, git_server, toolkit_std, tmp_path / "here") as site:
        environ = {**cluster.environ, **git_server.environ, "PYTHONPATH": str(copy)}
        site.install(runner)
        site.cli("label-nodes", env=cluster.environ)
        settings(site, shift, tmp_path / "here")
        said = site.cli("submit", "--release", "4.14", "--repo", "github.com/org/kmod", env=environ)
        assert said.code == 0, said.err
        assert f"release 4.14 is {RELEASE}" in said.err
        assert "engine argo: pipeline kmod is installed in" in said.err
        name = said.out.split()[0].removeprefix("run/")
        ended = site.cli("wait", name, "-n", site.namespace, "-o", "json", env=environ, timeout=1500)
        assert ended.code == 0, ended.err
    card = json.loads(ended.out)
    results = {step["name"]: step["results"] for step in card["steps"]}
    found = results["resolve"]
    assert (found["RELEASE"], found["KERNEL"], found["TOOLKIT_DIGEST"]) == (RELEASE, kernel, digest)
    assert card["inputs"]["release"] == RELEASE
    assert card["verdict"]["verdict"] == "proven"
    healthy = [name for name, verdict in card["nodes"].items() if verdict.split(":")[0] == HEALTHY]
    assert healthy == [node], card["nodes"]


def settings(site: Site, shift: OpenShift, here: Path) -> None:
    """Write what a project says once."""
    (here / "mirrors.yaml").write_text(shift.mirrors())
    (here / "dtkpipe.toml").write_text(
        f'namespace = "{site.namespace}"\n'
        f'push-to = "{site.registry.repo(f"{site.namespace}/kmod")}"\n'
        f'insecure-registries = ["{site.registry.host}"]\n'
        'registry-mirrors = "mirrors.yaml"\n'
    )


def with_file(client: Registry, image: ImageRef, path: str, content: bytes) -> ImageRef:
    """Push the image with one more layer: a file; returns it by digest."""
    tar = layer(file(path, content))
    packed = pack(tar, "gzip")
    manifest = client.manifest(image)
    config = json.loads(client.read_blob(image, manifest.config))
    config["rootfs"]["diff_ids"].append(Descriptor.of(tar, "").digest)
    body = json.loads(manifest.body)
    blobs = (Descriptor.of(packed, OCI_LAYER_GZIP), packed), (
        Descriptor.of(text := canonical(config), body["config"]["mediaType"]), text
    )  # fmt: skip
    for descriptor, data in blobs:
        client.push_blob(image, data, descriptor)
    body["layers"].append(blobs[0][0].to_dict())
    body["config"] = blobs[1][0].to_dict()
    return dataclasses.replace(image, digest=client.push_manifest(image, canonical(body), body["mediaType"]))
