"""The files of an image, read out of its layers without unpacking the rest.

Nothing in an image can reach out of the folder it is read into: only regular files are written, below folders that we
make; links are resolved in the image and never made on disk; device nodes are only seen.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO

from dtkpipe.clients.layers import LIMIT, OPAQUE, WHITEOUT, Entry, members, unpacked, writing
from dtkpipe.clients.manifest import ImageConfig, Manifest
from dtkpipe.clients.registry import Registry
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef

_LINKS = 40
"""Symlinks that one path may lead through, as in the kernel."""
_PARALLEL = 2
_MERGED = ("usr/bin/", "usr/sbin/", "usr/lib/", "usr/lib64/")

Wanted = Callable[[str], bool]


@dataclass(frozen=True)
class Placed:
    """A member that is visible in the merged image, and the layer it is from (0 is the lowest)."""

    entry: Entry
    layer: int


class Tree:
    """Layers put on top of each other: whiteouts, replaced folders, links."""

    def __init__(self) -> None:
        self.entries: dict[str, Placed] = {}

    def add(self, layer: int, entries: Collection[Entry]) -> None:
        """Put a layer on top. Its whiteouts hide only what is below it, in whatever order they stand."""
        for entry in entries:
            if entry.name == OPAQUE:
                self._hide(self._real(entry.parent), keep_folder=True)
            elif entry.kind == "whiteout":
                parent = self._real(entry.parent)
                self._hide(_join(parent, entry.name.removeprefix(WHITEOUT)))
        for entry in entries:
            if entry.kind == "whiteout" or not entry.path:
                continue
            path = _join(self._real(entry.parent), entry.name)
            if entry.kind != "directory":
                self._hide(path)
            self._make_way(path, layer)
            placed = Placed(entry, layer)
            if entry.kind == "hardlink":
                placed = self.entries.get(self._real(entry.target), placed)
            self.entries[path] = placed

    def _is_folder(self, path: str) -> bool:
        """Tell whether a path is a folder by itself; then all above it are, too."""
        there = self.entries.get(path)
        return there is not None and there.entry.kind == "directory"

    def _make_way(self, path: str, layer: int) -> None:
        """See to it that what lies above a path are folders; layers need not name them."""
        if self._is_folder(path.rpartition("/")[0]):
            return
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            there = self.entries.get(above)
            if there is None or there.entry.kind != "directory":
                folder = Entry(path=above, kind="directory", size=0, mode=0o755, mtime=0)
                self.entries[above] = Placed(folder, layer)

    def _hide(self, path: str, *, keep_folder: bool = False) -> None:
        there = self.entries.get(path)
        if not path or (there and there.entry.kind == "directory"):
            below = f"{path}/" if path else ""
            for hidden in [one for one in self.entries if one.startswith(below)]:
                del self.entries[hidden]
        if not keep_folder:
            self.entries.pop(path, None)

    def resolve(self, path: str) -> str:
        """Follow the symlinks of a path inside the image: the path of what it leads to, "" where nothing is."""
        found = self._real(path)
        return found if found in self.entries else ""

    def _real(self, path: str) -> str:
        """Return a path with the links it leads through resolved; "" for links that go in circles."""
        if self._is_folder(path):
            return path
        todo, done, links = path.strip("/").split("/"), list[str](), 0
        while todo:
            part = todo.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                done = done[:-1]
                continue
            here = "/".join([*done, part])
            placed = self.entries.get(here)
            if placed and placed.entry.kind == "symlink":
                links += 1
                if links > _LINKS:
                    return ""
                target = placed.entry.target
                done = [] if target.startswith("/") else done
                todo = target.split("/") + todo
                continue
            done.append(part)
        return "/".join(done)


def _join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name


@dataclass(frozen=True)
class ImageFiles:
    """An image whose wanted files lie in `root`, each below its own path in the image."""

    root: Path
    manifest: Manifest
    config: ImageConfig
    tree: Tree = field(repr=False)
    contents: Mapping[str, Path] = field(repr=False)
    """Path in the image, links resolved -> file on disk."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path of the merged image, wanted or not, sorted."""
        return tuple(sorted(self.tree.entries))

    def entry(self, path: str) -> Entry | None:
        """Return what is at `path`, links followed; None where nothing is."""
        placed = self.tree.entries.get(self.tree.resolve(path))
        return placed.entry if placed else None

    def file(self, path: str) -> Path | None:
        """Return the content of a wanted file, links followed; None where the image has no such file."""
        return self.contents.get(self.tree.resolve(path))


