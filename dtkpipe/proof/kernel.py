"""The files of one target kernel: image, symbols, in-tree modules, sign-file. Where they come from: kernel_store.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from dtkpipe.errors import DtkpipeError, InvalidError
from dtkpipe.proof.module import module_name
from dtkpipe.values.arch import Arch
from dtkpipe.values.kernel import Kernel

MANIFEST = "manifest.json"
FORMAT = 1
VMLINUZ, SYMVERS, SIGN_FILE, MODULES = "vmlinuz", "symvers", "sign-file", "modules"


class CacheCorruptError(DtkpipeError):
    """A file of a cached kernel is not what it was. Whoever gets this makes the kernel again: kernel_store.forget()."""

    def __init__(self, path: Path) -> None:
        super().__init__("the cached kernel is damaged", str(path), hint=f"rm -r {path.parent}")


@dataclass(frozen=True)
class Export:
    """One line of Module.symvers: what the kernel, or a module in its tree, gives to modules."""

    crc: int
    module: str
    gpl: bool
    namespace: str


@dataclass(frozen=True, kw_only=True)
class KernelFiles:
    """One kernel in a folder. Each file is checked against its checksum when it is read."""

    folder: Path
    kernel: Kernel
    arch: Arch
    toolkit: str
    """Digest of the toolkit image that it came out of."""
    vermagic: str
    """What the kernel's own modules are built for: the string that every module must carry."""
    sums: Mapping[str, str] = field(repr=False)
    """Path in the folder -> SHA-256."""

    @classmethod
    def load(cls, folder: Path) -> KernelFiles:
        """Open a folder; checks what is always needed. Raises CacheCorruptError, FileNotFoundError for no folder."""
        path = folder / MANIFEST
        text = path.read_bytes()
        try:
            data: Any = json.loads(text)
            if data["format"] != FORMAT:
                raise CacheCorruptError(path)
            files = cls(
                folder=folder,
                kernel=Kernel.parse(data["kernel"]),
                arch=Arch.parse(data["arch"]),
                toolkit=str(data["toolkit"]),
                vermagic=str(data["vermagic"]),
                sums=dict(data["files"]),
            )
        except (ValueError, KeyError, TypeError, DtkpipeError) as error:
            raise CacheCorruptError(path) from error
        for name in files.sums:
            if not name.startswith(f"{MODULES}/kernel/"):
                files.read(name)
        return files

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises CacheCorruptError when they are not what was stored, KeyError for no file."""
        expected, path = self.sums[name], self.folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CacheCorruptError(path) from error
        if hashlib.sha256(data).hexdigest() != expected:
            raise CacheCorruptError(path)
        return data

    @property
    def vmlinuz(self) -> Path:
        """The kernel image to boot."""
        return self.folder / VMLINUZ

    @property
    def sign_file(self) -> Path:
        """The kernel's own signing program, built for the machine that the toolkit runs on. Raises InvalidError."""
        if SIGN_FILE not in self.sums:
            raise InvalidError(f"the toolkit of {self.kernel} has no sign-file", "looked for scripts/sign-file")
        return self.folder / SIGN_FILE

    @cached_property
    def exports(self) -> Mapping[str, Export]:
        """Every symbol that the kernel and its in-tree modules export. Raises InvalidError."""
        try:
            return dict(_symvers(self.read(SYMVERS)))
        except ValueError as error:
            raise InvalidError(f"the list of symbols of kernel {self.kernel} cannot be read", str(error)) from error

    @cached_property
    def dependencies(self) -> Mapping[str, tuple[str, ...]]:
        """modules.dep: path of a module below `modules/` -> paths of all modules it needs, in loading order."""
        table: dict[str, tuple[str, ...]] = {}
        for line in self._lines("modules.dep"):
            path, _, needs = line.partition(":")
            # modprobe loads from the last to the first: modules.dep(5).
            table[path] = tuple(reversed(needs.split()))
        return table

    @cached_property
    def softdeps(self) -> Mapping[str, tuple[str, ...]]:
        """modules.softdep: name of an in-tree module -> modules to load before it, where they exist."""
        table: dict[str, tuple[str, ...]] = {}
        for line in self._lines("modules.softdep"):
            if line.startswith("softdep "):
                name, *words = line.split()[1:]
                before = words[words.index("pre:") + 1 :] if "pre:" in words else []
                before = before[: before.index("post:")] if "post:" in before else before
                table[module_name(name)] = tuple(module_name(word) for word in before)
        return table

    @property
    def has_aliases(self) -> bool:
        """Tell whether the index of aliases is there."""
        return f"{MODULES}/modules.alias" in self.sums

    @cached_property
    def _aliases(self) -> tuple[tuple[str, str], ...]:
        lines = (line.split() for line in self._lines("modules.alias"))
        return tuple((words[1].replace("-", "_"), words[2]) for words in lines if len(words) == 3)

    def found_by(self, asked: str) -> tuple[str, ...]:
        """Return the paths of the in-tree modules that modprobe loads for a name, or else for an alias."""
        name = asked.replace("-", "_")
        known = (name,) if name in self.in_tree else self._aliased(name)
        return tuple(self.in_tree[one] for one in known if one in self.in_tree)

    def _aliased(self, name: str) -> tuple[str, ...]:
        return tuple(module_name(module) for alias, module in self._aliases if fnmatchcase(name, alias))

    @cached_property
    def in_tree(self) -> Mapping[str, str]:
        """Name of an in-tree module -> its path below `modules/`."""
        prefix = f"{MODULES}/"
        paths = (path.removeprefix(prefix) for path in self.sums if path.startswith(prefix) and ".ko" in path)
        return {module_name(path): path for path in paths}

    @cached_property
    def builtin(self) -> frozenset[str]:
        """Names of the modules that are part of the kernel image."""
        return frozenset(module_name(line) for line in self._lines("modules.builtin"))

    def module(self, path: str) -> bytes:
        """Return an in-tree module as it is stored (perhaps compressed), by its path below `modules/`."""
        return self.read(f"{MODULES}/{path}")

    def _lines(self, name: str) -> list[str]:
        path = f"{MODULES}/{name}"
        return self.read(path).decode(errors="replace").splitlines() if path in self.sums else []


def _symvers(data: bytes) -> Iterator[tuple[str, Export]]:
    """Read Module.symvers: CRC, symbol, module, kind of export, namespace; separated by tabs."""
    for line in data.decode(errors="replace").splitlines():
        crc, name, module, kind, *namespace = line.split("\t")
        yield name, Export(int(crc, 16), module, "GPL" in kind, namespace[0] if namespace else "")
