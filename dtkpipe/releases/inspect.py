"""What registries tell of one stream of a release: the kernels of its toolkit, and the kernel of its operating system.

The toolkit is never pulled: its labels are read, then its newest layers, and of those at most BUDGET bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from dtkpipe.clients.registry import Registry
from dtkpipe.errors import DtkpipeError, NotFoundError
from dtkpipe.releases.images import Stream
from dtkpipe.toolkits.existing import RELEASE_FILE, kernel_named, kernels_told
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

BUDGET = 32 * 2**20
"""Bytes of a toolkit's layers that are read. Its release file stands alone in the newest."""
_OS_LABELS = ("ostree.linux", "com.coreos.rpm.kernel")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """What was found out about one stream. An error says why something is missing."""

    told: Mapping[str, Kernel]
    """The toolkit's kernels by variant."""
    where: str
    """Where they were read, in words."""
    os_kernel: Kernel | None
    toolkit_error: DtkpipeError | None = None
    os_error: DtkpipeError | None = None


def kernels(registry: Registry, stream: Stream, arch: Arch, variants: Collection[str] = ()) -> Kernels:
    """Read the kernels of a stream's toolkit and of its operating system, side by side. Errors are in the answer."""
    with ThreadPoolExecutor(1) as pool:
        system = pool.submit(_tried, lambda: os_kernel(registry, stream.os_image, arch))
        told, toolkit_error = _tried(lambda: toolkit_kernels(registry, stream.toolkit, arch, variants))
        kernel, os_error = system.result()
    return Kernels(
        told=told[0] if told else {}, where=told[1] if told else "", os_kernel=kernel,
        toolkit_error=toolkit_error, os_error=os_error,
    )  # fmt: skip


def _tried(work: Callable[[], T]) -> tuple[T | None, DtkpipeError | None]:
    try:
        return work(), None
    except DtkpipeError as error:
        return None, error


def toolkit_kernels(
    registry: Registry, toolkit: ImageRef, arch: Arch, variants: Collection[str] = ()
) -> tuple[Mapping[str, Kernel], str]:
    """Return the kernels of a toolkit image by variant, and where they were read.

    Raises NotFoundError when it does not tell, and what the registry client raises.
    """
    manifest = registry.manifest(toolkit, arch)
    found, where = kernels_told(registry, toolkit.at(manifest.digest), manifest, arch, variants, budget=BUDGET)
    if not found:
        size = sum(layer.size for layer in manifest.layers)
        below = f"{(size - BUDGET) // 2**20 + 1} MiB of layers lie below, and are not pulled" if size > BUDGET else ""
        raise NotFoundError(
            f"{toolkit} does not tell its kernel for {arch}",
            f"looked in: its labels; /{RELEASE_FILE} and packages in its newest {BUDGET // 2**20} MiB of layers",
            *filter(None, (where, below)),
            hint=f"dtkpipe step resolve --toolkit {toolkit} pulls it and looks at the kernels inside",
        )
    return found, where


def os_kernel(registry: Registry, image: ImageRef | None, arch: Arch) -> Kernel | None:
    """Return the kernel that the labels of an image of the operating system tell; None where they do not."""
    if image is None:
        return None
    labels = registry.config(image, arch).labels
    return next((found for name in _OS_LABELS if (found := kernel_named(labels.get(name), arch))), None)