def read_image(
    registry: Registry, ref: ImageRef, arch: Arch | None, wanted: Wanted, into: Path, *, limit: int = LIMIT
) -> ImageFiles:
    """Read the files that are `wanted` out of an image, with the time stamps they have there.

    `wanted` gets a path without leading slash as layers name it; of merged-usr systems the short one counts too
    (`usr/lib/modules/...` is also asked for as `lib/modules/...`). A wanted link brings what it leads to.
    Raises RunFailedError for damaged or hostile layers, UnsupportedError when the disk is full.
    """
    manifest = registry.manifest(ref, arch)
    config = registry.config_of(ref, manifest)
    found = _Reading(registry, ref, manifest, into, limit)
    numbers = range(len(manifest.layers))
    tree = Tree()
    try:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            layers = list(pool.map(lambda number: found.layer(number, lambda path: _is_wanted(wanted, path)), numbers))
        for number, entries in enumerate(layers):
            tree.add(number, entries)
        return ImageFiles(into, manifest, config, tree, found.placed(tree, wanted))
    finally:
        shutil.rmtree(found.aside, ignore_errors=True)


def _is_wanted(wanted: Wanted, path: str) -> bool:
    return wanted(path) or (path.startswith(_MERGED) and wanted(path.removeprefix("usr/")))


class _Reading:
    """The wanted contents of layers: first each in a place of its own, then where the merged image has them."""

    def __init__(self, registry: Registry, ref: ImageRef, manifest: Manifest, into: Path, limit: int) -> None:
        self._registry, self._ref, self._manifest, self._into, self._limit = registry, ref, manifest, into, limit
        self.aside = into.with_name(f"{into.name}.layers")
        self._taken: dict[tuple[int, str], Path] = {}

    def layer(self, number: int, take: Wanted) -> list[Entry]:
        """Read one layer: all its members, and the contents of those to take."""
        descriptor = self._manifest.layers[number]
        name = f"layer {descriptor.digest} of {self._ref.name}"
        found = []
        with (
            writing(self._into),
            self._registry.open_blob(self._ref, descriptor) as blob,
            unpacked(blob, name, self._limit) as (tar, _),
        ):
            folder = self.aside / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            for entry, member, archive in members(tar, name):
                found.append(entry)
                if entry.kind == "file" and (number, entry.path) not in self._taken and take(entry.path):
                    file = folder / str(len(found))
                    _write(archive.extractfile(member), entry, file)
                    self._taken[number, entry.path] = file
        return found

    def placed(self, tree: Tree, wanted: Wanted) -> dict[str, Path]:
        """Move the contents to the paths of the merged image; fetch those that only links lead to."""
        visible = {}
        for path in tree.entries:
            if _is_wanted(wanted, path) and (real := tree.resolve(path)) and tree.entries[real].entry.kind == "file":
                visible[real] = tree.entries[real]
        late: dict[int, set[str]] = {}
        for one in visible.values():
            if (one.layer, one.entry.path) not in self._taken:
                late.setdefault(one.layer, set()).add(one.entry.path)
        for layer, paths in late.items():
            self.layer(layer, paths.__contains__)
        contents = {}
        with writing(self._into):
            for real, one in visible.items():
                file = self._into / real
                file.parent.mkdir(parents=True, exist_ok=True)
                file.hardlink_to(self._taken[one.layer, one.entry.path])
                contents[real] = file
        return contents


def _write(source: IO[bytes] | None, entry: Entry, file: Path) -> None:
    with file.open("wb") as out:
        shutil.copyfileobj(source or BytesIO(), out, 2**20)
    file.chmod(0o755 if entry.mode & 0o111 else 0o644)
    os.utime(file, (entry.mtime, entry.mtime))


def read_files(
    registry: Registry,
    ref: ImageRef,
    manifest: Manifest,
    paths: Collection[str],
    *,
    budget: int = LIMIT,
    size: int = 2**20,
) -> Iterator[dict[str, bytes]]:
    """Give the files that are wanted, layer by layer, the topmost first; a layer without any of them gives nothing.

    Each file comes once, from the topmost layer that has it. Who has enough goes on no further: lower layers are then
    not fetched. `paths` are exact, links are not followed. Not there is what lies below `budget` bytes of layers;
    of a file the first `size` bytes count.
    """
    missing, limit = set(paths), min(LIMIT, _EXPANSION * budget)
    for descriptor in reversed(manifest.layers):
        budget -= descriptor.size
        if not missing or budget < 0:
            return
        gone = set()
        name = f"layer {descriptor.digest} of {ref.name}"
        here = dict[str, bytes]()
        with registry.open_blob(ref, descriptor) as blob, unpacked(blob, name, limit) as (tar, _):
            for entry, member, archive in members(tar, name):
                if entry.name == OPAQUE:
                    gone |= {path for path in missing if path.startswith(f"{entry.parent}/")}
                elif entry.kind == "whiteout":
                    hidden = _join(entry.parent, entry.name.removeprefix(WHITEOUT))
                    gone |= {path for path in missing if path == hidden or path.startswith(f"{hidden}/")}
                elif entry.path in missing and entry.kind == "file":
                    source = archive.extractfile(member)
                    here[entry.path] = source.read(size) if source else b""
        if here:
            yield here
        missing -= gone | here.keys()


_EXPANSION = 32
"""How many times the budget a layer may unpack to. Software packs to a third."""
