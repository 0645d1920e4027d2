"""Drivers on the nodes of a cluster: rolled out, looked at, tested and taken back, outside of a run.

The work is that of the steps `deploy` and `smoke-test`; here is what they need to know of an image that exists already.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtkpipe.errors import InvalidError, NotFoundError, UsageError
from dtkpipe.steps import deploy as deploying
from dtkpipe.steps import smoke_test as testing
from dtkpipe.steps.contract import RegistryArgs, Room
from dtkpipe.steps.deploy import daemonset as ds
from dtkpipe.steps.deploy.rollout import PUT_BACK_LIMIT, Rollout, Workload
from dtkpipe.steps.smoke_test.cluster import Inquiry
from dtkpipe.steps.smoke_test.judge import Built
from dtkpipe.steps.smoke_test.report import NodeReport
from dtkpipe.values.health import HEALTHY, NOT_CONCERNED, ordered
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

if TYPE_CHECKING:
    from dtkpipe.clients.cluster import Cluster
    from dtkpipe.values.access import RegistryAccess

Say = Callable[[str], None]
_KERNEL_LABEL = "dtkpipe.kernel"
_FOLDER = "opt/lib/modules/"


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where drivers are: a namespace of a cluster, and how registries may be spoken to."""

    cluster: Cluster
    namespace: str
    registries: RegistryArgs
    environ: Mapping[str, str]
    say: Say

    @property
    def access(self) -> RegistryAccess:
        """How registries may be spoken to."""
        return self.registries.access(self.environ)

    def rollout(self, seconds: float = PUT_BACK_LIMIT) -> Rollout:
        """Return the drivers of the namespace; what is waited for ends after `seconds`."""
        return Rollout(self.cluster, self.namespace, self.say, time.monotonic() + seconds)

    @contextmanager
    def room(self, document: Callable[[Mapping[str, Any]], None] = lambda _: None) -> Iterator[Room]:
        """Give a step a room on this machine, for as long as the block runs."""
        with tempfile.TemporaryDirectory(prefix="dtkpipe-") as folder:
            work = Path(folder)
            yield Room(work=work, cache=work, environ=self.environ, say=self.say, document=document)


@dataclass(frozen=True, kw_only=True)
class Published:
    """An image, by digest, and the kernel that it is for."""

    image: ImageRef
    kernel: Kernel


@dataclass(frozen=True, kw_only=True)
class Driver:
    """One driver on one kernel, as it stands. `reports` are those of the nodes that it is for."""

    workload: Workload = field(repr=False)
    reports: tuple[NodeReport, ...]

    @property
    def module(self) -> str:
        """The driver's name."""
        return _module(self.workload)

    @property
    def ready(self) -> int:
        """How many nodes have its pod ready."""
        return int((self.workload.data.get("status") or {}).get("numberReady") or 0)

    @property
    def healthy(self) -> int:
        """How many nodes have loaded just what was rolled out."""
        return sum(report.verdict.word == HEALTHY for report in self.reports)

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        workload = self.workload
        return {
            "module": self.module,
            "kernel": workload.annotation(ds.KERNEL),
            "workload": f"daemonset/{workload.name}",
            "image": workload.annotation(ds.IMAGE),
            "previousImage": workload.annotation(ds.PREVIOUS),
            "run": workload.annotation(ds.RUN),
            "rollout": workload.annotation(ds.ROLLOUT),
            "ready": self.ready,
            "healthy": self.healthy,
            "nodes": {report.verdict.node: report.document() for report in self.reports},
        }


def published(site: Site, image: ImageRef, kernel: str = "") -> Published:
    """Return an image by digest, and its kernel: the one given, its label's, or that of the modules it holds.

    Raises NotFoundError, InvalidError for an image that holds no modules, UsageError where it has several kernels.
    """
    from dtkpipe.clients.registry import Registry

    registry = Registry(site.access)
    pinned = replace(image, tag="") if image.digest else image.at(registry.digest(image))
    if kernel:
        return Published(image=pinned, kernel=Kernel.parse(kernel))
    if label := registry.config(pinned).labels.get(_KERNEL_LABEL, ""):
        return Published(image=pinned, kernel=Kernel.parse(label))
    found = _kernels_in(site, registry, pinned)
    if not found:
        raise InvalidError(
            f"{image} is no driver image: it has no modules", f"looked for: its label {_KERNEL_LABEL}, /{_FOLDER}",
            hint="--kernel, if its modules are in /lib/modules",
        )  # fmt: skip
    if len(found) > 1:
        raise UsageError(
            f"{image} has modules for several kernels", *found[:20],
            hint=f"say which: --kernel {found[0]}",
        )  # fmt: skip
    site.say(f"{image} has no label {_KERNEL_LABEL}; it holds modules for {found[0]}")
    return Published(image=pinned, kernel=Kernel.parse(found[0]))


def deploy(site: Site, args: deploying.Args) -> dict[str, str]:
    """Roll an image out. Raises what step `deploy` raises."""
    from dtkpipe.steps.deploy.cluster import deploy as roll_out

    with site.room() as room:
        return roll_out(site.cluster, args, room)


def status(site: Site, module: str = "", kernel: str = "") -> list[Driver]:
    """Look at the drivers: all, or those of a module. Raises NotFoundError for a module that has none."""
    return [Driver(workload=one, reports=tuple(_reports(site, one))) for one in _chosen(site, module, kernel)]


