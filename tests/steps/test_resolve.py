"""resolve: from a release, a kernel or an image to one toolkit and one kernel."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dtkpipe.errors import DtkpipeError, InvalidError, NotFoundError, UnreachableError, UnsupportedError, UsageError
from dtkpipe.steps import resolve
from dtkpipe.steps.contract import Room
from dtkpipe.steps.resolve import Args, Results
from dtkpipe.tools.buildah import Buildah
from dtkpipe.tools.process import ToolMissingError
from dtkpipe.values.image import ImageRef
from tests.fixtures.images import Member, file, folder, layer, push_image
from tests.fixtures.registry import LoopbackRegistry, free_port
from tests.fixtures.toolkit import Toolkit

pytestmark = pytest.mark.tools
RED_HAT = "5.14.0-427.50.1.el9_4.x86_64"


@dataclass(frozen=True)
class Resolver:
    """Calls resolve as the local engine would; `said` is what the user was told."""

    registry: LoopbackRegistry
    cache: Path
    said: list[str] = field(default_factory=list)

    def __call__(self, **args: str) -> Results:
        repo = {"toolkit_repo": str(self.registry.repo("toolkits"))}
        room = Room(work=Path(), cache=self.cache, environ={}, say=self.said.append)
        return resolve.run(Args(insecure_registries=self.registry.access.insecure, **{**repo, **args}), room)


@pytest.fixture
def ask(registry: LoopbackRegistry, shared_cache: Path) -> Resolver:
    return Resolver(registry, shared_cache)


# Toolkits that are made


def test_newest_kernel_of_a_release(toolkit_cloud: Toolkit, registry: LoopbackRegistry) -> None:
    found = toolkit_cloud.results
    assert found.kernel.endswith("-cloud-amd64")
    assert (found.release, found.arch) == ("debian-12", "x86_64")
    assert found.toolkit_url == str(registry.repo("toolkits"))
    assert found.how == "newest cloud kernel of debian-12; toolkit made from packages of Debian 12"


def test_second_time_finds_what_the_first_made(ask: Resolver, toolkit_cloud: Toolkit) -> None:
    found = ask(release="debian-12", variant="cloud", arch="amd64")
    assert found.toolkit_digest == toolkit_cloud.image.digest
    assert found.how == "newest cloud kernel of debian-12; its toolkit was there already"
    assert ask.said == []


def test_kernel_alone_is_found_in_the_suite_that_has_it(ask: Resolver, toolkit_cloud: Toolkit) -> None:
    found = ask(kernel=toolkit_cloud.kernel.release)
    assert found.toolkit_digest == toolkit_cloud.image.digest
    assert (found.release, found.arch) == ("debian-12", "x86_64")
    assert found.how.startswith("kernel found in the archive of debian-12")


def test_architecture_of_the_kernel_is_that_of_the_toolkit(ask: Resolver, toolkit_arm64: Toolkit) -> None:
    found = ask(kernel=toolkit_arm64.kernel.release)
    assert (found.arch, found.toolkit_digest) == ("aarch64", toolkit_arm64.image.digest)


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({}, UsageError, ["nothing says what to build for", "--release"]),
        ({"release": "debain-12"}, NotFoundError, ["no release `debain-12`", "did you mean `debian-12`?"]),
        ({"release": "debian-12", "variant": "64k"}, NotFoundError, ["no kernel variant `64k`", "std, cloud, rt"]),
        ({"release": "debian-12", "toolkit_repo": ""}, UsageError, ["no repository", "--toolkit-repo"]),
        ({"release": "debian-12", "toolkit_repo": "UPPER"}, InvalidError, ["not an image reference"]),
        ({"release": "debian-12", "arch": "vax"}, NotFoundError, ["unknown architecture `vax`"]),
        ({"release": "debian-12", "arch": "s390x"}, UnsupportedError, ["toolkits for s390x", "x86_64, aarch64"]),
        ({"kernel": "../etc"}, InvalidError, ["not a kernel release"]),
        ({"kernel": "6.1.0-56-amd64", "arch": "aarch64"}, UsageError, ["not of architecture aarch64"]),
        ({"kernel": "6.1.0-9999-cloud-amd64"}, NotFoundError, ["debian-12 or debian-13", "-cloud-amd64", "--toolkit"]),
        ({"release": "debian-13", "kernel": "6.1.0-9999-amd64"}, NotFoundError, ["archive of debian-13", "nearest"]),
    ],
)
def test_bad_input(ask: Resolver, args: dict[str, str], error: type[DtkpipeError], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        ask(**args)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_kernel_and_variant_that_disagree(ask: Resolver, toolkit_cloud: Toolkit) -> None:
    with pytest.raises(UsageError, match="is of variant cloud, not rt"):
        ask(kernel=toolkit_cloud.kernel.release, variant="rt")


def test_registry_that_is_down(shared_cache: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    room = Room(work=Path(), cache=shared_cache, environ={}, say=print)
    args = Args(release="debian-12", variant="cloud", toolkit_repo=f"{host}/toolkits", insecure_registries=(host,))
    with pytest.raises(UnreachableError, match=host):
        resolve.run(args, room)


def test_machine_without_apt(registry: LoopbackRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the tools is there, wherever they are looked for."""
    monkeypatch.setattr("shutil.which", lambda name, path="": "/usr/bin/setpriv" if name == "setpriv" else None)
    with pytest.raises(ToolMissingError, match="is not installed") as caught:
        Resolver(registry, tmp_path)(release="debian-12")
    assert caught.value.hint == "dtkpipe doctor --fix"
    assert caught.value.exit_code == 8


