"""What a running kernel says of itself and its modules: read from /proc, /sys and the log, here or in a pod.

Formats: Linux, Documentation/ABI/stable/sysfs-module, Documentation/ABI/testing/dev-kmsg, proc_modules(5).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dtkpipe.errors import UnreachableError
from dtkpipe.proof.module import build_id
from dtkpipe.resources import shipped
from dtkpipe.values.module import ModuleSpec

_KERNEL, _TAINTED, _MODULES = "/proc/sys/kernel/osrelease", "/proc/sys/kernel/tainted", "/proc/modules"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What the kernel says of one module. Empty strings where it says nothing."""

    state: str = ""
    """`Live`, `Loading`, `Unloading`; empty for a module that is not loaded."""
    srcversion: str = ""
    build_id: str = ""
    """Hexadecimal digits."""
    taint: str = ""
    """Letters: O out of tree, E no signature that the kernel knows, P not free."""
    built_in: bool = False
    """It is part of the kernel image."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Those of the asked ones that the kernel shows."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One running kernel."""

    release: str
    tainted: int
    """Bits of Documentation/admin-guide/tainted-kernels.rst."""
    modules: Mapping[str, Loaded]
    log: str | None = None
    """What /dev/kmsg gave; None where it was not read."""


Read = Callable[[Sequence[str]], Mapping[str, bytes]]
"""Gives the content of files by path; those that cannot be read are left out."""


def paths(names: Iterable[str], spec: ModuleSpec | None) -> list[str]:
    """Return the files to read: the kernel's own, and those of modules and of the parameters that the spec names."""
    found = [_KERNEL, _TAINTED, _MODULES]
    asked = {one.name: [text.partition("=")[0] for text in one.parameters] for one in (spec.modules if spec else ())}
    for name in names:
        home = f"/sys/module/{name}"
        found += [f"{home}/{file}" for file in ("srcversion", "taint", "uevent", "notes/.note.gnu.build-id")]
        found += [f"{home}/parameters/{parameter.replace('-', '_')}" for parameter in asked.get(name, ())]
    return found


def understand(contents: Mapping[str, bytes], names: Iterable[str], log: str | None = None) -> Facts:
    """Make facts of the files of paths() that could be read."""

    def text(path: str) -> str:
        return contents.get(path, b"").decode(errors="replace").strip()

    states = {}
    for line in text(_MODULES).splitlines():
        words = line.split()  # name, size, users, who, state, address
        if len(words) >= 5:
            states[words[0]] = words[4]
    modules = {}
    for name in names:
        home = f"/sys/module/{name}/"
        shown = {path.removeprefix(f"{home}parameters/"): text(path) for path in contents if path.startswith(home)}
        modules[name] = Loaded(
            state=states.get(name, ""),
            srcversion=text(f"{home}srcversion"),
            build_id=build_id(contents.get(f"{home}notes/.note.gnu.build-id", b"")),
            taint=text(f"{home}taint"),
            built_in=name not in states and f"{home}uevent" in contents,
            parameters={name: value for name, value in shown.items() if "/" not in name},
        )
    tainted = text(_TAINTED)
    return Facts(
        release=text(_KERNEL), tainted=int(tainted) if tainted.isdecimal() else 0, modules=modules, log=log
    )  # fmt: skip


def from_root(root: Path) -> Read:
    """Read the files of this machine, below `root`."""

    def read(wanted: Sequence[str]) -> Mapping[str, bytes]:
        files = {path: root / path.lstrip("/") for path in wanted}
        return {path: file.read_bytes() for path, file in files.items() if file.is_file()}

    return read


def inspection(wanted: Sequence[str]) -> tuple[str, list[str]]:
    """Return a mark, and the command that prints the files and the log in a pod: catalog/driver/inspect."""
    mark = secrets.token_hex(16)
    program = (shipped("catalog/driver") / "inspect").read_text()
    return mark, ["sh", "-c", program, "inspect", mark, *wanted]


def from_inspection(mark: str, wanted: Sequence[str], output: bytes) -> tuple[dict[str, bytes], str | None]:
    """Take apart what the command of inspection() printed: the files, and the log.

    There is no log where it was not read to its end. Raises UnreachableError for an output that lacks files.
    """
    contents, rest = dict[str, bytes](), output
    for path in wanted:
        content, found, rest = rest.partition(f"\n{mark} ".encode())
        status, _, rest = rest.partition(b"\n")
        if not found:
            raise UnreachableError("the node's pod did not tell all that it was asked", f"missing: {path}")
        if status == b"0":
            contents[path] = content
    log, ended, _ = rest.partition(f"{mark} 0".encode())
    return contents, log.decode(errors="replace") if ended else None
