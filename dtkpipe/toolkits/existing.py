"""The kernel that a toolkit image is for, read from the image: labels, then its release file, then its folders.

Labels and file as github.com/openshift/driver-toolkit writes them; not every build fills them in, and some put error
texts of rpm there, so only what looks like one kernel release counts.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dtkpipe.clients.image import read_files, read_image
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import InvalidError, NotFoundError
from dtkpipe.values.arch import ARCHES, Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

RELEASE_FILE = "etc/driver-toolkit-release.json"
_RED_HAT = re.compile(r"\d+\.\d+\.\d+-[\w.]+\.el\d+(_\d+)?(nv)?(\.(x86_64|aarch64|ppc64le|s390x))?(\+(rt|64k))?")
_DEBIAN = re.compile(r"\d+\.\d+\.\d+[-+][a-z0-9.+~-]*(amd64|arm64)(-16k)?")
_KERNEL_FOLDERS = re.compile(r"(?:usr/src/kernels|(?:usr/)?lib/modules)/([^/]+)")


def kernel_of(registry: Registry, image: ImageRef, arch: Arch | None, variant: str) -> tuple[Kernel, str]:
    """Return the kernel of a toolkit image and, in words, where it was read.

    `variant` ("" is the only one, or std) chooses where a toolkit has several kernels. Raises NotFoundError when the
    image does not tell, InvalidError when it tells several and none was chosen.
    """
    labels = registry.config(image, arch).labels
    if found := _said(labels.get("kernel-version"), labels.get("kernel-rt-version"), arch, variant):
        return found, "from the image's labels"
    text = read_files(registry, image, arch, [RELEASE_FILE]).get(RELEASE_FILE, b"")
    said = _document(text)
    if found := _said(said.get("KERNEL_VERSION"), said.get("RT_KERNEL_VERSION"), arch, variant):
        return found, f"from /{RELEASE_FILE}"
    with tempfile.TemporaryDirectory() as folder:
        paths = read_image(registry, image, arch, lambda _path: False, Path(folder) / "files").paths
    names = {match[1] for path in paths if (match := _KERNEL_FOLDERS.fullmatch(path))}
    kernels = sorted(filter(None, (_kernel(name, arch) for name in names)), key=lambda kernel: kernel.order)
    fitting = [one for one in kernels if variant in ("", one.variant)]
    if len(fitting) > 1:
        fitting = [one for one in fitting if one.variant == (variant or "std")]
    if len(fitting) == 1:
        return fitting[0], "from the kernels that are in the image"
    if fitting:
        raise InvalidError(
            f"{image} has several kernels", f"it has: {_names(fitting)}", hint="say which one with --kernel"
        )
    what = f"of variant `{variant}`" if variant and kernels else "that we can find"
    raise NotFoundError(
        f"{image} has no kernel {what}",
        f"looked in: its labels, /{RELEASE_FILE}, /usr/src/kernels, /lib/modules",
        f"it has: {_names(kernels) or 'none'}",
    )


def _names(kernels: Iterable[Kernel]) -> str:
    return ", ".join(kernel.release for kernel in kernels)


def _said(plain: Any, realtime: Any, arch: Arch | None, variant: str) -> Kernel | None:
    """Return the kernel of `variant` that two values, for the standard and the RT kernel, tell of."""
    for value in (plain, realtime):
        found = _kernel(value, arch)
        if found and variant in ("", found.variant):
            return found
    return None


def _kernel(value: Any, arch: Arch | None) -> Kernel | None:
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


def _document(text: bytes) -> Mapping[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
