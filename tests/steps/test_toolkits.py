"""Toolkits made of real packages: the same every time, laid out like the Driver Toolkit, and good for compiling."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dtkpipe.clients.image import ImageFiles, read_image
from dtkpipe.errors import InvalidError, UnsupportedError
from dtkpipe.toolkits.base import driver_base
from dtkpipe.toolkits.distribution import distributions
from dtkpipe.toolkits.kept import kept
from dtkpipe.toolkits.layer import LayerWriter, Written
from dtkpipe.toolkits.make import Maker
from dtkpipe.toolkits.plan import Suite
from dtkpipe.tools import process
from dtkpipe.tools.buildah import Buildah
from dtkpipe.values.arch import AARCH64, X86_64, Arch
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.toolkit import MakeToolkit, Toolkit

pytestmark = pytest.mark.tools
MODULE = """\
#include <linux/module.h>
static int __init begin(void) { return 0; }
static void __exit end(void) { }
module_init(begin);
module_exit(end);
MODULE_LICENSE("GPL");
"""


def silent(_line: str) -> None:
    return


@pytest.fixture(scope="session")
def suite(shared_cache: Path) -> Suite:
    return Suite(distributions()[0], X86_64, Arch.host(), shared_cache, silent)


@pytest.fixture(scope="session")
def cloud(toolkit_cloud: Toolkit, registry: LoopbackRegistry, tmp_path_factory: pytest.TempPathFactory) -> ImageFiles:
    """The small files of the cloud toolkit, and the names of all."""
    into = tmp_path_factory.mktemp("cloud") / "files"
    return read_image(registry.client, toolkit_cloud.image, None, _small, into)


def _small(path: str) -> bool:
    return path.endswith(("release.json", "/modules.dep", "/symvers.gz", "/Module.symvers", "/loop.ko.xz", "/config"))


def test_layout_is_that_of_the_driver_toolkit(cloud: ImageFiles, toolkit_cloud: Toolkit) -> None:
    kernel = toolkit_cloud.kernel.release
    modules, headers = f"lib/modules/{kernel}", f"usr/src/kernels/{kernel}"
    for path in (f"{modules}/vmlinuz", f"{modules}/symvers.gz", f"{modules}/modules.builtin", f"{headers}/.config",
                 f"{headers}/scripts/sign-file", f"{modules}/build/Module.symvers", "usr/bin/gcc", "usr/bin/make",
                 "usr/sbin/modprobe", "usr/bin/openssl", "usr/bin/xz", "usr/bin/git", "bin/sh"):  # fmt: skip
        entry = cloud.entry(path)
        assert entry, path
        assert entry.kind == "file", path
    assert cloud.tree.resolve(f"{modules}/build") == headers
    symvers = cloud.file(f"{modules}/symvers.gz")
    own = cloud.file(f"{headers}/Module.symvers")
    assert symvers
    assert own
    assert gzip.decompress(symvers.read_bytes()) == own.read_bytes()


def test_release_file_and_labels(cloud: ImageFiles, toolkit_cloud: Toolkit) -> None:
    kernel = toolkit_cloud.kernel.release
    path = cloud.file("etc/driver-toolkit-release.json")
    assert path
    release = json.loads(path.read_text())
    assert release["KERNEL_VERSION"] == kernel
    assert release["RT_KERNEL_VERSION"] == ""
    assert cloud.config.labels["name"] == "driver-toolkit"
    assert cloud.config.labels["kernel-version"] == kernel


def test_modules_are_compressed_as_the_kernel_reads_them(cloud: ImageFiles, toolkit_cloud: Toolkit) -> None:
    inside = f"usr/lib/modules/{toolkit_cloud.kernel}/kernel/"
    names = [path for path in cloud.paths if path.startswith(inside) and ".ko" in path]
    assert len(names) > 500
    assert all(name.endswith(".ko.xz") for name in names)
    listed = cloud.file(f"lib/modules/{toolkit_cloud.kernel}/modules.dep")
    assert listed
    files = {line.split(":")[0] for line in listed.read_text().splitlines()}
    assert files == {name.removeprefix(inside.removesuffix("kernel/")) for name in names}
    loop = next(path for path in cloud.contents if path.endswith("/loop.ko.xz"))
    packed = cloud.contents[loop].read_bytes()
    reader = lzma.LZMADecompressor()
    assert reader.decompress(packed)[:4] == b"\x7fELF"
    assert reader.check == lzma.CHECK_CRC32


def test_nothing_that_no_module_needs(cloud: ImageFiles) -> None:
    assert not [path for path in cloud.paths if path.startswith(("usr/share/doc/", "usr/share/man/"))]
    assert sum(layer.size for layer in cloud.manifest.layers) < 140 * 2**20


def test_same_packages_same_digest(
    suite: Suite, toolkit_cloud: Toolkit, registry: LoopbackRegistry, shared_cache: Path, tmp_path: Path
) -> None:
    """Made a second time, in an empty cache that only shares the packages, by a user with another umask."""
    (tmp_path / "packages").symlink_to(shared_cache / "packages")
    plan = suite.plan(toolkit_cloud.kernel)
    before = os.umask(0o077)
    try:
        digest = Maker(suite, registry.client, tmp_path, silent).make(plan, registry.repo("again"))
    finally:
        os.umask(before)
    assert digest == toolkit_cloud.image.digest
    assert registry.client.digest(registry.repo("again").tagged(plan.tag)) == digest


def compiled(toolkit: Toolkit, registry: LoopbackRegistry, cache: Path, work: Path) -> str:
    """Compile a module in the toolkit as any Containerfile would; return its vermagic."""
    (work / "one.c").write_text(MODULE)
    (work / "Makefile").write_text("obj-m := one.o\n")
    (work / "Containerfile").write_text(
        "ARG DTK_AUTO\nFROM ${DTK_AUTO} AS builder\nARG KERNEL_VERSION\nWORKDIR /src\nCOPY one.c Makefile .\n"
        "RUN make -C /lib/modules/$KERNEL_VERSION/build M=$PWD modules && modinfo -F vermagic one.ko > vermagic\n"
        "FROM scratch\nCOPY --from=builder /src/vermagic /src/one.ko /\n"
    )
    buildah = Buildah(cache / "containers", registry.access)
    buildah.pull(toolkit.image)
    arguments = {"DTK_AUTO": str(toolkit.image), "KERNEL_VERSION": toolkit.kernel.release}
    image = buildah.build(work, work / "Containerfile", args=arguments, log=work / "log")
    repo = registry.repo("compiled")
    built = repo.at(buildah.push(image, repo.tagged(toolkit.kernel.tag)))
    files = read_image(registry.client, built, None, lambda _path: True, work / "files")
    vermagic = files.file("vermagic")
    assert vermagic
    return vermagic.read_text().strip()


def test_module_compiles(
    toolkit_cloud: Toolkit, registry: LoopbackRegistry, shared_cache: Path, tmp_path: Path
) -> None:
    assert compiled(toolkit_cloud, registry, shared_cache, tmp_path).startswith(f"{toolkit_cloud.kernel} SMP")


def test_module_compiles_for_another_architecture(
    toolkit_arm64: Toolkit, registry: LoopbackRegistry, shared_cache: Path, tmp_path: Path
) -> None:
    found = compiled(toolkit_arm64, registry, shared_cache, tmp_path)
    assert found.startswith(f"{toolkit_arm64.kernel} SMP")
    assert found.endswith("aarch64")
    assert (tmp_path / "files/one.ko").read_bytes()[18] == 0xB7


@pytest.mark.parametrize("name", ["debian-12", "debian-13"])
def test_every_flavour_has_a_plan(name: str, shared_cache: Path) -> None:
    distribution = next(one for one in distributions() if one.name == name)
    for arch in (X86_64, AARCH64):
        asked = Suite(distribution, arch, Arch.host(), shared_cache, silent)
        for variant in distribution.flavours:
            kernel = asked.newest(variant)
            assert (kernel.variant, kernel.arch) == (variant, arch)
            assert kernel in asked.kernels(variant)
            plan = asked.plan(kernel)
            assert any(one.name.startswith("linux-kbuild-") for one in plan.support)
            assert plan.image.version in {one.version for one in plan.headers}


def test_other_suite_and_its_compressed_modules(
    make_toolkit: MakeToolkit, registry: LoopbackRegistry, shared_cache: Path, tmp_path: Path
) -> None:
    toolkit = make_toolkit(release="debian-13", variant="cloud", arch="x86_64")
    assert compiled(toolkit, registry, shared_cache, tmp_path).startswith(f"{toolkit.kernel} SMP")
    files = read_image(registry.client, toolkit.image, None, lambda _path: False, tmp_path / "names")
    assert f"usr/lib/modules/{toolkit.kernel}/kernel/drivers/block/loop.ko.xz" in files.paths


def test_older_kernel(suite: Suite) -> None:
    kernels = suite.kernels("cloud")
    assert len(kernels) > 1
    older = suite.plan(kernels[0])
    newest = suite.plan(suite.newest("cloud"))
    assert older.base_key == newest.base_key
    assert older.kernel_key != newest.kernel_key


# Layers in the cache


def writes(text: bytes, count: list[int]) -> Callable[[Path], Written]:
    def write(path: Path) -> Written:
        count.append(1)
        with LayerWriter(path) as layer:
            layer.file("etc/file", text)
        return layer.written

    return write


def test_layer_is_made_once_and_again_when_damaged(tmp_path: Path) -> None:
    said: list[str] = []
    count: list[int] = []
    path = tmp_path / "toolkits" / "layer.tar.gz"
    first = kept(path, writes(b"text", count), said.append)
    assert kept(path, writes(b"text", count), said.append) == first
    assert (len(count), said) == (1, [])
    for damage in (b"", b"x" * first.written.size):
        path.write_bytes(damage)
        assert kept(path, writes(b"text", count), said.append) == first
    path.with_name("layer.tar.gz.json").write_text("{}")
    assert kept(path, writes(b"text", count), said.append) == first
    path.unlink()
    assert kept(path, writes(b"text", count), said.append) == first
    assert len(count) == 5
    assert said == ["layer.tar.gz in the cache is damaged: it is made again"] * 4


def test_interrupted_work_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "layer.tar.gz"

    def interrupted(partial: Path) -> Written:
        with LayerWriter(partial) as layer:
            layer.file("etc/file", b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(path, interrupted, silent)
    assert not path.exists()
    (tmp_path / ".layer.tar.gz.left").mkdir()
    kept(path, writes(b"text", []), silent)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["layer.tar.gz", "layer.tar.gz.json", "layer.tar.gz.lock"]


def test_full_disk(tmp_path: Path) -> None:
    def write(partial: Path) -> Written:
        partial.symlink_to("/dev/full")
        with LayerWriter(partial, compress=False) as layer:
            layer.file("etc/file", bytes(1 << 20))
        return layer.written

    with pytest.raises(UnsupportedError, match="no space left"):
        kept(tmp_path / "layer.tar", write, silent)
    assert not (tmp_path / "layer.tar").exists()


def test_two_at_once_make_a_layer_once(tmp_path: Path) -> None:
    count: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        layers = list(pool.map(lambda _number: kept(tmp_path / "a.tar.gz", writes(b"text", count), silent), range(8)))
    assert len(set(layers)) == 1
    assert len(count) == 1


def test_layer_says_what_it_is(tmp_path: Path) -> None:
    for compress in (True, False):
        path = tmp_path / f"layer-{compress}"
        with LayerWriter(path, compress=compress) as layer:
            layer.merged_usr()
            layer.file("usr/bin/a", b"first", 0o755)
            layer.file("usr/bin/a", b"second")
            layer.link("usr/bin/b", "a")
        data = path.read_bytes()
        tar = gzip.decompress(data) if compress else data
        assert layer.written == Written(
            "sha256:" + hashlib.sha256(data).hexdigest(), "sha256:" + hashlib.sha256(tar).hexdigest(), len(data)
        )
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            members = {member.name: member for member in archive}
            assert len(members) == len(archive.getmembers())
            assert (members["bin"].linkname, members["usr/bin/b"].linkname) == ("usr/bin", "a")
            content = archive.extractfile("usr/bin/a")
            assert content
            assert content.read() == b"first"
            assert all((one.uid, one.gid, one.uname, one.mtime) == (0, 0, "", 0) for one in members.values())


def test_package_goes_to_its_place_in_a_merged_usr(tmp_path: Path) -> None:
    root = tmp_path / "package"
    for path, text in (("bin/tool", "tool"), ("usr/share/doc/x/copyright", "text"), ("etc/conf", "conf")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "bin/other").hardlink_to(root / "bin/tool")
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: x\n"
    )
    process.run(["dpkg-deb", "--root-owner-group", "--build", root, tmp_path / "x.deb"])
    seen: dict[str, bytes] = {}
    with LayerWriter(tmp_path / "layer", compress=False) as layer:
        layer.merged_usr()
        layer.package(tmp_path / "x.deb", lambda path: not path.startswith("usr/share/doc/x"), seen.__setitem__)
    with tarfile.open(tmp_path / "layer") as archive:
        names = archive.getnames()
        content = archive.extractfile("usr/bin/other")
        assert content
        assert content.read() == b"tool"
    assert len(names) == len(set(names))
    assert {"usr/bin/tool", "usr/bin/other", "etc/conf"} <= set(names)
    assert "usr/share/doc/x/copyright" not in names
    assert seen["etc/conf"] == b"conf"
    with pytest.raises(InvalidError, match="usr/bin/tool"), LayerWriter(tmp_path / "other") as layer:
        layer.package(tmp_path / "x.deb", lambda path: path == "usr/bin/tool")


# What a driver container has besides its modules


@pytest.mark.parametrize("arch", [X86_64, AARCH64], ids=str)
def test_driver_base(arch: Arch, shared_cache: Path, tmp_path: Path) -> None:
    base = driver_base(arch, shared_cache)
    (tmp_path / "packages").symlink_to(shared_cache / "packages")
    assert driver_base(arch, tmp_path).read_bytes() == base.read_bytes()
    assert len(gzip.compress(base.read_bytes())) <= 4.5 * 2**20
    with tarfile.open(base) as archive:
        names = archive.getnames()
    loader = {"x86_64": "usr/lib64/ld-linux-x86-64.so.2", "aarch64": "usr/lib/ld-linux-aarch64.so.1"}[arch.name]
    assert {loader, f"usr/lib/{arch}-linux-gnu/libc.so.6", "usr/bin/sh", "usr/bin/cp", "usr/sbin/modprobe"} <= set(
        names
    )


def test_driver_base_runs(
    shared_cache: Path, toolkit_cloud: Toolkit, registry: LoopbackRegistry, tmp_path: Path
) -> None:
    """Its modprobe reads the modules of another root, in compressed form, also when the shell calls it."""
    (tmp_path / "base.tar").write_bytes(driver_base(Arch.host(), shared_cache).read_bytes())
    (tmp_path / "Containerfile").write_text(
        "ARG TOOLKIT\nARG KERNEL\nFROM ${TOOLKIT} AS toolkit\nFROM scratch\nARG KERNEL\nADD base.tar /\n"
        "COPY --from=toolkit /usr/lib/modules/${KERNEL} /opt/lib/modules/${KERNEL}\n"
        "RUN mkdir -p /copy && cp -R /opt/lib/modules /copy/ && ls /copy/modules/${KERNEL}/modules.dep\n"
        "RUN modprobe -d /opt -S ${KERNEL} --show-depends loop && modinfo -b /opt -k ${KERNEL} -F name loop\n"
    )
    buildah = Buildah(shared_cache / "containers", registry.access)
    buildah.pull(toolkit_cloud.image)
    log = tmp_path / "log"
    arguments = {"TOOLKIT": str(toolkit_cloud.image), "KERNEL": toolkit_cloud.kernel.release}
    image = buildah.build(tmp_path, tmp_path / "Containerfile", args=arguments, log=log)
    assert f"insmod /opt/lib/modules/{toolkit_cloud.kernel}/kernel/drivers/block/loop.ko.xz" in log.read_text()
    buildah.remove(image)
