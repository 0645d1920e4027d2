"""CPU architectures, and the name each of our neighbours has for them."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from dtkpipe.errors import NotFoundError


@dataclass(frozen=True)
class Arch:
    """One architecture. `name` is the kernel's and OpenShift's (`uname -m`): x86_64, aarch64."""

    name: str
    debian: str
    oci: str
    kernel: str
    """What Kbuild calls it (ARCH=)."""
    elf_machine: str
    """The e_machine constant of a module built for it."""

    def __str__(self) -> str:
        return self.name

    @classmethod
    def parse(cls, text: str) -> Arch:
        """Parse any of the names in use: x86_64, amd64, aarch64, arm64. Raises NotFoundError."""
        for arch in ARCHES:
            if text.lower() in (arch.name, arch.debian, arch.oci, arch.kernel):
                return arch
        known = ", ".join(arch.name for arch in ARCHES)
        raise NotFoundError(f"unknown architecture `{text}`", f"known: {known}")

    @classmethod
    def host(cls) -> Arch:
        """Return the architecture of the machine we run on."""
        return cls.parse(platform.machine())


X86_64 = Arch("x86_64", "amd64", "amd64", "x86", "EM_X86_64")
AARCH64 = Arch("aarch64", "arm64", "arm64", "arm64", "EM_AARCH64")
PPC64LE = Arch("ppc64le", "ppc64el", "ppc64le", "powerpc", "EM_PPC64")
S390X = Arch("s390x", "s390x", "s390x", "s390", "EM_S390")
ARCHES = (X86_64, AARCH64, PPC64LE, S390X)
"""Architectures that OpenShift has."""
BUILT = (X86_64, AARCH64)
"""Architectures that modules are compiled for and proven on."""
