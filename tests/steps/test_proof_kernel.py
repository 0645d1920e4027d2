"""The files of a target kernel: out of a real toolkit, through the cache, through the registry."""

from pathlib import Path

import pytest

from dtkpipe.errors import InvalidError
from dtkpipe.proof.kernel import KernelFiles
from dtkpipe.proof.kernel_store import kernel_files, publish_kernel, stored_kernel
from dtkpipe.proof.module import parse_module
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.toolkit import Toolkit

pytestmark = pytest.mark.tools


@pytest.fixture(scope="module")
def kernel(registry: LoopbackRegistry, toolkit_cloud: Toolkit, tmp_path_factory) -> KernelFiles:
    return kernel_files(registry.client, toolkit_cloud.image, None, tmp_path_factory.mktemp("cache"))


def test_everything_that_proofs_need_comes_out_of_the_toolkit(kernel: KernelFiles, toolkit_cloud: Toolkit) -> None:
    assert kernel.kernel == toolkit_cloud.kernel
    assert kernel.arch == toolkit_cloud.arch
    assert kernel.vermagic.split()[0] == kernel.kernel.release
    assert kernel.vmlinuz.stat().st_size > 1 << 20
    assert kernel.sign_file.stat().st_mode & 0o100
    assert kernel.exports["_printk"].crc
    assert kernel.exports["sysfs_create_group"].gpl
    assert "loop" in kernel.builtin | kernel.in_tree.keys()
    path = kernel.in_tree["dummy"]
    assert kernel.dependencies[path] == ()
    assert parse_module(kernel.module(path), path).name == "dummy"


def test_a_kernel_travels_through_the_registry(registry: LoopbackRegistry, kernel: KernelFiles, tmp_path: Path) -> None:
    repo = registry.repo("staging/kernels")
    artifact = publish_kernel(registry.client, kernel, repo)
    assert publish_kernel(registry.client, kernel, repo) == artifact
    stored = stored_kernel(registry.client, artifact, tmp_path)
    assert stored.sums == kernel.sums
    assert stored.toolkit == kernel.toolkit


def test_a_damaged_cache_is_found_and_made_again(
    registry: LoopbackRegistry, toolkit_cloud: Toolkit, kernel: KernelFiles
) -> None:
    cache = kernel.folder.parent.parent.parent
    kernel.vmlinuz.write_bytes(b"not a kernel")
    again = kernel_files(registry.client, toolkit_cloud.image, None, cache)
    assert again.vmlinuz.stat().st_size > 1 << 20
    assert again.sums == kernel.sums


def test_a_kernel_that_the_toolkit_lacks_is_said(
    registry: LoopbackRegistry, toolkit_cloud: Toolkit, tmp_path: Path
) -> None:
    from dtkpipe.errors import NotFoundError

    with pytest.raises(NotFoundError, match=r"5\.14\.0-1\.el9\.x86_64"):
        kernel_files(registry.client, toolkit_cloud.image, None, tmp_path, "5.14.0-1.el9.x86_64")


def test_an_image_that_is_no_kernel_artifact_is_said(
    registry: LoopbackRegistry, toolkit_cloud: Toolkit, tmp_path: Path
) -> None:
    with pytest.raises(InvalidError, match="not a kernel artifact"):
        stored_kernel(registry.client, toolkit_cloud.image, tmp_path)
