"""smoke-test: prove on every node that the loaded module is the one that was built."""

from __future__ import annotations

from dataclasses import dataclass

from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """What must be loaded, and where."""

    image: ImageRef = arg("Published image, by digest")
    kernel: Kernel = arg("Kernel release of the image")
    workload: str = arg("What deploy rolled out")
    target_namespace: str = arg("Namespace of the DaemonSet", "dtkpipe-drivers")


@dataclass(frozen=True, kw_only=True)
class Results:
    """One verdict per node."""

    nodes: str = result("JSON: node -> verdict, cut at 2 KiB")


def run(args: Args, room: Room) -> Results:
    """Compare every module of the image with what the kernel has loaded."""
    raise NotImplementedError
