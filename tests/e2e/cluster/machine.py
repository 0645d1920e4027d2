"""The disk that worker nodes start from: Debian with the kernels of its toolkits, made once by mmdebstrap."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.resources import cache_dir
from dtkpipe.toolkits.distribution import distributions
from dtkpipe.toolkits.plan import Suite
from dtkpipe.tools.apt import archive_site
from dtkpipe.values.arch import X86_64
from tests.e2e.cluster import layout

_PACKAGES = (
    "containerd", "crun", "kmod", "containernetworking-plugins", "iptables", "iproute2", "procps", "udev", "conntrack",
)  # fmt: skip
_SIZE = "6G"  # of the file system; the file is sparse
_STUB = """\
#!/bin/sh
# Hands over to the disk that says which node this is.
mount -t devtmpfs dev /dev 2>/dev/null
mount -o ro /dev/vdb /e2e
exec /e2e/init
"""
# The initial RAM disk has what finds the root disk, and nothing else: under emulation each megabyte counts.
_SETUP = """\
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/e2e"
printf 'MODULES=list\\nCOMPRESS=gzip\\n' > "$1/etc/initramfs-tools/conf.d/e2e"
printf 'virtio_pci\\nvirtio_blk\\next4\\n' > "$1/etc/initramfs-tools/modules"
"""


@dataclass(frozen=True)
class Image:
    """The finished disk, and each kernel with its initial RAM disk, by release."""

    folder: Path
    kernels: dict[str, str]
    """Variant (cloud, std) -> kernel release."""

    @property
    def disk(self) -> Path:
        return self.folder / "disk.img"

    def kernel(self, release: str) -> Path:
        return self.folder / f"vmlinuz-{release}"

    def initrd(self, release: str) -> Path:
        return self.folder / f"initrd.img-{release}"


def image(say: Callable[[str], None]) -> Image:
    """Return the disk for today's kernels; make it if it is not there."""
    distribution = next(one for one in distributions() if one.name == layout.DISTRIBUTION)
    suite = Suite(distribution, X86_64, X86_64, cache_dir(os.environ), say)
    kernels = {one.variant: suite.newest(one.variant).release for one in layout.MACHINES}
    recipe = repr((_PACKAGES, _SIZE, _STUB, _SETUP, sorted(kernels.items()), distribution.suite))
    found = Image(layout.cache() / f"machine-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}", kernels)
    if not found.folder.exists():
        say(f"making the disk of the worker nodes, with kernels {', '.join(kernels.values())}")
        _make(found, distribution.suite)
    return found


def _make(wanted: Image, suite: str) -> None:
    main, security = archive_site(security=False), archive_site(security=True)
    sources = [f"deb {main} {suite} main", f"deb {main} {suite}-updates main", f"deb {security} {suite}-security main"]
    packages = [*_PACKAGES, *(f"linux-image-{one}" for one in wanted.kernels.values())]
    wanted.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".machine-", dir=wanted.folder.parent) as work:
        root, unfinished = Path(work) / "root", Path(work) / "image"
        unfinished.mkdir()
        _run([
            "mmdebstrap", "--quiet", "--variant=minbase", '--aptopt=APT::Install-Recommends "false"',
            "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
            f"--setup-hook={_SETUP}", f"--include={','.join(packages)}", suite, str(root), *sources,
        ])  # fmt: skip
        stub = root / "sbin/e2e-init"
        stub.write_text(_STUB)
        stub.chmod(0o755)
        for boot in sorted((root / "boot").glob("[vi]*-*")):
            shutil.copyfile(boot, unfinished / boot.name)
        with (unfinished / "disk.img").open("wb") as disk:
            disk.truncate(int(_SIZE[:-1]) * 2**30)
        _run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", "-d", str(root), str(unfinished / "disk.img")])
        unfinished.rename(wanted.folder)


def _run(argv: list[str]) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PATH": path})
    if done.returncode:
        raise RuntimeError(f"{argv[0]}: {done.stderr.strip()[-2000:]}")
