"""deploy: roll a published image out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dtkpipe.errors import InvalidError, RunFailedError, UnsupportedError, UsageError
from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

if TYPE_CHECKING:
    from dtkpipe.proof.module import KernelModule
    from dtkpipe.values.module import ModuleSpec

HOST = "host"


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


@dataclass(frozen=True)
class Driver:
    """The modules of an image, unpacked. `folder` is what `modprobe --dirname` takes."""

    folder: Path
    modules: Mapping[str, KernelModule]
    spec: ModuleSpec | None
    """How the image's label says that they are loaded; None for an image without that label."""


def run(args: Args, room: Room) -> Results:
    """Load the modules of the image on the target.

    Raises UnsupportedError for a cluster, for a machine with another kernel and for one that cannot load modules,
    RunFailedError for a module that the kernel refuses.
    """
    if args.target not in ("cluster", HOST):
        raise UsageError(f"--target takes cluster or host, not `{args.target[:80]}`")
    if args.target != HOST:
        raise UnsupportedError(
            "deploying to a cluster is not in this version",
            hint="end at the published image (pipeline `prebuild`), or load it on this machine: --target=host",
        )
    from dtkpipe.tools.host import HostKernel

    HostKernel().require(args.kernel)
    load(read_driver(args, args.image, args.kernel, room), room)
    return Results(workload=HOST)


def read_driver(access: RegistryArgs, image: ImageRef, kernel: Kernel, room: Room) -> Driver:
    """Unpack the modules of `image` into the room. Raises InvalidError when it has none for `kernel`."""
    from dtkpipe.clients.image import read_image
    from dtkpipe.clients.registry import Registry
    from dtkpipe.proof.module import is_module_file, read_module
    from dtkpipe.values.module import ModuleSpec

    registry = Registry(access.access(room.environ))
    home = f"opt/lib/modules/{kernel}/"
    into = room.work / "image"
    files = read_image(registry, image, kernel.arch, lambda path: path.startswith(home), into)
    found = [read_module(file, path) for path, file in files.contents.items() if is_module_file(path)]
    if not found:
        raise InvalidError(f"{image} has no modules for kernel {kernel}", f"looked in: /{home}")
    label = files.config.labels.get("dtkpipe.spec", "")
    spec = ModuleSpec.from_text(label, where=f"label dtkpipe.spec of {image}") if label else None
    return Driver(into / "opt", {module.name: module for module in found}, spec)


def load(driver: Driver, room: Room) -> None:
    """Load the driver's modules into this machine's kernel, with what they depend on. Raises RunFailedError."""
    if driver.spec and driver.spec.firmware:
        raise UnsupportedError(
            "loading a module with firmware on this machine is not in this version",
            f"firmware: {', '.join(driver.spec.firmware)}",
        )
    for name in driver.spec.in_tree_modules_to_remove if driver.spec else ():
        _modprobe(room, "--remove", name)
    in_tree = {needed for module in driver.modules.values() for needed in module.depends} - set(driver.modules)
    for name in sorted(in_tree):
        _modprobe(room, name)
    parameters = {module.name: module.parameters for module in driver.spec.modules} if driver.spec else {}
    for name in [*parameters, *(one for one in driver.modules if one not in parameters)]:
        _modprobe(room, "--dirname", str(driver.folder), name, *parameters.get(name, ()))
        room.say(f"loaded {name}")


def _modprobe(room: Room, *words: str) -> None:
    from dtkpipe.tools.process import run as run_program

    done = run_program(["modprobe", *words], cwd=room.work, timeout=120, ok=None)
    if done.returncode:
        lines = [line.removeprefix("modprobe: ") for line in done.errors.splitlines() if line.strip()]
        raise RunFailedError(f"`modprobe {' '.join(words)}` failed on this machine", *lines[-5:])
