"""Releases resolved out of a synthetic OpenShift in a real registry: every shape of payload and toolkit."""

from __future__ import annotations

import json
import lzma
from dataclasses import replace
from pathlib import Path

import pytest

from dtkpipe.clients.registry import Registry
from dtkpipe.errors import NotFoundError, RunFailedError
from dtkpipe.releases.images import CONTENT, RELEASES, release_image
from dtkpipe.releases.resolver import Choice, resolver_for
from dtkpipe.toolkits.packages import BERKELEY, DATABASES
from dtkpipe.values.arch import AARCH64, ARCHES, X86_64, Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.mirrors import parse_mirrors
from dtkpipe.values.version import Version, Wanted
from tests.fixtures.faults import QUICK
from tests.fixtures.images import device, file, layer, symlink
from tests.fixtures.openshift import KERNEL, RHCOS, OpenShift, Site, known

RT = f"{KERNEL}+rt"


# Payloads


def test_a_release_without_pulling_anything(site: Site) -> None:
    site.openshift.standard("4.16.100", labels=True)
    answer = site.ask("4.16.100")
    assert (str(answer.kernel), answer.gate, answer.rhcos, answer.stream) == (KERNEL, "equal", RHCOS, "rhel-9")
    assert answer.toolkit is not None
    assert answer.toolkit.name == CONTENT.name
    assert site.pulled() == 0
    assert len(site.proxy.requests) <= 8
    layer_of_manifests = max(site.proxy.sent.values())
    assert sum(site.proxy.sent.values()) - layer_of_manifests <= 100_000
    assert any("release payload" in line for line in answer.how)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_layers_of_every_compression(site: Site, compression: str) -> None:
    images = {"driver-toolkit": site.openshift.toolkit(), "rhel-coreos": site.openshift.system()}
    version = f"4.16.{110 + len(compression)}"
    site.openshift.release(version, images, compression=compression)
    assert str(site.ask(version).kernel) == KERNEL


def test_docker_schema_2(site: Site) -> None:
    images = {"driver-toolkit": site.openshift.toolkit(docker=True), "rhel-coreos": site.openshift.system()}
    site.openshift.release("4.16.120", images, docker=True)
    assert str(site.ask("4.16.120").kernel) == KERNEL


def test_classic_payload(site: Site) -> None:
    kernel = "4.18.0-305.45.1.el8_4.x86_64"
    system = site.openshift.system(kernel, label="com.coreos.rpm.kernel")
    images = {"driver-toolkit": site.openshift.toolkit(kernel), "machine-os-content": system}
    site.openshift.release("4.10.100", images, rhcos={"machine-os-content": "410.84.202206010432-0"})
    answer = site.ask("4.10.100")
    assert (answer.stream, answer.gate, answer.rhcos) == ("rhel-8", "equal", "410.84.202206010432-0")


def test_payload_of_4_12(site: Site) -> None:
    kernel = "4.18.0-372.51.1.el8_6.x86_64"
    images = {
        "driver-toolkit": site.openshift.toolkit(kernel), "rhel-coreos-8": site.openshift.system(kernel),
        "machine-os-content": site.openshift.system("4.18.0-1.el8.x86_64"),
    }  # fmt: skip
    site.openshift.release("4.12.100", images)
    answer = site.ask("4.12.100")
    assert (answer.stream, answer.gate) == ("rhel-8", "equal")


def test_two_streams(site: Site) -> None:
    old, new = "5.14.0-687.19.1.el9_8.x86_64", "6.12.0-211.28.1.el10_2.x86_64"
    images = {
        "driver-toolkit": site.openshift.toolkit(old), "rhel-coreos": site.openshift.system(old),
        "driver-toolkit-10": site.openshift.toolkit(new), "rhel-coreos-10": site.openshift.system(new),
    }  # fmt: skip
    rhcos = {"rhel-coreos": "9.8.20260627-0", "rhel-coreos-10": "10.2.20260627-0"}
    for version, stream, kernel in (("5.0.0-ec.40", "rhel-10", new), ("4.22.100", "rhel-9", old)):
        site.openshift.release(version, images, rhcos=rhcos)
        answer = site.ask(version)
        assert (answer.stream, str(answer.kernel), answer.streams) == (stream, kernel, ("rhel-9", "rhel-10"))
        assert str(site.ask(version, stream="rhel-9").kernel) == old
        assert str(site.ask(version, stream="rhel-10").kernel) == new
    with pytest.raises(NotFoundError, match="no stream `rhel-11`"):
        site.ask("4.22.100", stream="rhel-11")


