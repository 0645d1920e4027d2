"""What tests break in our own cluster. Every verb returns when its effect is there."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.e2e.cluster import bringup, layout, machine, worker
from tests.e2e.cluster.bringup import wait_node
from tests.e2e.cluster.control_plane import registry, wait_ready
from tests.e2e.cluster.layout import Machine
from tests.e2e.cluster.processes import Box
from tests.e2e.cluster.waiting import until

_CONTAINERD = ("ctr", "--namespace", "k8s.io", "--address")


class Faults:
    """Breaks programs, containers and machines, and repairs them.

    Programs: etcd, apiserver, controllers, scheduler, proxy, kubelet, containerd, registry, argo-controller.
    """

    def __init__(self) -> None:
        self._box = Box(layout.run())
        self._kubectl = bringup.kubectl()

    def kill(self, program: str) -> None:
        """Kill a program of the cluster (SIGKILL)."""
        self._box.end(program)

    def start(self, program: str) -> None:
        """Start a program as it was started before, if it does not run; returns when it answers."""
        if not self._box.alive(program):
            self._box.start_again(program)
        wait_ready(self._box, program)

    @contextlib.contextmanager
    def without(self, program: str, seconds: float = 0) -> Iterator[None]:
        """Kill a program, and start it again after the block, and not before `seconds` are over."""
        self.kill(program)
        over = time.monotonic() + seconds
        try:
            yield
            time.sleep(max(0.0, over - time.monotonic()))  # an outage has a length
        finally:
            self.start(program)

    @contextlib.contextmanager
    def without_controller(self, engine: str) -> Iterator[None]:
        """Kill the controller of `argo` or `tekton`, and start it again after the block."""
        if engine == "argo":
            with self.without("argo-controller"):
                yield
            return
        name, said = "deployment/tekton-pipelines-controller", "app.kubernetes.io/name=controller"
        ask = partial(self._kubectl, "-n", "tekton-pipelines")
        ask("scale", name, "--replicas=0")
        ask("delete", "pod", "--selector", said, "--force", "--grace-period=0")
        try:
            yield
        finally:
            ask("scale", name, "--replicas=1")
            ask("rollout", "status", name, "--timeout=180s")

    @contextlib.contextmanager
    def guarded_registry(self) -> Iterator[None]:
        """In the place of the registry, let one with the same images stand that knows nobody."""
        run = self._box.run
        (run.folder / "nobody").touch()
        guard = {"": "htpasswd", "_HTPASSWD_REALM": "nobody", "_HTPASSWD_PATH": str(run.folder / "nobody")}
        self.kill("registry")
        try:
            self._box.start("registry", registry(run), {f"REGISTRY_AUTH{key}": value for key, value in guard.items()})
            wait_ready(self._box, "registry", status=401)
            yield
        finally:
            self.kill("registry")
            self._box.start("registry", registry(run))
            wait_ready(self._box, "registry")

    def kernels(self) -> tuple[str, ...]:
        """The kernels that every worker can boot."""
        return tuple(machine.image(print).kernels.values())

    def power_off(self, node: str) -> None:
        """Pull the plug of a worker, and return when the cluster has noticed."""
        self._box.end(self._machine(node).name)
        wait_node(node, ready=False)

    def power_on(self, node: str, kernel: str = "") -> None:
        """Turn a worker on, with another kernel if one is named, and return when it is Ready."""
        one, image = self._machine(node), machine.image(print)
        before = self._info(node)["bootID"]
        if self._box.alive(one.name):
            raise RuntimeError(f"{node} is on: power it off first")
        worker.boot(self._box, one, image, kernel)
        until(f"{node} has booted", lambda: self._info(node)["bootID"] != before, 180)
        self.wait_ready(node)
        assert self._info(node)["kernelVersion"] == (kernel or image.kernels[one.variant])

    def wait_ready(self, node: str) -> None:
        """Return when a node is Ready."""
        wait_node(node)

    def kill_container(self, namespace: str, pod: str, container: str) -> None:
        """Kill the first process of a container that runs on node0 (SIGKILL)."""
        found = self._kubectl.json("-n", namespace, "get", "pod", pod)
        status = next(one for one in _containers(found) if one["name"] == container)
        identity = status["containerID"].removeprefix("containerd://")
        self._box.command(
            [*_CONTAINERD, self._box.run.containerd, "tasks", "kill", "--signal", str(int(signal.SIGKILL)), identity]
        )

    def repair(self) -> None:
        """Start whatever does not run: called after each test that broke something."""
        for program in self._box.names():
            if not self._box.alive(program):
                if program in {one.name for one in layout.MACHINES}:
                    self.power_on(program)
                else:
                    self.start(program)
        for node in (layout.NODE, *(one.name for one in layout.MACHINES)):
            self.wait_ready(node)  # a kubelet takes its time after an API server was away

    def _machine(self, node: str) -> Machine:
        return next(one for one in layout.MACHINES if one.name == node)

    def _info(self, node: str) -> dict[str, str]:
        info: dict[str, str] = self._kubectl.json("get", "node", node)["status"]["nodeInfo"]
        return info


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    status = pod["status"]
    return [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
