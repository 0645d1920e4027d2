"""deploy: roll a published image out."""

from __future__ import annotations

from dataclasses import dataclass

from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """The published image, and where it shall be loaded."""

    image: ImageRef = arg("Published image, by digest")
    kernel: Kernel = arg("Kernel release of the image; only nodes with this kernel get it")
    module: str = arg("Name of the module", "")
    target: str = arg("`cluster` (a DaemonSet), or `host`: the kernel of this machine", "cluster")
    target_namespace: str = arg("Namespace of the DaemonSet", "dtkpipe-drivers")


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was rolled out."""

    workload: str = result("`daemonset/<name>`, or `host`")


def run(args: Args, room: Room) -> Results:
    """Load the modules of the image on the target."""
    raise NotImplementedError
