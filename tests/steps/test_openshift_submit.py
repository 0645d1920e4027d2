"""A module from source to a proven image for an OpenShift release, found in its payload, behind a mirror."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtkpipe.clients.registry import Registry
from dtkpipe.releases.images import CONTENT
from tests.fixtures.cli import Cli
from tests.fixtures.openshift import OpenShift
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.submit import HELLO, card_of, to
from tests.fixtures.toolkit import Toolkit

pytestmark = pytest.mark.tools


def test_an_openshift_release(shell: Cli, registry: LoopbackRegistry, toolkit_cloud: Toolkit, tmp_path: Path) -> None:
    shift = OpenShift(registry.client, registry.host, registry.host)
    digest = Registry(registry.access).copy(toolkit_cloud.image, shift.content)
    kernel = toolkit_cloud.kernel.release
    images = {"driver-toolkit": CONTENT.at(digest), "rhel-coreos": shift.system(kernel)}
    shift.release("4.17.777", images)
    mirrors = tmp_path / "mirrors.yaml"
    mirrors.write_text(shift.mirrors())
    words = [
        "--engine",
        "local",
        "--release",
        "4.17.777",
        "--variant",
        "cloud",
        "--arch",
        "x86_64",
        "--registry-mirrors",
        mirrors,
    ]
    said = shell("submit", *words, "--repo", HELLO, *to(registry, "openshift/hello"), "-o", "json")
    assert said.code == 0, said.err
    card = card_of(said)
    assert (card.result("resolve", "KERNEL"), card.result("resolve", "RELEASE")) == (kernel, "4.17.777")
    assert card.result("resolve", "GATE") == "equal"
    assert card.result("verify", "VERDICT") == "proven"
    assert card.result("resolve", "TOOLKIT_URL") == CONTENT.name
    labels = Registry(registry.access).config(registry.repo("openshift/hello").tagged(kernel)).labels
    assert "4.17.777" in labels["dtkpipe.releases"]