def test_okd(site: Site) -> None:
    kernel = "5.14.0-531.el9.x86_64"
    images = {"driver-toolkit": site.openshift.toolkit(kernel), "stream-coreos": site.openshift.system(kernel)}
    site.openshift.release("4.16.0-okd-scos.100", images)
    answer = site.ask("4.16.0-okd-scos.100")
    assert (answer.stream, answer.gate, str(answer.kernel)) == ("scos", "equal", kernel)


def test_no_toolkit(site: Site) -> None:
    site.openshift.release("4.7.100", {"machine-os-content": site.openshift.system("4.18.0-240.el8_3.x86_64")})
    with pytest.raises(NotFoundError, match=r"OpenShift 4\.7\.100 has no Driver Toolkit") as failed:
        site.ask("4.7.100")
    assert "machine-os-content" in str(failed.value)


def test_only_the_second_toolkit(site: Site) -> None:
    kernel = "6.12.0-211.28.1.el10_2.x86_64"
    images = {"driver-toolkit-10": site.openshift.toolkit(kernel), "rhel-coreos-10": site.openshift.system(kernel)}
    site.openshift.release("5.1.0-ec.1", images)
    assert site.ask("5.1.0-ec.1").streams == ("rhel-10",)


def test_multi(site: Site) -> None:
    kernels = {arch: f"5.14.0-570.1.el9_6.{arch}" for arch in ARCHES}
    shift = site.openshift
    toolkit = shift.index(shift.content, {arch: _pushed(shift, shift.toolkit(kernel, arch=arch))
                                          for arch, kernel in kernels.items()})  # fmt: skip
    system = shift.index(shift.content, {arch: _pushed(shift, shift.system(kernel, arch=arch))
                                         for arch, kernel in kernels.items()})  # fmt: skip
    images = {"driver-toolkit": CONTENT.at(toolkit.digest), "rhel-coreos": CONTENT.at(system.digest)}
    each = {arch: shift.release("4.20.100", images, arch=arch, tag="") for arch in ARCHES}
    multi = shift.index(shift.releases, each, "4.20.100-multi")
    for arch in ARCHES:
        answer = site.resolver.release_image(RELEASES.at(multi.digest), Choice(arch=arch))
        assert (str(answer.kernel), answer.gate) == (kernels[arch], "equal")
    some = shift.index(shift.releases, {X86_64: each[X86_64]}, "4.20.101-multi")
    with pytest.raises(NotFoundError, match="no image for s390x") as failed:
        site.resolver.release_image(RELEASES.at(some.digest), Choice(arch=ARCHES[3]))
    assert "amd64" in str(failed.value)


def _pushed(shift: OpenShift, image: ImageRef) -> ImageRef:
    return shift.content.at(image.digest)


# Toolkits


