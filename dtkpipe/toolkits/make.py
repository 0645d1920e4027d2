"""Makes a toolkit out of its plan: two layers from packages, put together and pushed as one image.

The layers are laid out like the Driver Toolkit's (github.com/openshift/driver-toolkit, Dockerfile): headers in
/usr/src/kernels/<kernel>, kernel and in-tree modules in /lib/modules/<kernel>, the kernel's name in
/etc/driver-toolkit-release.json. No root, no container and no storage is needed: package contents go through as
streams.
"""

from __future__ import annotations

import fnmatch
import gzip
import lzma
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtkpipe.clients.manifest import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor, canonical
from dtkpipe.clients.registry import Registry
from dtkpipe.toolkits.kept import Layer, kept
from dtkpipe.toolkits.layer import LayerWriter, Written
from dtkpipe.toolkits.plan import Plan, Suite
from dtkpipe.toolkits.programs import depmod
from dtkpipe.tools import process
from dtkpipe.values.image import ImageRef

_NOT_NEEDED = ("usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/",
               "usr/share/bug/", "usr/share/bash-completion/", "usr/share/doc-base/", "usr/share/menu/")  # fmt: skip
_USERS = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
_GROUPS = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"


@dataclass(frozen=True)
class Maker:
    """Makes toolkits. Layers are kept in `cache`; what runs at the same time waits for the other's layer."""

    suite: Suite
    registry: Registry
    cache: Path
    say: Callable[[str], None]

    def make(self, plan: Plan, repo: ImageRef) -> str:
        """Make the toolkit and push it to `repo` under the plan's tag; return its digest."""
        with ThreadPoolExecutor(2) as pool:
            folder = self.cache / "toolkits"
            base_path = folder / f"base-{plan.base_key[:24]}.tar.gz"
            own_path = folder / f"kernel-{plan.kernel_key[:24]}.tar.gz"
            base = pool.submit(kept, base_path, lambda path: self._base(plan, path), self.say)
            own = pool.submit(kept, own_path, lambda path: self._kernel(plan, path), self.say)
            layers = [base.result(), own.result()]
            self.say(f"pushing the toolkit ({sum(one.written.size for one in layers) / 2**20:.0f} MiB)")
            list(pool.map(lambda layer: self._push(repo, layer), layers))
        config = canonical(_config(plan, layers))
        described = self.registry.push_blob(repo, config, Descriptor.of(config, OCI_CONFIG))
        manifest = {
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described.to_dict(),
            "layers": [_descriptor(layer).to_dict() for layer in layers],
        }  # fmt: skip
        return self.registry.push_manifest(repo, canonical(manifest), OCI_MANIFEST, plan.tag)

    def _push(self, repo: ImageRef, layer: Layer) -> None:
        with layer.path.open("rb") as file:
            self.registry.push_blob(repo, file, _descriptor(layer))

    def _base(self, plan: Plan, path: Path) -> Written:
        """Write the layer of tools that all kernels of the suite share."""
        size = sum(package.size for package in plan.base) / 2**20
        self.say(f"toolkit base of {plan.distribution.name}: {len(plan.base)} packages, {size:.0f} MiB")
        debs = self.suite.tools_from.fetch(plan.base)
        wanted = _wanted(plan)
        authorities: dict[str, bytes] = {}
        with LayerWriter(path) as layer:
            layer.merged_usr()
            layer.file("etc/passwd", _USERS.encode())
            layer.file("etc/group", _GROUPS.encode())
            for deb in debs:
                keep = authorities.__setitem__ if deb.name.startswith("ca-certificates_") else None
                layer.package(deb, wanted, keep)
            bundle = b"".join(data for name, data in sorted(authorities.items()) if name.endswith(".crt"))
            layer.file("etc/ssl/certs/ca-certificates.crt", bundle)
            for name, target in plan.distribution.alternatives.items():
                if layer.has(f"usr/bin/{target}"):
                    layer.link(f"usr/bin/{name}", target)
        return layer.written

    def _kernel(self, plan: Plan, path: Path) -> Written:
        """Write the layer of one kernel."""
        self.say(f"toolkit kernel {plan.kernel}: fetching and unpacking")
        debs = self.suite.kernels_from.fetch([plan.image, *plan.headers])
        support = self.suite.tools_from.fetch(plan.support)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            tree = _kernel_tree(plan, debs, Path(folder))
            self._index(plan, tree, Path(folder))
            with LayerWriter(path) as layer:
                layer.file("etc/driver-toolkit-release.json", _release(plan))
                for deb in support:
                    layer.package(deb, _wanted(plan))
                layer.tree(tree)
        return layer.written

    def _index(self, plan: Plan, tree: Path, folder: Path) -> None:
        """Write what depmod makes, and give all that is ours the time of the kernel."""
        kernel = plan.kernel.release
        (folder / "kmod").mkdir()
        # depmod looks for lib/modules or usr/lib/modules, by how it was built.
        (tree / "lib").symlink_to("usr/lib")
        depmod(self.suite.tools_from, tree, kernel, folder / "kmod")
        (tree / "lib").unlink()
        newest = int((tree / "usr/lib/modules" / kernel / "vmlinuz").stat().st_mtime)
        for path in tree.rglob("*"):
            if path.lstat().st_mtime > newest:
                os.utime(path, (newest, newest), follow_symlinks=False)


