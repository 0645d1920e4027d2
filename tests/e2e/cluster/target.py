"""The cluster that tests run on: ours, or the one that KUBECONFIG names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.e2e.cluster import bringup, layout, waiting
from tests.e2e.cluster.access import Kubectl
from tests.e2e.cluster.binaries import KANIKO_VERSION

if TYPE_CHECKING:
    from dtkpipe.clients.cluster import Cluster as Client

T = TypeVar("T")


@dataclass(frozen=True)
class Node:
    """One node, as it is now."""

    name: str
    kernel: str
    ready: bool
    worker: bool
    """Whether it has a kernel of its own that tests load modules into."""


@dataclass(frozen=True)
class Cluster:
    """A cluster, with what tests need to know of it."""

    kubectl: Kubectl
    registry: str
    """`host:port` of a registry without TLS; the same from pods and from here."""
    address: str
    """This machine's address, as pods see it."""
    own: bool
    """Whether it is the one of tests/e2e/cluster, in which anything may be broken."""

    @property
    def kubeconfig(self) -> Path:
        return self.kubectl.kubeconfig

    @property
    def environ(self) -> dict[str, str]:
        """What a program needs in its environment to find the cluster."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    @property
    def client(self) -> Client:
        """A fresh client of ours."""
        from dtkpipe.clients.cluster import Cluster as Client

        return Client(self.kubeconfig)

    @property
    def busybox(self) -> str:
        return f"{self.registry}/busybox:1"

    @property
    def kaniko(self) -> str:
        return f"gcr.io/kaniko-project/executor:{KANIKO_VERSION}"

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(map(self._node, self.kubectl.json("get", "nodes")["items"]))

    @property
    def workers(self) -> tuple[Node, ...]:
        return tuple(one for one in self.nodes if one.worker)

    def wait(self, what: str, probe: Callable[[], T], seconds: float = 60) -> T:
        """Look again and again until `probe` returns something true; else fail with `what` and what was seen last."""
        return waiting.until(what, probe, seconds)

    def _node(self, found: dict[str, Any]) -> Node:
        name = found["metadata"]["name"]
        said = {one["type"]: one["status"] for one in found["status"].get("conditions", [])}
        return Node(
            name, found["status"]["nodeInfo"]["kernelVersion"], said.get("Ready") == "True",
            self.own and name in {one.name for one in layout.MACHINES},
        )  # fmt: skip


def foreign() -> Path | None:
    """The kubeconfig of another cluster, if one was named."""
    named = os.environ.get("KUBECONFIG", "")
    return Path(named) if named and Path(named).resolve() != layout.run().kubeconfig.resolve() else None


def ours() -> Cluster:
    """Our own cluster, as it is when it is up."""
    return Cluster(bringup.kubectl(), layout.REGISTRY, layout.OUTSIDE, own=True)


def other(kubeconfig: Path) -> Cluster:
    """The cluster of a kubeconfig. Raises RuntimeError where nobody said how its pods reach us."""
    asked = {name: os.environ.get(f"DTKPIPE_E2E_{name}", "") for name in ("REGISTRY", "ADDRESS")}
    if missing := [f"DTKPIPE_E2E_{name}" for name, value in asked.items() if not value]:
        raise RuntimeError(
            f"{' and '.join(missing)} not set: a registry without TLS that pods and this machine reach by the same "
            "host:port, and this machine's address as pods see it"
        )
    program = shutil.which("kubectl")
    if program is None:
        raise RuntimeError("kubectl is not installed")
    return Cluster(Kubectl(Path(program), kubeconfig), asked["REGISTRY"], asked["ADDRESS"], own=False)