def test_openshift_release_by_hand(ask: Resolver, toolkit_cloud: Toolkit) -> None:
    found = ask(release="4.14", toolkit=str(toolkit_cloud.image))
    assert (found.release, found.kernel) == ("4.14", toolkit_cloud.kernel.release)


# Toolkits that are given


@pytest.fixture
def push(registry: LoopbackRegistry) -> Callable[..., ImageRef]:
    """Push a look-alike of a Driver Toolkit: a few files, labels or not."""

    def push_it(*members: Member, labels: dict[str, str] | None = None, arch: str = "amd64") -> ImageRef:
        layers = (
            [layer(folder("usr"), file("usr/bin/gcc", b"x")), layer(*members)] if members else [layer(folder("usr"))]
        )
        repo = registry.repo("driver-toolkit")
        return push_image(registry.client, repo, layers, labels=labels, arch=arch, tag="by-tag")

    return push_it


def release_file(**values: str) -> Member:
    return file("etc/driver-toolkit-release.json", json.dumps(values).encode())


def headers(*kernels: str) -> list[Member]:
    return [file(f"usr/src/kernels/{kernel}/Makefile") for kernel in kernels]


def test_own_toolkit_by_hand(ask: Resolver, toolkit_cloud: Toolkit, registry: LoopbackRegistry) -> None:
    tag = registry.client.tags(registry.repo("toolkits"))[0]
    for image in (toolkit_cloud.image, registry.repo("toolkits").tagged(tag)):
        found = ask(toolkit=str(image))
        assert registry.client.exists(ImageRef.parse(found.toolkit_url).at(found.toolkit_digest))
        assert "from the image's labels" in found.how
    assert ask.said == []


def test_without_labels_the_release_file_counts(
    ask: Resolver, toolkit_cloud: Toolkit, registry: LoopbackRegistry, shared_cache: Path, tmp_path: Path
) -> None:
    """A Driver Toolkit as buildah makes one, whose label arguments were empty."""
    buildah = Buildah(shared_cache / "containers", registry.access)
    buildah.pull(toolkit_cloud.image)
    (tmp_path / "Containerfile").write_text(f"FROM {toolkit_cloud.image}\n")
    empty = {"kernel-version": "", "kernel-rt-version": "", "dtkpipe.kernel": "", "dtkpipe.releases": ""}
    image = buildah.build(tmp_path, tmp_path / "Containerfile", labels=empty)
    repo = registry.repo("look-alike")
    found = ask(toolkit=str(repo.at(buildah.push(image, repo.tagged("x")))))
    assert found.kernel == toolkit_cloud.kernel.release
    assert found.how == "toolkit image given by hand; kernel from /etc/driver-toolkit-release.json"
    buildah.remove(image)