@pytest.mark.parametrize(
    ("document", "kernel", "rt"),
    [
        ({"KERNEL_VERSION": KERNEL, "RT_KERNEL_VERSION": RT, "RHEL_VERSION": "9.4"}, KERNEL, RT),
        ({"KERNEL_VERSION": KERNEL.removesuffix(".x86_64"), "RHEL_VERSION": ""}, KERNEL, ""),
        ({"KERNEL_VERSION": KERNEL, "RT_KERNEL_VERSION": "package kernel-rt-core is not installed+rt"}, KERNEL, ""),
        ({"KERNEL_VERSION": KERNEL, "RHEL_VERSION": "9.4 (Plow)"}, KERNEL, ""),
        ({"KERNEL_VERSION": "5.14.0-531.el9.x86_64"}, "5.14.0-531.el9.x86_64", ""),
        ({"KERNEL_VERSION": KERNEL, "RT_KERNEL_VERSION": "5.14.0-284.45.1.rt14.330.el9_2.x86_64"}, KERNEL,
         "5.14.0-284.45.1.rt14.330.el9_2.x86_64"),
        ({"KERNEL_VERSION": KERNEL + KERNEL}, "", ""),
        ({"KERNEL_VERSION": f"{KERNEL}\n{KERNEL}"}, "", ""),
        ({"KERNEL_VERSION": ["a"], "RT_KERNEL_VERSION": None}, "", ""),
        ([], "", ""),
        (b"\xff\xfe", "", ""),
        (b"[" * 100_000, "", ""),
    ],
)  # fmt: skip
def test_release_files_of_toolkits(site: Site, document: object, kernel: str, rt: str) -> None:
    toolkit = site.openshift.toolkit(document=document)
    choice = Choice(arch=X86_64)
    if not kernel:
        with pytest.raises(NotFoundError, match="does not tell its kernel"):
            site.resolver.toolkit(toolkit, choice)
        return
    assert str(site.resolver.toolkit(toolkit, choice).kernel) == kernel
    if rt:
        assert str(site.resolver.toolkit(toolkit, replace(choice, variant="rt")).kernel) == rt
    else:
        with pytest.raises(NotFoundError, match="no kernel of variant `rt`"):
            site.resolver.toolkit(toolkit, replace(choice, variant="rt"))
    assert site.pulled() == 0


def test_variants(site: Site) -> None:
    kernel = "5.14.0-570.1.el9_6.aarch64"
    toolkit = site.openshift.toolkit(kernel, arch=AARCH64)
    answer = site.resolver.toolkit(toolkit, Choice(arch=AARCH64, variant="64k"))
    assert str(answer.kernel) == f"{kernel}+64k"
    assert "derived" in answer.how[-1]
    with pytest.raises(NotFoundError, match="no kernel of variant `rt`"):
        site.resolver.toolkit(toolkit, Choice(arch=AARCH64, variant="rt"))


def _package_database(arch: Arch) -> bytes:
    return lzma.decompress((Path(__file__).parents[1] / f"fixtures/rpmdb/{arch}.sqlite.xz").read_bytes())


