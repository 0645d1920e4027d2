"""What a toolkit is made of: the packages of one kernel and of the base that all kernels of a suite share.

A plan is the answer of the archive's index and nothing else: no package is fetched to make it, and the same plan has
the same key, which is what the finished toolkit is found by.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import NotFoundError
from dtkpipe.toolkits.distribution import Distribution
from dtkpipe.tools.apt import INDEX_AGE, Archive, Package
from dtkpipe.values.arch import Arch
from dtkpipe.values.kernel import Kernel

RECIPE = "2"
"""Changes whenever the same packages give another image."""

# 6.1.0-56, 6.12.107+deb13.1, but not 6.12 (a metapackage) and not 6.1.0-56-cloud (another flavour).
_KERNEL_VERSION = r"\d+\.\d+\.\d+(?:[-+](?=[a-z0-9.]*\d)[a-z0-9.]+)?"


@dataclass(frozen=True)
class Plan:
    """A toolkit before it is made. Packages are in the order of their names."""

    distribution: Distribution
    kernel: Kernel
    target: Arch
    host: Arch
    base: tuple[Package, ...]
    image: Package
    headers: tuple[Package, ...]
    """The kernel's own headers first, then the common ones."""
    support: tuple[Package, ...]
    """linux-kbuild, and what it and this kernel's compiler need beyond the base."""

    @property
    def base_key(self) -> str:
        """Names the base layer."""
        return _key(self.distribution, self.target, self.host, self.base)

    @property
    def kernel_key(self) -> str:
        """Names the kernel layer."""
        # kmod writes modules.dep and its like.
        kmod = [one for one in self.base if one.name == "kmod"]
        return _key(self.kernel, self.target, self.host, (self.image, *self.headers, *self.support, *kmod))

    @property
    def tag(self) -> str:
        """The tag of the finished image: release, kernel, and a key over all that is in it."""
        key = hashlib.sha256(f"{self.base_key} {self.kernel_key}".encode()).hexdigest()[:12]
        return f"{self.distribution.name}-{self.kernel.tag}-{key}"

    @property
    def cross(self) -> bool:
        """Whether the toolkit's compiler makes code for another architecture than it runs on."""
        return self.target != self.host


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([RECIPE, *map(str, parts)]).encode()).hexdigest()


class Suite:
    """The archive of one distribution, asked for kernels of `target` and for tools that run on `host`."""

    def __init__(
        self,
        distribution: Distribution,
        target: Arch,
        host: Arch,
        cache: Path,
        say: Callable[[str], None],
        max_age: float = INDEX_AGE,
    ) -> None:
        self.distribution = distribution
        self.target = target
        self.host = host
        pockets = distribution.pockets
        self.kernels_from = Archive(distribution.suite, target, cache, pockets=pockets, say=say, max_age=max_age)
        self.tools_from = (
            self.kernels_from
            if target == host
            else Archive(distribution.suite, host, cache, pockets=pockets, say=say, max_age=max_age)
        )

    def newest(self, variant: str) -> Kernel:
        """Return the kernel that the suite installs today. Raises NotFoundError."""
        suffix = self.distribution.suffix(variant, self.target)
        found = self.kernels_from.show(f"linux-image-{suffix}")
        names = [name for package in found[:1] for name in package.depends]
        for name in names:
            if kernel := re.fullmatch(rf"linux-image-({_KERNEL_VERSION}-{re.escape(suffix)})", name):
                return Kernel.parse(kernel[1])
        has = ", ".join(one for one in self.distribution.flavours if self.kernels(one))
        raise NotFoundError(
            f"{self.distribution.name} has no kernel variant `{variant}` for {self.target}", f"it has: {has or 'none'}"
        )

    def kernels(self, variant: str = "") -> tuple[Kernel, ...]:
        """Return the kernels that a toolkit can be made for, oldest first; of one flavour or of all."""
        flavours = [variant] if variant else list(self.distribution.flavours)
        suffixes = "|".join(re.escape(self.distribution.suffix(one, self.target)) for one in flavours)
        names = self.kernels_from.search(f"^linux-(image|headers)-[0-9].*{self.target.debian}")
        shape = re.compile(rf"linux-headers-({_KERNEL_VERSION}-(?:{suffixes}))")
        found = [match[1] for name in names if (match := shape.fullmatch(name))]
        images = set(names)
        kernels = [Kernel(one) for one in found if {f"linux-image-{one}", f"linux-image-{one}-unsigned"} & images]
        return tuple(sorted(kernels, key=lambda kernel: kernel.order))

    def plan(self, kernel: Kernel) -> Plan:
        """Return what a toolkit for `kernel` is made of. Raises NotFoundError when the archive lacks it."""
        if kernel not in self.kernels():
            raise NotFoundError(
                f"{self.distribution.name} has no kernel {kernel} for {self.target}",
                f"nearest: {', '.join(nearest(kernel, self.kernels())) or 'none'}",
            )
        names = (f"linux-image-{kernel}", f"linux-image-{kernel}-unsigned")
        image = next(package for name in names for package in self.kernels_from.show(name)[:1])
        headers = self.kernels_from.newest(f"linux-headers-{kernel}")
        common = [self.kernels_from.newest(one) for one in headers.depends if one.startswith("linux-headers-")]
        wanted = self.distribution.packages(self.target, self.host)
        base = self.tools_from.closure(wanted)
        kbuild = [one for one in headers.depends if one.startswith("linux-kbuild-")]
        support = self.tools_from.closure([*wanted, *kbuild, *self._compilers(headers)])
        return Plan(
            distribution=self.distribution, kernel=kernel, target=self.target, host=self.host, base=base, image=image,
            headers=(headers, *common), support=tuple(one for one in support if one not in base),
        )  # fmt: skip

    def _compilers(self, headers: Package) -> list[str]:
        """Return the compiler that the kernel was compiled with: its headers depend on it, by name or by a package."""
        versions = {found[1] for name in headers.depends if (found := re.search(r"\bgcc-(\d+)\b", name))}
        ending = f"-{self.target.name.replace('_', '-')}-linux-gnu" if self.target != self.host else ""
        return [f"gcc-{version}{ending}" for version in sorted(versions)]


def nearest(kernel: Kernel, known: Sequence[Kernel]) -> list[str]:
    """Return up to five of `known` that could have been meant: its neighbours of the same flavour, and the newest."""
    same = sorted(set(known), key=lambda one: one.order)
    same = [one for one in same if one.variant == kernel.variant] or same
    at = bisect.bisect([one.order for one in same], kernel.order)
    return list(dict.fromkeys(one.release for one in (*same[max(0, at - 2) : at + 2], *same[-1:])))