def test_tag_is_resolved_to_a_digest(ask: Resolver, push: Callable[..., ImageRef]) -> None:
    image = push(release_file(KERNEL_VERSION=RED_HAT))
    found = ask(toolkit=str(image.tagged("by-tag")))
    assert (found.toolkit_url, found.toolkit_digest) == (image.name, image.digest)
    assert (found.kernel, found.arch, found.release) == (RED_HAT, "x86_64", "")


def test_realtime_kernel_of_a_toolkit_with_both(ask: Resolver, push: Callable[..., ImageRef]) -> None:
    image = push(release_file(KERNEL_VERSION=RED_HAT, RT_KERNEL_VERSION=f"{RED_HAT}+rt", RHEL_VERSION="9.4"))
    assert ask(toolkit=str(image)).kernel == RED_HAT
    assert ask(toolkit=str(image), variant="rt").kernel == f"{RED_HAT}+rt"
    assert ask(toolkit=str(image), kernel=f"{RED_HAT}+rt").kernel == f"{RED_HAT}+rt"


def test_kernels_in_the_image_count_last(ask: Resolver, push: Callable[..., ImageRef]) -> None:
    junk = release_file(KERNEL_VERSION="package kernel-core is not installed")
    image = push(junk, *headers(RED_HAT, f"{RED_HAT}+64k"))
    found = ask(toolkit=str(image))
    assert (found.kernel, found.how.split("; ")[1]) == (RED_HAT, "kernel from the kernels that are in the image")
    assert ask(toolkit=str(image), variant="64k").kernel == f"{RED_HAT}+64k"


def test_toolkit_that_does_not_tell(ask: Resolver, push: Callable[..., ImageRef]) -> None:
    for image in (push(), push(file("etc/driver-toolkit-release.json", b"{not json")), push(*headers("not-a-kernel"))):
        with pytest.raises(NotFoundError, match="has no kernel that we can find") as caught:
            ask(toolkit=str(image))
        assert "/etc/driver-toolkit-release.json" in str(caught.value)


def test_toolkit_with_several_kernels(ask: Resolver, push: Callable[..., ImageRef]) -> None:
    image = push(*headers(RED_HAT, "5.14.0-427.51.1.el9_4.x86_64"))
    with pytest.raises(InvalidError, match="has several kernels") as caught:
        ask(toolkit=str(image))
    assert RED_HAT in str(caught.value)
    assert "--kernel" in caught.value.hint
    assert ask(toolkit=str(image), kernel=RED_HAT).kernel == RED_HAT


def test_toolkit_of_another_kernel(ask: Resolver, push: Callable[..., ImageRef]) -> None:
    image = push(release_file(KERNEL_VERSION=RED_HAT), *headers(RED_HAT))
    with pytest.raises(InvalidError, match="is not for kernel 6") as caught:
        ask(toolkit=str(image), kernel="6.1.0-56-amd64")
    assert RED_HAT in str(caught.value)


def test_toolkit_that_is_not_there(ask: Resolver, registry: LoopbackRegistry) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        ask(toolkit=str(registry.repo("nothing").tagged("x")))
    with pytest.raises(InvalidError, match="is not an image reference"):
        ask(toolkit="--help")


def test_credentials_file_of_the_environment(
    registry: LoopbackRegistry, toolkit_cloud: Toolkit, tmp_path: Path
) -> None:
    (tmp_path / "auth.json").write_text("{}")
    environ = {**os.environ, "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
    room = Room(work=tmp_path, cache=tmp_path, environ=environ, say=print)
    args = Args(toolkit=str(toolkit_cloud.image), insecure_registries=registry.access.insecure)
    assert resolve.run(args, room).kernel == toolkit_cloud.kernel.release
