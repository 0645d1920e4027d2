"""smoke-test: prove on every node that the loaded module is the one that was built."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtkpipe.errors import UnsupportedError
from dtkpipe.steps.contract import RegistryArgs, Room, StepRefusedError, arg, result
from dtkpipe.steps.deploy import HOST, read_driver
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

if TYPE_CHECKING:
    from dtkpipe.proof.module import KernelModule
    from dtkpipe.tools.host import HostKernel

HEALTHY = "healthy"


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

    nodes: str = result("JSON: node -> `healthy`, or what is wrong; cut at 2 KiB")


def run(args: Args, room: Room) -> Results:
    """Compare every module of the image with what the kernel has loaded.

    Raises StepRefusedError when a module is not loaded or is another one, UnsupportedError for a cluster, for a
    machine with another kernel and for one that cannot load modules.
    """
    if args.workload != HOST:
        raise UnsupportedError(
            "testing the nodes of a cluster is not in this version", hint="test this machine: --workload=host"
        )
    from dtkpipe.tools.host import HostKernel

    host = HostKernel()
    host.require(args.kernel)
    driver = read_driver(args, args.image, args.kernel, room)
    verdict = judge(driver.modules.values(), host)
    room.say(f"{host.name}: {verdict}")
    results = Results(nodes=json.dumps({host.name: verdict})[:2048])
    if verdict != HEALTHY:
        raise StepRefusedError(f"the modules on {host.name} are not what was built", verdict, results=results)
    return results


def judge(modules: Iterable[KernelModule], host: HostKernel) -> str:
    """Return HEALTHY, or the first thing that is wrong with `modules` on `host`, in words."""
    for module in modules:
        state, loaded = host.state(module.name), host.srcversion(module.name)
        if state != "Live":
            return f"{module.name} is {state or 'not loaded'}"
        if loaded != module.srcversion:
            return f"{module.name} is another build: srcversion {loaded or 'none'}, built was {module.srcversion}"
    sick = host.sickness()
    return f"the kernel has had trouble since boot: {', '.join(sick)}" if sick else HEALTHY
