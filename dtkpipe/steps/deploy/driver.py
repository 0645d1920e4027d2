"""Part of deploy: the modules that an image holds for a kernel, and how its label says that they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dtkpipe.errors import InvalidError
from dtkpipe.steps.contract import RegistryArgs, Room
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

if TYPE_CHECKING:
    from dtkpipe.proof.module import KernelModule
    from dtkpipe.values.module import ModuleSpec

_FOLDERS = ("opt/", "", "usr/")
"""Where images have lib/modules: KMM's place first."""


@dataclass(frozen=True)
class Driver:
    """The modules of an image, unpacked. `folder` is what `modprobe --dirname` takes on this machine."""

    folder: Path
    modules: Mapping[str, KernelModule]
    spec: ModuleSpec | None
    """How the image's label says that they are loaded; None for an image without that label."""
    own: str = "/opt"
    """What `modprobe --dirname` takes inside the image."""
    indexed: bool = True
    """Whether depmod has been run: without its files modprobe finds nothing."""
    firmware: tuple[str, ...] = ()
    """Firmware files below lib/firmware of `own` that the image has and that a module or the label names."""

    @property
    def name(self) -> str:
        """The driver's name: the label's, or that of its first module."""
        return self.spec.name if self.spec else min(self.modules)


def read_driver(access: RegistryArgs, image: ImageRef, kernel: Kernel, room: Room) -> Driver:
    """Unpack the modules of `image` into the room.

    Raises InvalidError when it has none for `kernel`, or lacks firmware that its label names.
    """
    from dtkpipe.clients.image import read_image
    from dtkpipe.clients.registry import Registry
    from dtkpipe.proof.module import is_module_file, read_module
    from dtkpipe.values.module import ModuleSpec

    registry = Registry(access.access(room.environ))
    places = tuple(f"{folder}lib/modules/{kernel}/" for folder in _FOLDERS)
    into = room.work / "image"
    files = read_image(registry, image, kernel.arch, lambda path: path.startswith(places), into)
    modules = {path: file for path, file in files.contents.items() if is_module_file(path)}
    place = next((one for one in places if any(path.startswith(one) for path in modules)), "")
    if not place:
        raise InvalidError(f"{image} has no modules for kernel {kernel}", f"looked in: /{', /'.join(places)}")
    found = [read_module(file, path) for path, file in sorted(modules.items()) if path.startswith(place)]
    label = files.config.labels.get("dtkpipe.spec", "")
    spec = ModuleSpec.from_text(label, where=f"label dtkpipe.spec of {image}") if label else None
    own = PurePosixPath("/", place.removesuffix(f"lib/modules/{kernel}/"))
    own = PurePosixPath("/") if own.name == "usr" else own
    # What a module file says is its author's word: no path leads out of the folder.
    named = [file for module in found for file in module.firmware if ".." not in PurePosixPath("/", file).parts]
    has = {file for file in {*named, *(spec.firmware if spec else ())}
           if files.entry(f"{str(own / 'lib/firmware' / file)[1:]}")}  # fmt: skip
    if lacking := [file for file in spec.firmware if file not in has] if spec else []:
        raise InvalidError(
            f"{image} lacks the firmware {lacking[0]}", f"its label names it; looked in: {own / 'lib/firmware'}"
        )
    return Driver(
        folder=into / str(own)[1:],
        modules={module.name: module for module in found},
        spec=spec,
        own=str(own),
        indexed=f"{place}modules.dep" in files.contents or f"{place}modules.dep.bin" in files.contents,
        firmware=tuple(sorted(has)),
    )
