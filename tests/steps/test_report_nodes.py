"""deploy and smoke-test on this machine: what they refuse."""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

import pytest

from dtkpipe.errors import InvalidError, RunFailedError, UnsupportedError, UsageError
from dtkpipe.proof.module import KernelModule
from dtkpipe.steps import deploy, smoke_test
from dtkpipe.steps.contract import RegistryArgs, Room
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from tests.fixtures.registry import LoopbackRegistry

OTHER = Kernel.parse("6.1.0-1-cloud-amd64")
HERE = Kernel.parse(platform.release())
IMAGE = ImageRef.parse("127.0.0.1:1/org/kmod").at("sha256:" + "0" * 64)
HELLO = KernelModule(
    file="hello.ko", name="hello", machine="EM_X86_64", srcversion="ABC123", imports={}, exports={}
)  # fmt: skip


@pytest.fixture
def room(tmp_path: Path) -> Room:
    (tmp_path / "work").mkdir()
    return Room(work=tmp_path / "work", cache=tmp_path, environ={}, say=lambda _: None)


def test_a_target_that_is_none_is_refused(room: Room) -> None:
    with pytest.raises(UsageError, match="takes cluster or host"):
        deploy.run(deploy.Args(image=IMAGE, kernel=OTHER, target="moon"), room)


def test_another_kernel_is_refused_before_anything_is_fetched(room: Room) -> None:
    expected = f"the kernel of this machine is {platform.release()}, the image is for {OTHER}"
    with pytest.raises(UnsupportedError, match=expected):
        deploy.run(deploy.Args(image=IMAGE, kernel=OTHER, target="host"), room)
    with pytest.raises(UnsupportedError, match=expected):
        smoke_test.run(smoke_test.Args(image=IMAGE, kernel=OTHER, workload="host"), room)


def push(registry: LoopbackRegistry, files: dict[str, bytes], labels: dict[str, str]) -> ImageRef:
    """Push an image of one layer with `files`."""
    repo, client = registry.repo("kmod"), registry.client
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    packed = client.push_blob(repo, gzip.compress(layer.getvalue()))
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
        }
    ).encode()  # fmt: skip
    described = client.push_blob(repo, config)
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": described.digest,
                   "size": described.size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": packed.digest,
                    "size": packed.size}],
    }  # fmt: skip
    return repo.at(client.push_manifest(repo, json.dumps(manifest).encode()))


def test_an_image_for_another_kernel_is_invalid(registry: LoopbackRegistry, room: Room) -> None:
    image = push(registry, {f"opt/lib/modules/{OTHER}/modules.dep": b""}, {})
    access = RegistryArgs(insecure_registries=(registry.host,))
    with pytest.raises(InvalidError, match=f"has no modules for kernel {HERE}"):
        deploy.read_driver(access, image, HERE, room)


def test_what_the_kernel_does_not_take_fails_the_run(room: Room, tmp_path: Path) -> None:
    driver = deploy.Driver(tmp_path / "opt", {"hello": HELLO}, None)
    with pytest.raises(RunFailedError, match=r"modprobe --dirname .* hello` failed on this machine"):
        deploy.load(driver, room)
