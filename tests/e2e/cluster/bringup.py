"""The cluster comes up, goes down, and says how it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.e2e.cluster import binaries, certificates, control_plane, engines, images, layout, machine, network, worker
from tests.e2e.cluster.access import Kubectl
from tests.e2e.cluster.binaries import KUBERNETES
from tests.e2e.cluster.control_plane import wait_ready
from tests.e2e.cluster.layout import MACHINES, Machine
from tests.e2e.cluster.processes import Box
from tests.e2e.cluster.waiting import NotYet, until

Say = Callable[[str], None]
_BOOT = 150
"""Seconds in which a worker is Ready, if it gets that far: 30 to 60 on two cores."""


def kubectl() -> Kubectl:
    """kubectl for our own cluster."""
    return Kubectl(KUBERNETES.program("kubectl"), layout.run().kubeconfig)


def make(say: Say) -> tuple[machine.Image, Path]:
    """Make what is kept between runs: programs, the disk of the workers, the storage of the registry."""
    binaries.build(say)
    return machine.image(say), images.storage(say)


def up(say: Say) -> bool:
    """Bring the cluster up unless it is up. Returns whether it was down."""
    if os.geteuid() != 0:
        raise RuntimeError("the test cluster is made of namespaces, mounts and machines: run it as root")
    with _alone():
        box = Box(layout.run())
        if is_up(box):
            return False
        _clean(box)
        disk, storage = make(say)
        started = time.monotonic()
        try:
            with ThreadPoolExecutor() as pool:
                _up(box, disk, pool.submit(shutil.copytree, storage, box.run.registry), say)
        except BaseException:
            for log in sorted((box.run.folder / "log").glob("*.log")):
                say(f"{log}:")
                say("".join(f"  {line[:300]}\n" for line in log.read_text(errors="replace").splitlines()[-4:]))
            raise
        (box.run.folder / "content").write_text(_content())
        say(f"the cluster is up after {time.monotonic() - started:.0f} s")
        return True


def _up(box: Box, disk: machine.Image, images_there: Future[object], say: Say) -> None:
    run = box.run
    box.create()
    network.lay(box)
    certificates.write(run)
    box.start("etcd", control_plane.etcd(run))
    box.start("apiserver", control_plane.apiserver(run))
    box.start("containerd", control_plane.containerd(run))
    for one in MACHINES:
        worker.prepare(run, one, disk)
        worker.boot(box, one, disk)
    images_there.result()
    box.start("registry", control_plane.registry(run))
    wait_ready(box, "apiserver")
    say("the API server answers")
    for name, argv in (
        ("controllers", control_plane.controllers), ("scheduler", control_plane.scheduler),
        ("proxy", control_plane.proxy), ("kubelet", control_plane.kubelet),
    ):  # fmt: skip
        box.start(name, argv(run))
    wait_ready(box, "registry")
    ask = kubectl()
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(engines.tekton, ask), pool.submit(engines.argo, box, ask),
            pool.submit(wait_node, layout.NODE),
            *(pool.submit(_join, box, one, disk, say) for one in MACHINES),
        ]  # fmt: skip
        for job in jobs:
            job.result()


def _join(box: Box, one: Machine, disk: machine.Image, say: Say) -> None:
    """Return when a worker is Ready. An emulated machine that gets stuck while it boots is started once more."""
    try:
        wait_node(one.name, seconds=_BOOT)
    except TimeoutError as error:
        say(f"{error}: {one.name} is turned off, and on again")
        box.end(one.name)
        worker.prepare(box.run, one, disk)
        worker.boot(box, one, disk)
        wait_node(one.name)


def wait_node(name: str, ready: bool = True, seconds: float = 300) -> None:
    """Return when a node is Ready, or is not."""

    def look() -> bool:
        try:
            node = kubectl().json("get", "node", name)
        except RuntimeError as error:
            raise NotYet(str(error)) from error
        said = {one["type"]: one["status"] for one in node["status"].get("conditions", [])}
        if (said.get("Ready") == "True") is not ready:
            raise NotYet(f"Ready is {said.get('Ready')}")
        return True

    until(f"node {name} is {'' if ready else 'not '}Ready", look, seconds)


def down(say: Say) -> None:
    """Take the cluster down, and remove what it left; also what an earlier one left that was killed."""
    with _alone():
        _clean(Box(layout.run()))
    say("the cluster is down")


def _clean(box: Box) -> None:
    network.cut()
    box.close()
    shutil.rmtree(box.run.folder, ignore_errors=True)


def is_up(box: Box) -> bool:
    """Whether the cluster is up, complete, and the one that this checkout makes."""
    content = box.run.folder / "content"
    return box.open and content.exists() and content.read_text() == _content()


def status() -> list[tuple[str, str]]:
    """What runs, and where: (name, what about it)."""
    box = Box(layout.run())
    if not box.open:
        return [("cluster", "down")]
    rows = [("kubeconfig", str(box.run.kubeconfig)), ("registry", layout.REGISTRY)]
    rows += [(name, "runs" if box.alive(name) else "has ended") for name in box.names()]
    return rows


def _content() -> str:
    return "\n".join(engine.folder.name for engine in binaries.ENGINES)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    layout.cache().mkdir(parents=True, exist_ok=True)
    with (layout.cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
