"""deploy: roll a published image out."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dtkpipe.errors import UsageError
from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.steps.deploy.driver import Driver, read_driver
from dtkpipe.steps.deploy.host import load
from dtkpipe.steps.deploy.standing import LOADED
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

__all__ = ["HOST", "Args", "Driver", "Results", "load", "read_driver", "run"]

CLUSTER, HOST = "cluster", "host"


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """The published image, and where it shall be loaded."""

    image: ImageRef = arg("Published image, by digest")
    kernel: Kernel = arg("Kernel release of the image; only nodes with this kernel get it")
    module: str = arg("Name of the driver (default: the image's)", "")
    target: str = arg("`cluster` (a DaemonSet), or `host`: the kernel of this machine", CLUSTER)
    target_namespace: str = arg("Namespace of the DaemonSet", "dtkpipe-drivers")
    run_name: str = arg("Name of the run: what `rollback` knows the DaemonSet by", "")
    canary: str = arg("Label (key=value) of the nodes that get it first; the others follow when all is well there", "")
    max_unavailable: str = arg("How many nodes, or which share, may be without the driver at the same time", "1")
    tolerations: tuple[str, ...] = arg("Taints that do not keep it away: key[=value][:Effect], or * for all", ())
    priority_class_name: str = arg("PriorityClass of the pods", "system-node-critical")
    pull_secret: str = arg("Secret in the target namespace that nodes pull the image with", "")
    firmware_folder: str = arg("Folder of the node that its kernel shall look for firmware in", "/var/lib/firmware")
    rollout_timeout: int = arg("Seconds until every node must have it; then what was there before is put back", 300)


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was rolled out."""

    workload: str = result("`daemonset/<name>`, or `host`")
    nodes: str = result("JSON: node -> `loaded`, or why it is not; cut at 1 KiB")


def run(args: Args, room: Room) -> Results:
    """Load the modules of the image on the target.

    Raises NothingSelectedError when no node runs the kernel, InvalidError when no label of a node says so,
    NotAllowedError for a namespace that we may not write, StepRefusedError with the cause of the node that does not
    get the driver: then what was there before is put back. For this machine: UnsupportedError where it runs another
    kernel or cannot load modules, RunFailedError for a module that the kernel refuses.
    """
    if args.target not in (CLUSTER, HOST):
        raise UsageError(f"--target takes cluster or host, not `{args.target[:80]}`")
    if args.target == CLUSTER:
        from dtkpipe.clients.cluster import Cluster
        from dtkpipe.steps.deploy.cluster import deploy

        return Results(**deploy(Cluster(), args, room))
    from dtkpipe.tools.host import HostKernel

    host = HostKernel()
    host.require(args.kernel)
    load(read_driver(args, args.image, args.kernel, room), room)
    return Results(workload=HOST, nodes=json.dumps({host.name: LOADED}))
