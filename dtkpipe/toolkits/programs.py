"""Programs out of unpacked packages: the files that they need, and running those of another suite than our own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dtkpipe.errors import NotFoundError
from dtkpipe.tools import process
from dtkpipe.tools.apt import Archive
from dtkpipe.values.arch import Arch


def needed(root: Path, programs: Iterable[Path], arch: Arch) -> set[tuple[str, Path]]:
    """Return the place and the file of the loader and of each library that programs under `root` need.

    Read from the ELF files, since a foreign program cannot be asked (System V ABI: PT_INTERP and DT_NEEDED).
    Raises NotFoundError for one that is not under `root`.
    """
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.elffile import ELFFile
    from elftools.elf.segments import InterpSegment

    todo, found = list(programs), set[tuple[str, Path]]()
    folder = f"usr/lib/{arch}-linux-gnu"
    libraries = (folder, folder.removeprefix("usr/"))
    while todo:
        with todo.pop().open("rb") as file:
            segments = list(ELFFile(file).iter_segments())
            loaders = [one.get_interp_name() for one in segments if isinstance(one, InterpSegment)]
            tags = [tag for one in segments if isinstance(one, DynamicSegment) for tag in one.iter_tags("DT_NEEDED")]
            names = [str(tag.needed) for tag in tags]  # type: ignore[attr-defined]  # pyelftools sets it at run time
        # The kernel looks for the loader at this very path.
        new = [
            (f"usr{name}", locate(root, Path(name).name, str(Path(name).parent)[1:], *libraries)) for name in loaders
        ]
        new += [(f"{folder}/{name}", locate(root, name, *libraries)) for name in names if "ld-linux" not in name]
        todo += [file for place, file in new if (place, file) not in found]
        found |= set(new)
    return found


def locate(root: Path, name: str, *places: str) -> Path:
    """Return the regular file that `name` in one of `places` leads to; links in packages may be absolute."""
    for place in places:
        path = root / place / name
        for _ in range(8):
            if not path.is_symlink():
                break
            path = root / str(path.parent.relative_to(root) / path.readlink()).lstrip("/")
        if path.is_file():
            return path
    raise NotFoundError(f"no package holds {name}", f"looked in: {', '.join(places)}")


def depmod(archive: Archive, tree: Path, kernel: str, work: Path) -> None:
    """Write modules.dep and its like for `kernel` in `tree`, with the kmod of the archive's own suite.

    The machine's own kmod may be older or newer, and would write other bytes. `work` is an empty folder.
    """
    for deb in archive.fetch(archive.closure(["kmod"])):
        process.run(["dpkg-deb", "--extract", deb, work])
    files = needed(work, [locate(work, "kmod", "bin", "usr/bin")], archive.arch)
    loader = next(file for place, file in files if "/ld-linux" in place)
    folders = sorted({str(file.parent) for _place, file in files})
    # kmod goes by the name it is called by.
    (work / "depmod").symlink_to(locate(work, "kmod", "bin", "usr/bin"))
    process.run([loader, "--library-path", ":".join(folders), work / "depmod", "--basedir", tree, kernel])
