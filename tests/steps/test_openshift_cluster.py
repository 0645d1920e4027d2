"""A toolkit by what a cluster says: an API server of a few answers on loopback, and a real registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.cli import Cli, Said
from tests.fixtures.openshift import KERNEL, RHCOS, Site, known
from tests.fixtures.serving import Quiet, serving

STREAM = "/apis/image.openshift.io/v1/namespaces/openshift/imagestreams/driver-toolkit"
OTHER = "5.14.0-427.33.1.el9_4.x86_64"


@dataclass
class Api:
    """What the API server answers, by path, and how it is asked."""

    cli: Cli
    words: list[str | Path]
    answers: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    refused: str = ""
    """What is not allowed: the start of a path."""

    def stream(self, **tags: str) -> None:
        named = {name.replace("_", "-"): image for name, image in tags.items()}
        self.answers[STREAM] = {"spec": {"tags": [
            {"name": name, "from": {"kind": "DockerImage", "name": image}} for name, image in named.items()
        ]}}  # fmt: skip

    def node(self, kernel: str, image: str, arch: str = "amd64") -> None:
        info = {"kernelVersion": kernel, "osImage": image, "architecture": arch}
        self.answers["/api/v1/nodes/worker-0"] = {"status": {"nodeInfo": info}}

    def ask(self, *words: str) -> Said:
        return self.cli("resolve", *words, "-o", "json", *self.words)


@pytest.fixture
def api(site: Site, cli: Cli, tmp_path: Path) -> Iterator[Api]:
    mirrors, kubeconfig = tmp_path / "mirrors.yaml", tmp_path / "kubeconfig"
    mirrors.write_text(site.openshift.mirrors())
    found = Api(cli, [
        "--kubeconfig", kubeconfig, "--registry-mirrors", mirrors, "--insecure-registry", site.proxy.host,
        "--lock", site.folder,
    ])  # fmt: skip

    class Handler(Quiet):
        def _answer(self) -> None:
            path = self.path.partition("?")[0]
            allowed = not found.refused or not path.startswith(found.refused)
            there = path in found.answers and self.headers["Authorization"] == "Bearer t0ken"
            body = json.dumps(found.answers[path] if there else {}).encode()
            self.send_response(found.status if there else 404 if allowed else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = _answer  # noqa: N815

    with serving(Handler) as host:
        kubeconfig.write_text(json.dumps({
            "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://{host}"}}],
            "users": [{"name": "u", "user": {"token": "t0ken"}}],
        }))  # fmt: skip
        yield found


def test_the_newest_of_the_cluster(site: Site, api: Api) -> None:
    old, new = site.openshift.toolkit(), site.openshift.toolkit("6.12.0-211.28.1.el10_2.x86_64")
    api.stream(latest=str(old), latest_rhel_10=str(new))
    said = api.ask("--from-cluster", "--arch", "x86_64")
    assert said.code == 0, said.err
    assert json.loads(said.out)["kernel"] == KERNEL
    assert json.loads(said.out)["how"][0] == "toolkit from the cluster's image stream, tag latest"
    said = api.ask("--from-cluster", "--arch", "x86_64", "--stream", "rhel-10")
    assert json.loads(said.out)["toolkit"] == str(new)


@pytest.mark.parametrize(
    "image", [f"Red Hat Enterprise Linux CoreOS {RHCOS} (Plow)", "RHEL CoreOS 9.6.20250925-0 (Plow)"]
)
def test_a_node(site: Site, api: Api, image: str) -> None:
    version = image.split()[-2]
    api.stream(**{version: str(site.openshift.toolkit()), "latest": str(site.openshift.toolkit(OTHER))})
    api.node(KERNEL, image)
    said = api.ask("--node", "worker-0")
    assert said.code == 0, said.err
    answer = json.loads(said.out)
    assert (answer["kernel"], answer["gate"]) == (KERNEL, "equal")
    assert answer["how"][0] == f"node worker-0 runs kernel {KERNEL} on {version}"


def test_a_stale_tag(site: Site, api: Api) -> None:
    api.stream(**{RHCOS: str(site.openshift.toolkit(OTHER))})
    api.node(KERNEL, f"Red Hat Enterprise Linux CoreOS {RHCOS} (Plow)")
    said = api.ask("--node", "worker-0")
    assert (said.code, KERNEL in said.err, OTHER in said.err) == (10, True, True)
    assert json.loads(api.ask("--node", "worker-0", "--allow-kernel-mismatch").out)["gate"] == "overridden"


def test_a_version_that_is_no_tag(site: Site, api: Api) -> None:
    """Managed clusters have nodes that are newer than every tag: then the kernel decides."""
    api.stream(latest=str(site.openshift.toolkit(OTHER)))
    api.node(KERNEL, "Red Hat Enterprise Linux 9.6")
    said = api.ask("--node", "worker-0")
    assert (said.code, "it has: latest" in said.err) == (5, True)
    site.know(known("4.16.2", KERNEL))
    answer = json.loads(api.ask("--node", "worker-0").out)
    assert (answer["release"], answer["kernel"]) == ("4.16.2", KERNEL)


def test_the_mirror_sets_of_the_cluster(site: Site, api: Api) -> None:
    """Asked for where none are given by hand. quay.io is never asked: the sets forbid it."""
    api.words = [word for word in api.words if word != "--registry-mirrors" and Path(word).name != "mirrors.yaml"]
    api.stream(latest=str(site.openshift.toolkit()))
    spec = json.loads(site.openshift.mirrors(tags=False))["spec"]
    api.answers["/apis/config.openshift.io/v1/imagedigestmirrorsets"] = {
        "items": [{"metadata": {"name": "site"}, "spec": spec}]
    }
    said = api.ask("--from-cluster", "--arch", "x86_64")
    assert (said.code, "by the 1 mirror sets of the cluster" in said.err) == (0, True), said.err
    assert json.loads(said.out)["kernel"] == KERNEL

    api.answers.clear()
    api.stream(latest=str(site.openshift.toolkit()))
    policy = {"repositoryDigestMirrors": [{key: spec["imageDigestMirrors"][0][key] for key in ("source", "mirrors")}]}
    api.answers["/apis/operator.openshift.io/v1alpha1/imagecontentsourcepolicies"] = {"items": [{"spec": policy}]}
    said = api.ask("--from-cluster", "--arch", "x86_64")
    assert (said.code, json.loads(said.out)["kernel"]) == (0, KERNEL), said.err

    bad = {"imageDigestMirrors": [{"source": "not a host", "mirrors": []}]}
    api.answers["/apis/config.openshift.io/v1/imagedigestmirrorsets"] = {"items": [{"spec": bad}]}
    site.proxy.requests.clear()
    said = api.ask("--from-cluster", "--arch", "x86_64")
    assert (said.code, "what the cluster says of mirrors is not valid" in said.err) == (6, True)
    assert site.proxy.requests == []


def test_mirror_sets_that_one_may_not_see(site: Site, api: Api) -> None:
    api.words = [word for word in api.words if word != "--registry-mirrors" and Path(word).name != "mirrors.yaml"]
    image = site.openshift.toolkit()
    api.stream(latest=f"{site.proxy.host}/openshift-release-dev/ocp-v4.0-art-dev@{image.digest}")
    api.refused = "/apis/config.openshift.io/"
    said = api.ask("--from-cluster", "--arch", "x86_64")
    assert (said.code, "mirrors are not known" in said.err) == (0, True), said.err


def test_what_goes_wrong(site: Site, api: Api, tmp_path: Path) -> None:
    assert api.ask("--from-cluster").code == 5
    api.stream(latest="not an image")
    assert "has no tag `latest`" in api.ask("--from-cluster").err
    api.answers[STREAM] = [1, 2]
    assert api.ask("--from-cluster").code == 7
    api.status = 403
    assert api.ask("--from-cluster").code == 4
    api.status = 503
    assert api.ask("--from-cluster").code == 7
    api.words[1] = tmp_path / "none"
    said = api.ask("--from-cluster")
    assert (said.code, "there is no cluster to ask" in said.err) == (6, True)
    (tmp_path / "none").write_text("{")
    assert api.ask("--from-cluster").code == 6