def rollback(site: Site, module: str, kernel: str = "") -> str:
    """Put the image before back on all nodes, wait for it, and return what was done.

    Raises NotFoundError where there is no driver or no image before, UsageError where it is there for several kernels.
    """
    found = _chosen(site, module, kernel)
    if len(found) > 1:
        kernels = [one.annotation(ds.KERNEL) for one in found]
        raise UsageError(
            f"{module} is deployed for several kernels", *kernels, hint=f"say which: --kernel {kernels[0]}"
        )
    return site.rollout().put_back(found[0], remove=False)


@dataclass(frozen=True, kw_only=True)
class Test:
    """A smoke test of one driver: its answer, and why it is no, if it is."""

    document: Mapping[str, Any]
    refusal: Exception | None


def smoke_test(site: Site, target: str, kernel: str, *, ready_within: int, require_all_nodes: bool) -> Iterator[Test]:
    """Test the drivers of a module or an image on all their nodes, one driver after the other.

    Raises NotFoundError for what is not deployed.
    """
    from dtkpipe.errors import RunFailedError

    for workload in _targets(site, target, kernel):
        documents: list[Mapping[str, Any]] = []
        args = testing.Args(
            image=ImageRef.parse(workload.annotation(ds.IMAGE)), kernel=workload.kernel,
            workload=f"daemonset/{workload.name}", target_namespace=site.namespace, ready_within=ready_within,
            require_all_nodes=require_all_nodes, **vars(site.registries),
        )  # fmt: skip
        refusal = None
        with site.room(documents.append) as room:
            try:
                testing.run_on(site.cluster, args, room)
            except RunFailedError as error:
                refusal = error
        yield Test(document=documents[-1], refusal=refusal)


def uncovered(drivers: Sequence[Driver]) -> dict[str, list[str]]:
    """Return the nodes for whose kernel a module has no driver here: module -> nodes."""
    modules = {driver.module for driver in drivers}
    found: dict[str, list[str]] = {}
    for module in sorted(modules):
        every = [{r.verdict.node for r in one.reports if r.verdict.word == "other-kernel"}
                 for one in drivers if one.module == module]  # fmt: skip
        if left := set.intersection(*every):
            found[module] = sorted(left)
    return found


def _kernels_in(site: Site, registry: Any, image: ImageRef) -> list[str]:
    from dtkpipe.clients.image import read_image
    from dtkpipe.proof.module import is_module_file

    with site.room() as room:
        files = read_image(registry, image, None, lambda _path: False, room.work / "image")
    held = {path.removeprefix(_FOLDER).split("/")[0] for path in files.paths
            if path.startswith(_FOLDER) and is_module_file(path)}  # fmt: skip
    return sorted(held)


def _chosen(site: Site, module: str, kernel: str) -> list[Workload]:
    """Return the drivers of a module, in one order. Raises NotFoundError."""
    import difflib

    every = sorted(site.rollout().all(), key=lambda one: (_module(one), one.annotation(ds.KERNEL)))
    of_module = [one for one in every if not module or _module(one) == ds.module_label(module)]
    if module and not of_module:
        names = sorted({_module(one) for one in every})
        near = difflib.get_close_matches(module, names, n=1)
        raise NotFoundError(
            f"there is no driver `{module[:80]}` in namespace {site.namespace}",
            f"drivers: {', '.join(names) or 'none'}",
            hint=f"did you mean `{near[0]}`?" if near else "dtkpipe deploy IMAGE, or --target-namespace",
        )  # fmt: skip
    found = [one for one in of_module if not kernel or one.annotation(ds.KERNEL) == kernel]
    if kernel and not found:
        kernels = [one.annotation(ds.KERNEL) for one in of_module]
        raise NotFoundError(
            f"{module or 'no driver'} is not deployed for kernel {kernel}", f"but for: {', '.join(kernels) or 'none'}"
        )
    return found


def _module(workload: Workload) -> str:
    return str((workload.data["metadata"].get("labels") or {}).get(ds.MODULE_LABEL) or workload.name)


def _targets(site: Site, target: str, kernel: str) -> list[Workload]:
    if "/" not in target:
        return _chosen(site, target, kernel)
    image = ImageRef.parse(target)
    pinned = published(site, image, kernel).image
    found = [one for one in _chosen(site, "", kernel) if one.annotation(ds.IMAGE).endswith(pinned.digest)]
    if not found:
        raise NotFoundError(
            f"{image} is not deployed in namespace {site.namespace}", f"looked for: {pinned.digest}",
            hint=f"dtkpipe deploy {image}",
        )  # fmt: skip
    return found


def _reports(site: Site, workload: Workload) -> list[NodeReport]:
    containers = workload.data["spec"]["template"]["spec"]["containers"]
    acts = next((one.get("args") or () for one in containers if one.get("name") == ds.CONTAINER), ())
    modules = [built for act in acts if (built := Built.from_act(act))]
    inquiry = Inquiry(
        cluster=site.cluster, namespace=site.namespace, workload=workload, modules=modules, spec=None
    )  # fmt: skip
    found = {report.verdict.node: report for report in inquiry.reports(lambda _: None)}
    return [found[verdict.node] for verdict in ordered([report.verdict for report in found.values()])]


def concerned(reports: Sequence[NodeReport]) -> list[NodeReport]:
    """Return the reports of those nodes that the driver is for."""
    return [report for report in reports if report.verdict.word not in NOT_CONCERNED]
