"""What tests break in our own cluster. Every verb returns when its effect is there."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from tests.e2e.cluster import bringup, layout, machine, worker
from tests.e2e.cluster.bringup import wait_node
from tests.e2e.cluster.control_plane import wait_ready
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
    def without(self, program: str) -> Iterator[None]:
        """Kill a program, and start it again at the end of the block."""
        self.kill(program)
        try:
            yield
        finally:
            self.start(program)

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

    def _machine(self, node: str) -> Machine:
        return next(one for one in layout.MACHINES if one.name == node)

    def _info(self, node: str) -> dict[str, str]:
        info: dict[str, str] = self._kubectl.json("get", "node", node)["status"]["nodeInfo"]
        return info


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    status = pod["status"]
    return [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