def _descriptor(layer: Layer) -> Descriptor:
    return Descriptor(media_type=OCI_LAYER_GZIP, digest=layer.written.digest, size=layer.written.size)


def _kernel_tree(plan: Plan, debs: list[Path], folder: Path) -> Path:
    """Lay the kernel's packages out as the Driver Toolkit has them; return the root of that tree."""
    kernel = plan.kernel.release
    packed, tree = folder / "packed", folder / "tree"
    for deb in debs:
        process.run(["dpkg-deb", "--extract", deb, packed])
    modules, sources = tree / "usr/lib/modules" / kernel, tree / "usr/src"
    for place in (packed / "usr/lib/modules" / kernel, packed / "lib/modules" / kernel):
        if place.is_dir():
            shutil.copytree(place, modules, symlinks=True, dirs_exist_ok=True)
    for name in ("vmlinuz", "config"):
        shutil.copy2(packed / "boot" / f"{name}-{kernel}", modules / name)
    sources.mkdir(parents=True)
    (sources / "kernels").mkdir()
    own = f"linux-headers-{kernel}"
    for headers in (packed / "usr/src").iterdir():
        headers.rename(sources / "kernels" / kernel if headers.name == own else sources / headers.name)
    headers = sources / "kernels" / kernel
    for path in [one for one in headers.iterdir() if one.is_symlink()]:
        target = os.path.normpath(Path("/usr/src", own) / path.readlink())
        path.unlink()
        path.symlink_to(target)
    (sources / own).symlink_to(f"kernels/{kernel}")
    # gzip.compress() writes another header from one Python to the next.
    with (modules / "symvers.gz").open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as symvers:
        symvers.write((headers / "Module.symvers").read_bytes())
    for link, to in (("build", f"/usr/src/kernels/{kernel}"), ("source", "build")):
        (modules / link).unlink(missing_ok=True)
        (modules / link).symlink_to(to)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_compress, modules.rglob("*.ko")))
    return tree


def _compress(module: Path) -> None:
    """Compress a module the way the kernel can read; quickly, since every toolkit is made once and read often."""
    status = module.stat()
    packed = module.with_suffix(".ko.xz")
    packed.write_bytes(lzma.compress(module.read_bytes(), lzma.FORMAT_XZ, lzma.CHECK_CRC32, preset=0))
    os.utime(packed, (status.st_atime, status.st_mtime))
    module.unlink()


def _release(plan: Plan) -> bytes:
    """Write driver-toolkit-release.json with the keys that the real one has, and the distribution's own."""
    kernel = plan.kernel.release
    return canonical(
        {
            "KERNEL_VERSION": kernel,
            "RT_KERNEL_VERSION": kernel if plan.kernel.variant == "rt" else "",
            "RHEL_VERSION": "",
            "DISTRIBUTION": plan.distribution.name,
        }
    )


def _config(plan: Plan, layers: list[Layer]) -> dict[str, Any]:
    """Return the image's config: labels as the Driver Toolkit has them, and what a cross compiler needs to know."""
    env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    if plan.cross:
        env += [f"ARCH={plan.target.kernel}", f"CROSS_COMPILE={plan.target.name}-linux-gnu-"]
    is_rt = plan.kernel.variant == "rt"
    labels = {
        "name": "driver-toolkit",
        "version": "0.1",
        "kernel-version": plan.kernel.release,
        "kernel-rt-version": plan.kernel.release if is_rt else "",
        "io.k8s.description": f"Driver Toolkit of {plan.distribution.title} for kernel {plan.kernel}",
        "io.openshift.os.streamclass": plan.distribution.name,
        "dtkpipe.kernel": plan.kernel.release,
        "dtkpipe.releases": plan.distribution.name,
    }
    return {
        "architecture": plan.host.oci,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Env": env, "Cmd": ["/bin/bash"], "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [layer.written.diff_id for layer in layers]},
        "history": [
            {"created": "1970-01-01T00:00:00Z", "created_by": f"dtkpipe: tools of {plan.distribution.name}"},
            {"created": "1970-01-01T00:00:00Z", "created_by": f"dtkpipe: kernel {plan.kernel}"},
        ],
    }


def _wanted(plan: Plan) -> Callable[[str], bool]:
    patterns = plan.distribution.leave_out

    def wanted(path: str) -> bool:
        return not path.startswith(_NOT_NEEDED) and not any(fnmatch.fnmatchcase(path, one) for one in patterns)

    return wanted
