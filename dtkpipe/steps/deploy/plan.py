"""Part of deploy: what the loader (catalog/driver/load) shall do, as its arguments."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from dtkpipe.errors import InvalidError
from dtkpipe.values.kernel import Kernel

if TYPE_CHECKING:
    from dtkpipe.proof.module import KernelModule
    from dtkpipe.steps.deploy.driver import Driver

HOST_MODULES = "/lib/modules"
"""Where the node has the kernel's own modules."""
FIRMWARE_FOLDER = "/var/lib/firmware"
"""Where the node's kernel is told to look for firmware, as KMM does it: /usr is read only on many systems."""

_FILE = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]*")


def host_folder(driver: Driver) -> str:
    """Return the folder in the pod below which the node's own lib/modules is mounted.

    It would hide the modules of an image that has them in /lib/modules.
    """
    return "/host" if driver.own == "/" else "/"


def plan(driver: Driver, kernel: Kernel, firmware_folder: str = FIRMWARE_FOLDER) -> tuple[str, ...]:
    """Return the loader's arguments, one act each.

    Raises InvalidError for an image that depmod has not seen, or that lacks a module which its label names.
    """
    if not driver.indexed:
        raise InvalidError(
            f"the modules for kernel {kernel} cannot be found by modprobe: the image has no modules.dep",
            hint=f"run `depmod -b {driver.own} {kernel}` when the image is built",
        )
    if missing := [name for name in driver.spec.names if name not in driver.modules] if driver.spec else []:
        raise InvalidError(
            f"the image has no module {missing[0]} for kernel {kernel}, though its label names it",
            f"it has: {', '.join(sorted(driver.modules))}",
        )
    return tuple(_acts(driver, kernel, firmware_folder))


def _acts(driver: Driver, kernel: Kernel, firmware_folder: str) -> Iterator[str]:
    spec, modules = driver.spec, driver.modules
    yield f"kernel {kernel}"
    yield f"own {driver.own}"
    yield f"host {host_folder(driver)}"
    yield f"unload {spec.unload if spec else 'required'}"
    for name in spec.in_tree_modules_to_remove if spec else ():
        yield f"remove {name}"
    needed = sorted({name for module in modules.values() for name in module.depends} - set(modules))
    wished = {name for module in modules.values() for name in module.softdeps}
    yield from (f"need {name}" for name in needed)
    yield from (f"try {name}" for name in sorted(wished - set(modules) - set(needed)))
    if driver.firmware:
        yield f"firmware-folder {firmware_folder}"
        yield from (f"firmware {file}" for file in driver.firmware)
    listed = {module.name: module.parameters for module in spec.modules} if spec else {}
    for name in _in_order(modules, listed):
        yield _load(modules[name])
        yield from (f"parameter {text}" for text in listed.get(name, ()))


def _in_order(modules: Mapping[str, KernelModule], listed: Iterable[str]) -> list[str]:
    """Return the modules as the spec lists them, and others behind what they depend on."""
    graph = {name: sorted({*module.depends} & set(modules)) for name, module in sorted(modules.items())}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise InvalidError(f"modules that depend on each other cannot be loaded: {', '.join(error.args[1])}") from error
    return list(dict.fromkeys([*listed, *order]))


def _load(module: KernelModule) -> str:
    # A module's file can have another name than the module (DEST_MODULE_NAME of DKMS): modprobe goes by the file's.
    file = PurePosixPath(module.file).name.split(".ko", 1)[0]
    if not _FILE.fullmatch(file):
        raise InvalidError(f"{module.file} cannot be loaded: modprobe takes letters, digits, `.`, `_`, `+` and `-`")
    return f"load {module.name} {file} {module.srcversion or '-'} {build_id_sum(module.build_id) or '-'}"


def build_id_sum(build_id: str) -> str:
    """Return the SHA-256 of a build id's ELF note, which is /sys/module/NAME/notes/.note.gnu.build-id; "" for none.

    A shell cannot read the note, but compare its sum. Layout: System V ABI, note section (name size, size, type 3).
    """
    if not build_id:
        return ""
    value = bytes.fromhex(build_id)
    return hashlib.sha256(struct.pack("<III", 4, len(value), 3) + b"GNU\0" + value).hexdigest()
