"""Kernel releases as `uname -r` prints them: the key that everything is built and stored by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from dtkpipe.errors import InvalidError
from dtkpipe.values.arch import AARCH64, X86_64, Arch

_SHAPE = re.compile(r"\d+\.\d+[A-Za-z0-9._+~-]*")
_DEBIAN_ARCH = {"amd64": X86_64, "arm64": AARCH64}


@dataclass(frozen=True)
class Kernel:
    """One kernel release, e.g. `5.14.0-427.13.1.el9_4.x86_64`, `6.1.0-53-cloud-amd64`, `5.14.0-1.el9.aarch64+64k`."""

    release: str

    def __str__(self) -> str:
        return self.release

    @classmethod
    def parse(cls, text: str) -> Kernel:
        """Parse a kernel release string. Raises InvalidError for anything `uname -r` could not have printed."""
        if not _SHAPE.fullmatch(text) or len(text) > 64:
            raise InvalidError(f"`{text}` is not a kernel release", "expected what `uname -r` prints on the node")
        return cls(text)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """The x, y and z of upstream: (5, 14, 0)."""
        x, y, z, *_ = *re.findall(r"\d+", re.split(r"[^\d.]", self.release, maxsplit=1)[0]), "0", "0"
        return int(x), int(y), int(z)

    @cached_property
    def order(self) -> tuple[tuple[int, int | str], ...]:
        """A sort key: runs of digits compare as numbers, so -53 is older than -156."""
        parts = re.findall(r"\d+|[A-Za-z]+", self.release)
        return tuple((1, int(part)) if part.isdigit() else (0, part) for part in parts)

    @property
    def arch(self) -> Arch | None:
        """The architecture that the name tells, if it does."""
        if red_hat := re.search(r"\.(x86_64|aarch64|ppc64le|s390x)(?:\+|$)", self.release):
            return Arch.parse(red_hat[1])
        return _DEBIAN_ARCH.get(self.release.rsplit("-", 1)[-1])

    @property
    def is_red_hat(self) -> bool:
        """Whether the name is one of RHEL's builds, which OpenShift has: `...el9_4...`."""
        return bool(re.search(r"\.el\d+(?:_\d+)?(?:nv)?(?:\.|$)", self.release))

    @property
    def variant(self) -> str:
        """The flavour that the name tells: std, rt, 64k, cloud."""
        if found := re.search(r"(?:\+(rt|64k)|-(rt|cloud)-(?:amd64|arm64))$", self.release):
            return found[1] or found[2]
        return "rt" if re.search(r"\.rt\d+\.", self.release) else "std"

    @property
    def tag(self) -> str:
        """The release as image tags and label values can hold it: `+` becomes `_` (as KMM and NFD do)."""
        return re.sub(r"[^A-Za-z0-9_.-]", "_", self.release)

    def build_args(self) -> dict[str, str]:
        """Return the kernel variables that KMM gives to a build and to its templates.

        Names: kernel-module-management, docs/mkdocs/documentation/kmod_image.md.
        """
        x, y, z = self.numbers
        return {
            "KERNEL_VERSION": self.release,
            "KERNEL_FULL_VERSION": self.release,
            "KERNEL_XYZ": f"{x}.{y}.{z}",
            "KERNEL_X": str(x),
            "KERNEL_Y": str(y),
            "KERNEL_Z": str(z),
        }
