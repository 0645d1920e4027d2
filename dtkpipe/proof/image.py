"""What a driver image holds for one kernel: its modules, its firmware, and what else lies about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dtkpipe.clients.image import ImageFiles, read_image
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import DtkpipeError
from dtkpipe.proof.kernel import KernelFiles
from dtkpipe.proof.module import KernelModule, is_module_file, module_name, read_module
from dtkpipe.values.image import ImageRef
from dtkpipe.values.module import ModuleSpec

SPEC_LABEL = "dtkpipe.spec"
_PLACE = re.compile(r"(?:.*/)?lib/modules/(?P<kernel>[^/]+)/(?P<rest>.+)")
_FIRMWARE = re.compile(r"(?:.*/)?firmware/(?P<name>.+)")
_HOST = "host/"  # KMM: a link to the node's own modules, which depmod followed


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file that is named like a module. `module` is None when it is none, and `problem` says why."""

    path: str
    module: KernelModule | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """The module's name; of a file that is no module, what its name promises."""
        return self.module.name if self.module else module_name(self.path)


@dataclass(frozen=True, kw_only=True)
class ImageModules:
    """The modules of an image. Paths are absolute paths in the image."""

    ref: ImageRef
    kernel: str
    files: ImageFiles = field(repr=False)
    ours: tuple[Found, ...]
    """Below lib/modules/<the kernel>: what `modprobe -d` can find there."""
    elsewhere: tuple[Found, ...]
    """For other kernels, or where modprobe does not look."""
    firmware: Mapping[str, Path]
    """Name as drivers ask for it (`intel/ice/ddp/ice.pkg`) -> file."""

    @property
    def modules(self) -> tuple[KernelModule, ...]:
        """Those of `ours` that are modules; the same bytes at two places are one module."""
        unique: dict[tuple[str, bytes], KernelModule] = {}
        for found in self.ours:
            if found.module:
                unique.setdefault((found.module.name, found.module.content), found.module)
        return tuple(unique.values())

    @property
    def has_index(self) -> bool:
        """Tell whether depmod was run: without modules.dep, modprobe finds nothing on the node."""
        ends = (f"lib/modules/{self.kernel}/modules.dep", f"lib/modules/{self.kernel}/modules.dep.bin")
        return any(path.endswith(ends) for path in self.files.paths)


def read_modules(registry: Registry, ref: ImageRef, kernel: KernelFiles, into: Path) -> ImageModules:
    """Read the modules and the firmware of an image. Raises what read_image() raises."""
    files = read_image(registry, ref, kernel.arch, _wanted, into)
    ours, elsewhere, firmware = list[Found](), list[Found](), dict[str, Path]()
    for path, file in sorted(files.contents.items()):
        place = _PLACE.fullmatch(path)
        if is_module_file(path):
            if place and place["rest"].startswith(_HOST):
                continue
            here = place is not None and place["kernel"] == kernel.kernel.release
            (ours if here else elsewhere).append(_read(file, f"/{path}"))
        elif match := _FIRMWARE.fullmatch(path):
            firmware[match["name"]] = file
    return ImageModules(
        ref=ref, kernel=kernel.kernel.release, files=files, ours=tuple(ours), elsewhere=tuple(elsewhere),
        firmware=firmware,
    )  # fmt: skip


def spec_of(image: ImageModules, given: str) -> ModuleSpec:
    """Return the spec to verify by: the one given, else the image's label, else what the image holds.

    Raises InvalidError for a spec that cannot be read.
    """
    if given:
        return ModuleSpec.from_text(given, where="--spec")
    if label := image.files.config.labels.get(SPEC_LABEL):
        return ModuleSpec.from_text(label, where=f"label {SPEC_LABEL} of the image")
    return ModuleSpec(name="image")


def _wanted(path: str) -> bool:
    return is_module_file(path) or _FIRMWARE.fullmatch(path) is not None


def _read(file: Path, path: str) -> Found:
    try:
        return Found(path=path, module=read_module(file, path))
    except DtkpipeError as error:
        return Found(path=path, problem="; ".join((error.what, *error.details)))
