"""What a release, a kernel or an image was resolved to, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dtkpipe.errors import DtkpipeError, NotFoundError
from dtkpipe.values.arch import AARCH64, Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

EQUAL, NOT_CHECKED, OVERRIDDEN = "equal", "not checked", "overridden"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One toolkit and its kernel."""

    arch: Arch
    toolkit: ImageRef | None
    """By digest; None for a toolkit that is only made when a run needs it."""
    kernel: Kernel | None
    """The kernel of the variant that was asked for; None where nobody could tell: then `missing` says why."""
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    """All kernels that the toolkit is known to have, by variant."""
    release: str = ""
    stream: str = ""
    streams: tuple[str, ...] = ()
    """All streams of the operating system that the release has."""
    os_image: ImageRef | None = None
    os_kernel: Kernel | None = None
    gate: str = NOT_CHECKED
    """Whether the toolkit's kernel is the operating system's: equal, not checked, overridden."""
    rhcos: str = ""
    how: tuple[str, ...] = ()
    """How the answer was found, a step a line, and what was asked of whom."""
    missing: DtkpipeError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as `-o json` prints it."""
        return {
            "release": self.release, "arch": self.arch.name, "stream": self.stream, "streams": list(self.streams),
            "toolkit": str(self.toolkit or ""), "kernel": str(self.kernel or ""),
            "kernels": {name: kernel.release for name, kernel in self.kernels.items()},
            "osImage": str(self.os_image or ""), "osKernel": str(self.os_kernel or ""), "rhcos": self.rhcos,
            "gate": self.gate, "how": list(self.how),
        }  # fmt: skip


def choose_stream(streams: tuple[str, ...], asked: str, major: int, name: str) -> str:
    """Return the stream that was asked for, or the one that new clusters of the release get. Raises NotFoundError.

    OpenShift 5 installs RHEL 10 where it has it; what comes before it has one stream, or RHEL 9 (openshift/os, FAQ).
    """
    if asked:
        if asked not in streams:
            raise NotFoundError(f"{name} has no stream `{asked}`", f"it has: {', '.join(streams)}")
        return asked
    return "rhel-10" if major >= 5 and "rhel-10" in streams else streams[0]


def choose_kernel(kernels: Mapping[str, Kernel], variant: str, arch: Arch, name: str) -> tuple[Kernel, str]:
    """Return the kernel of a variant, and how it is known where that is not plain. Raises NotFoundError.

    No toolkit tells its kernel with 64k pages: it is of the same build as the standard one (openshift/driver-toolkit).
    """
    if found := kernels.get(variant):
        return found, ""
    standard = kernels.get("std")
    if variant == "64k" and arch == AARCH64 and standard and standard.numbers >= (5, 14, 0):
        return Kernel(f"{standard.release}+64k"), "kernel with 64k pages derived: no toolkit tells it"
    raise NotFoundError(
        f"the toolkit of {name} has no kernel of variant `{variant}`",
        f"it has: {', '.join(f'{kind} ({kernel})' for kind, kernel in kernels.items()) or 'none that is known'}",
    )