@pytest.mark.parametrize("path", DATABASES)
def test_packages_of_toolkits(site: Site, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last way: two databases that rpm made, of a toolkit whose release file and labels say nothing."""
    monkeypatch.setattr("dtkpipe.releases.inspect.BUDGET", 2**20)
    for arch, variant, suffix in ((X86_64, "rt", "+rt"), (AARCH64, "64k", "+64k")):
        database = layer(file(path, _package_database(arch)))
        kernel = f"5.14.0-427.24.1.el9_4.{arch}"
        toolkit = site.openshift.toolkit(
            document={"KERNEL_VERSION": "package is not installed"}, on_top=[database], arch=arch
        )
        answer = site.resolver.toolkit(toolkit, Choice(arch=arch))
        assert (str(answer.kernel), answer.how[1]) == (kernel, f"kernel from its package database /{path}")
        assert str(site.resolver.toolkit(toolkit, Choice(arch=arch, variant=variant)).kernel) == f"{kernel}{suffix}"
    assert site.pulled() == 0


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        (BERKELEY, b"\0" * 12 + b"\x61\x15\x06\x00", "RHEL 8"),
        (DATABASES[1], b"SQLite format 3\0 and no more", "its package database is damaged"),
        (DATABASES[1], b"", "its package database has no packages"),
    ],
)
def test_packages_that_cannot_be_read(
    site: Site, path: str, content: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtkpipe.releases.inspect.BUDGET", 2**20)
    toolkit = site.openshift.toolkit(document={}, on_top=[layer(file(path, content))])
    with pytest.raises(NotFoundError, match="does not tell its kernel") as failed:
        site.resolver.toolkit(toolkit, Choice(arch=X86_64))
    assert said in str(failed.value)
    assert "MiB of layers lie below, and are not pulled" in str(failed.value)
    assert site.pulled() == 0


def test_a_toolkit_that_tells_nothing_is_not_pulled(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtkpipe.releases.inspect.BUDGET", 2**20)
    toolkit = site.openshift.toolkit(document={})
    with pytest.raises(NotFoundError, match="package database"):
        site.resolver.toolkit(toolkit, Choice(arch=X86_64))
    assert site.pulled() == 0


def test_a_release_file_that_is_a_device_or_a_link(site: Site) -> None:
    odd = [
        layer(device("etc/driver-toolkit-release.json")),
        layer(symlink("etc/driver-toolkit-release.json", "/etc/shadow")),
    ]
    for one in odd:
        toolkit = site.openshift.toolkit(on_top=[one])
        assert str(site.resolver.toolkit(toolkit, Choice(arch=X86_64)).kernel) == KERNEL


# The gate


def test_gate(site: Site) -> None:
    other = "5.14.0-427.33.1.el9_4.x86_64"
    images = {"driver-toolkit": site.openshift.toolkit(), "rhel-coreos": site.openshift.system(other)}
    site.openshift.release("4.16.130", images)
    site.know(known("4.16.129", other))
    with pytest.raises(RunFailedError, match="is not for the kernel of its operating system") as failed:
        site.ask("4.16.130")
    assert all(text in str(failed.value) for text in (KERNEL, other, "4.16.129", "--allow-kernel-mismatch"))
    answer = site.ask("4.16.130", allow_mismatch=True)
    assert (answer.gate, str(answer.kernel)) == ("overridden", KERNEL)
    assert other in answer.how[-1]


def test_gate_without_the_label(site: Site) -> None:
    images = {"driver-toolkit": site.openshift.toolkit(), "rhel-coreos": site.openshift.system("")}
    site.openshift.release("4.16.131", images)
    assert site.ask("4.16.131").gate == "not checked"


# Other places


@pytest.mark.parametrize(("minor", "name"), [("4.16", "rhel9"), ("4.12", "rhel8")])
def test_the_catalogue_of_red_hat(site: Site, minor: str, name: str) -> None:
    shift = site.openshift
    pushed = _pushed(shift, shift.toolkit())
    there = ImageRef(shift.upstream, f"openshift4/driver-toolkit-{name}")
    shift.client.copy(pushed, there, [f"v{minor}"])
    entry = {"source": "registry.redhat.io", "mirrors": [site.proxy.host], "mirrorSourcePolicy": "NeverContactSource"}
    mirrors = json.dumps({"kind": "ImageTagMirrorSet", "spec": {"imageTagMirrors": [entry]}})
    access = site.proxy.access(mirrors=parse_mirrors(mirrors))
    resolver = resolver_for(site.folder, lambda: Registry(access, QUICK))
    answer = resolver.release(Wanted.parse(minor), Choice(arch=X86_64, via="redhat"))
    assert (str(answer.kernel), answer.release) == (KERNEL, "")
    assert "moves with it" in answer.how[0]
    with pytest.raises(NotFoundError, match="minor versions"):
        resolver.release(Wanted.parse("4.16.3"), Choice(arch=X86_64, via="redhat"))


@pytest.mark.parametrize(
    ("version", "arch", "image"),
    [
        ("4.16.3", X86_64, "quay.io/openshift-release-dev/ocp-release:4.16.3-x86_64"),
        ("4.8.0", AARCH64, "quay.io/openshift-release-dev/ocp-release:4.8.0-aarch64"),
        ("5.0.0-ec.6", X86_64, "quay.io/openshift-release-dev/ocp-release:5.0.0-ec.6-x86_64"),
        ("4.21.0-0.nightly-2026-03-30-143812", X86_64,
         "registry.ci.openshift.org/ocp/release:4.21.0-0.nightly-2026-03-30-143812"),
        ("4.21.0-0.nightly-2026-03-30-143812", AARCH64,
         "registry.ci.openshift.org/ocp-arm64/release-arm64:4.21.0-0.nightly-2026-03-30-143812"),
        ("5.0.0-0.nightly-2026-03-30-143812", X86_64,
         "registry.ci.openshift.org/ocp/release-5:5.0.0-0.nightly-2026-03-30-143812"),
    ],
)  # fmt: skip
def test_where_releases_are(version: str, arch: Arch, image: str) -> None:
    assert str(release_image(Version.parse(version), arch)) == image
