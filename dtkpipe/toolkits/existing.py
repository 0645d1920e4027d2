"""The kernel that a toolkit image is for, read from it: labels, release file, package database, then its folders.

Labels and file as github.com/openshift/driver-toolkit writes them; not every build fills them in, and some put error
texts of rpm there, so only what looks like one kernel release counts.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from dtkpipe.clients.image import read_files, read_image
from dtkpipe.clients.layers import LIMIT
from dtkpipe.clients.manifest import Manifest
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import InvalidError, NotFoundError
from dtkpipe.toolkits import packages
from dtkpipe.values.arch import ARCHES, Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

RELEASE_FILE = "etc/driver-toolkit-release.json"
_DOCUMENT = 2**20
_RED_HAT = re.compile(r"\d+\.\d+\.\d+-[\w.]+\.el\d+(_\d+)?(nv)?(\.(x86_64|aarch64|ppc64le|s390x))?(\+(rt|64k))?")
_DEBIAN = re.compile(r"\d+\.\d+\.\d+[-+][a-z0-9.+~-]*(amd64|arm64)(-16k)?")
_KERNEL_FOLDERS = re.compile(r"(?:usr/src/kernels|(?:usr/)?lib/modules)/([^/]+)")


def kernel_of(
    registry: Registry, image: ImageRef, arch: Arch | None, variant: str = "", wanted: Kernel | None = None
) -> tuple[Kernel, str]:
    """Return the kernel of a toolkit image and, in words, where it was read.

    `wanted`, or else `variant` ("" is the only one, or std), chooses where a toolkit has several kernels. Raises
    NotFoundError when the image does not tell, InvalidError when it tells several and none was chosen, or when it is
    not for the wanted kernel.
    """
    variant = wanted.variant if wanted else variant
    kernels, where = kernels_told(registry, image, registry.manifest(image, arch), arch, [variant] if variant else [])
    for found in kernels.values():
        if found == wanted or (wanted is None and variant in ("", found.variant)):
            return found, where
    with tempfile.TemporaryDirectory() as folder:
        paths = read_image(registry, image, arch, lambda _path: False, Path(folder) / "files").paths
    names = {match[1] for path in paths if (match := _KERNEL_FOLDERS.fullmatch(path))}
    there = sorted(filter(None, (kernel_named(name, arch) for name in names)), key=lambda kernel: kernel.order)
    if wanted:
        if wanted in there:
            return wanted, "as given, and it is in the image"
        has = _names(dict.fromkeys([*kernels.values(), *there])) or "none that we can find"
        raise InvalidError(f"{image} is not for kernel {wanted}", f"it is for: {has}")
    fitting = [one for one in there if variant in ("", one.variant)]
    if len(fitting) > 1:
        fitting = [one for one in fitting if one.variant == (variant or "std")]
    if len(fitting) == 1:
        return fitting[0], "from the kernels that are in the image"
    if fitting:
        raise InvalidError(
            f"{image} has several kernels", f"it has: {_names(fitting)}", hint="say which one with --kernel"
        )
    what = f"of variant `{variant}`" if variant and there else "that we can find"
    raise NotFoundError(
        f"{image} has no kernel {what}",
        f"looked in: its labels, /{RELEASE_FILE}, /usr/src/kernels, /lib/modules",
        f"it has: {_names(there) or 'none'}",
    )


def _names(kernels: Iterable[Kernel]) -> str:
    return ", ".join(kernel.release for kernel in kernels)


def kernels_told(
    registry: Registry,
    image: ImageRef,
    manifest: Manifest,
    arch: Arch | None,
    variants: Collection[str] = (),
    *,
    budget: int = LIMIT,
) -> tuple[Mapping[str, Kernel], str]:
    """Return the kernels that a toolkit tells of, by variant, and where they were read.

    Its release file is read where the labels say nothing, or lack one of `variants`; the package database where both
    say nothing. Of the image's layers at most `budget` bytes are read, newest first. Empty when nothing tells: then the
    words are why.
    """
    labels = registry.config_of(image, manifest).labels
    kernels = _by_variant(labels.get("kernel-version"), labels.get("kernel-rt-version"), arch)
    if kernels and kernels.keys() >= set(variants):
        return kernels, "from the image's labels"
    why = "it has no package database in the layers that were read"
    # The database lies far down: it is worth its bytes only where the labels say nothing.
    paths = [RELEASE_FILE] if kernels else [RELEASE_FILE, *packages.DATABASES, packages.BERKELEY]
    for found in read_files(registry, image, manifest, paths, budget=budget, size=packages.SIZE):
        if more := kernels_in(found.get(RELEASE_FILE, b""), arch):
            return {**more, **kernels}, f"from {'its labels and ' if kernels else ''}/{RELEASE_FILE}"
        try:
            for path in packages.DATABASES:
                if installed := packages.kernels_installed(found[path], arch) if path in found else {}:
                    return installed, f"from its package database /{path}"
        except InvalidError as error:
            why = "; ".join((error.what, *error.details))
        if packages.BERKELEY in found:
            why = f"its package database /{packages.BERKELEY} is that of RHEL 8 (Berkeley DB), which cannot be read"
    return kernels, "from the image's labels" if kernels else why


def kernels_in(document: bytes, arch: Arch | None) -> dict[str, Kernel]:
    """Return the kernels that the text of a release file names, by variant; none for any other text."""
    try:
        said = json.loads(document[:_DOCUMENT])
    except (ValueError, RecursionError):
        return {}
    return (
        _by_variant(said.get("KERNEL_VERSION"), said.get("RT_KERNEL_VERSION"), arch) if isinstance(said, dict) else {}
    )


def _by_variant(plain: Any, realtime: Any, arch: Arch | None) -> dict[str, Kernel]:
    found: dict[str, Kernel] = {}
    for value in (plain, realtime):
        if kernel := kernel_named(value, arch):
            found.setdefault(kernel.variant, kernel)
    return found


def kernel_named(value: Any, arch: Arch | None) -> Kernel | None:
    """Return the kernel that a value names; None for anything that is not exactly one kernel release."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    if found := _RED_HAT.fullmatch(text):
        # Early builds left the architecture out.
        if not found[3]:
            if arch is None:
                return None
            bare, plus, flavour = text.partition("+")
            text = f"{bare}.{arch.name}{plus}{flavour}"
    elif not _DEBIAN.fullmatch(text):
        return None
    kernel = Kernel(text)
    return kernel if kernel.arch in (*ARCHES, None) and arch in (kernel.arch, None) else None
