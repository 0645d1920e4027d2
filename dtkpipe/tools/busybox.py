"""A static busybox for a target architecture: the shell of guests and of driver containers."""

from __future__ import annotations

from pathlib import Path

from dtkpipe.resources import PREBUILT
from dtkpipe.tools.apt import Archive, unpack
from dtkpipe.values.arch import Arch

SUITE = "bookworm"
"""The suite that the programs of guests and driver containers are taken from."""


def static_busybox(arch: Arch, cache: Path) -> Path:
    """Return the path of a static busybox for `arch`, kept in `cache` or part of the runner image.

    Raises what Archive raises.
    """
    own = Path("/bin/busybox")
    if arch == Arch.host() and own.is_file() and _is_static(own):
        return own
    if (there := PREBUILT / "busybox" / f"{arch}").is_file():
        return there
    archive = Archive(SUITE, arch, cache)
    deb = archive.fetch(["busybox-static"])[0]
    folder = cache / "busybox" / deb.stem
    if not (folder / "bin/busybox").is_file():
        unpack(deb, folder)
    return folder / "bin/busybox"


def _is_static(program: Path) -> bool:
    from elftools.elf.elffile import ELFFile

    with program.open("rb") as file:
        return not any(segment.header.p_type == "PT_INTERP" for segment in ELFFile(file).iter_segments())
