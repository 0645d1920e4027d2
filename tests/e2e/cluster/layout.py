"""Where everything of the test cluster is: addresses, names, folders. Nothing else holds such a fact."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.resources import cache_dir

BRIDGE = "dtk0"
"""Name of the bridge inside the cluster's network, and of its end on this machine."""
BRIDGE_MAC = "52:54:00:00:00:00"
"""Of its own: without one it has the lowest of the pods', and is not found for a while when that pod goes."""
NETWORK = "10.245.0.0/16"
"""Nodes have 10.245.0.x, the pods of node n have 10.245.n.x."""
SERVICES = "10.97.0.0/16"
FIRST_SERVICE = "10.97.0.1"
HOST = "10.245.0.1"
"""node0: API server, registry, containerd, kubelet."""
OUTSIDE = "10.245.0.254"
"""This machine, as nodes and pods see it."""
API = f"https://{HOST}:6443"
REGISTRY = f"{HOST}:5000"
ARGO_SERVER = f"http://{HOST}:2746"
CGROUP = "dtkpipe-e2e"
"""Pods live below this cgroup, so that another kubelet on this machine does not take them for its own leftovers."""
NODE = "node0"


@dataclass(frozen=True)
class Machine:
    """A worker node in QEMU. `variant` is the flavour of the kernel that it boots first."""

    name: str
    number: int
    variant: str

    @property
    def address(self) -> str:
        return f"10.245.0.{self.number + 1}"

    @property
    def pods(self) -> str:
        return f"10.245.{self.number + 1}.0/24"

    @property
    def tap(self) -> str:
        return f"tap{self.number}"

    @property
    def mac(self) -> str:
        return f"52:54:00:00:00:0{self.number}"


DISTRIBUTION = "debian-12"
"""What the workers run; their kernels are the newest of this one's, as those of its toolkits are."""
MACHINES = (Machine("worker1", 1, "cloud"), Machine("worker2", 2, "std"))


def cache() -> Path:
    """What is kept between runs, by content."""
    return cache_dir(os.environ) / "e2e"


@dataclass(frozen=True)
class Run:
    """The folder of the cluster that is up, or was."""

    folder: Path

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def processes(self) -> Path:
        return self.folder / "processes"

    @property
    def containerd(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def registry(self) -> Path:
        return self.folder / "registry"

    def log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.log"


def run() -> Run:
    """There is one cluster on a machine; this is where it keeps what it needs."""
    return Run(cache() / "run")
