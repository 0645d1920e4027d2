"""What a driver container has besides its modules: a shell, and the real modprobe (kmod) with its libraries.

The shell is dash, not busybox's own: that one would run busybox's modprobe, which knows no `-d`, whatever PATH says.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from dtkpipe.resources import PREBUILT
from dtkpipe.toolkits.kept import kept
from dtkpipe.toolkits.layer import LayerWriter, Written
from dtkpipe.toolkits.programs import locate, needed
from dtkpipe.tools import process
from dtkpipe.tools.apt import Archive, Package
from dtkpipe.tools.busybox import SUITE, static_busybox
from dtkpipe.values.arch import BUILT, Arch

_RECIPE = "1"
# What scripts of driver containers and workers of Kernel Module Management call; kmod has its own names below.
_APPLETS = ("cp", "mv", "rm", "ln", "ls", "cat", "mkdir", "rmdir", "touch", "chmod", "chown", "echo", "printf",
            "test", "[", "true", "false", "env", "id", "uname", "sleep", "kill", "ps", "date", "basename", "dirname",
            "readlink", "realpath", "find", "xargs", "grep", "sed", "awk", "cut", "tr", "sort", "uniq", "head", "tail",
            "wc", "tee", "dmesg", "mount", "umount", "sync", "stat", "md5sum", "sha256sum", "tar", "gzip")  # fmt: skip
_KMOD = ("modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod")


def driver_base(arch: Arch, cache: Path, say: Callable[[str], None] = lambda _line: None) -> Path:
    """Return a tar with /bin/sh, /bin/cp and their like (busybox), modprobe (kmod), and the libraries it needs.

    For any architecture, and the same bytes from the same packages; kept in `cache`. In the runner image it is there
    already. Raises what Archive raises.
    """
    if (there := PREBUILT / "driver-base" / f"{arch}.tar").is_file():
        return there
    archive = Archive(SUITE, arch, cache, say=say)
    packages = archive.closure(["busybox-static", "dash", "kmod"])
    key = hashlib.sha256(json.dumps([_RECIPE, *(str(one) for one in packages)]).encode()).hexdigest()[:24]
    path = cache / "driver-base" / f"{arch}-{key}.tar"
    return kept(path, lambda partial: _write(archive, packages, partial), say).path


def ship() -> None:
    """Make what the runner image has below PREBUILT: driver bases, and a static busybox for guests of each kind."""
    with tempfile.TemporaryDirectory() as cache:
        for arch in BUILT:
            for folder, make in (("driver-base", driver_base), ("busybox", static_busybox)):
                made = make(arch, Path(cache))
                (PREBUILT / folder).mkdir(parents=True, exist_ok=True)
                shutil.copy(made, PREBUILT / folder / f"{arch}{made.suffix}")


def _write(archive: Archive, packages: tuple[Package, ...], path: Path) -> Written:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        root = Path(folder)
        for deb in archive.fetch(packages):
            process.run(["dpkg-deb", "--extract", deb, root])
        with LayerWriter(path, compress=False) as layer:
            layer.merged_usr()
            layer.folder("tmp", 0o1777)
            layer.file("usr/bin/busybox", locate(root, "busybox", "bin", "usr/bin").read_bytes(), 0o755)
            for name in _APPLETS:
                layer.link(f"usr/bin/{name}", "busybox")
            programs = {name: locate(root, name, "bin", "usr/bin") for name in ("dash", "kmod")}
            for name, program in programs.items():
                layer.file(f"usr/bin/{name}", program.read_bytes(), 0o755)
            layer.link("usr/bin/sh", "dash")
            for name in _KMOD:
                layer.link(f"usr/sbin/{name}", "../bin/kmod")
            for place, library in sorted(needed(root, programs.values(), archive.arch)):
                layer.file(place, library.read_bytes(), 0o755)
    return layer.written
