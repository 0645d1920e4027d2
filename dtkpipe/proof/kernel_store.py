"""Where the files of a target kernel come from: the local cache, a kernel artifact, or the layers of a toolkit.

One folder for each toolkit and kernel: `kernels/<sha256 of the toolkit>/<kernel>`. It is made beside its place and
renamed, so it is whole or not there, whoever else does the same at the same time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import IO, cast

from dtkpipe.clients.image import ImageFiles, read_image
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import InvalidError, NotFoundError
from dtkpipe.proof.kernel import (
    FORMAT,
    MANIFEST,
    MODULES,
    SIGN_FILE,
    SYMVERS,
    VMLINUZ,
    CacheCorruptError,
    KernelFiles,
)
from dtkpipe.proof.module import is_module_file, read_module
from dtkpipe.tools.process import run
from dtkpipe.values.arch import ARCHES
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

ARTIFACT = "application/vnd.dtkpipe.kernel.v1"
_KERNEL, _TOOLKIT = "dtkpipe.kernel", "dtkpipe.toolkit"
_ARCHIVE = "kernel.tar.zst"
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_INDEXES = ("modules.dep", "modules.alias", "modules.builtin", "modules.order", "modules.softdep")
_NOT_MODULES = ("build/", "source/", "vdso/", "weak-updates/")


def kernel_files(
    registry: Registry, toolkit: ImageRef, kernel_image: ImageRef | None, cache: Path, kernel: str = ""
) -> KernelFiles:
    """Return the kernel of a toolkit image: from the cache, else from the kernel artifact, else from its layers.

    `kernel` chooses where a toolkit holds several. Raises NotFoundError, InvalidError, UnreachableError.
    """
    digest = toolkit.digest or registry.digest(toolkit)
    release = kernel or _only_kernel(cache, digest)
    if release and (found := _cached(cache, digest, release)):
        if found.has_aliases:
            return found
        _drop(found.folder)
    if kernel_image:
        try:
            stored = stored_kernel(registry, kernel_image, cache)
        except NotFoundError:
            pass
        else:
            if stored.toolkit == digest and kernel in ("", stored.kernel.release) and stored.has_aliases:
                return stored
            _drop(_folder(cache, digest, stored.kernel.release))
    return _from_toolkit(registry, toolkit, digest, cache, kernel)


def stored_kernel(registry: Registry, kernel_image: ImageRef, cache: Path) -> KernelFiles:
    """Return the kernel that an artifact holds; from the cache when it is there already."""
    manifest = registry.manifest(kernel_image)
    release, digest = (str(manifest.annotations.get(key, "")) for key in (_KERNEL, _TOOLKIT))
    if manifest.artifact_type != ARTIFACT or not release or not _DIGEST.fullmatch(digest):
        raise InvalidError(f"{kernel_image} is not a kernel artifact", f"expected the type {ARTIFACT}")
    if found := _cached(cache, digest, Kernel.parse(release).release):
        return found

    def unpack(folder: Path) -> None:
        import zstandard

        with registry.open_blob(kernel_image, manifest.layers[0]) as blob:
            try:
                with (
                    zstandard.ZstdDecompressor().stream_reader(cast("IO[bytes]", blob)) as stream,
                    tarfile.open(fileobj=stream, mode="r|") as tar,
                ):
                    _extract(tar, folder)
            except (tarfile.TarError, zstandard.ZstdError) as error:
                raise InvalidError(f"the kernel artifact {kernel_image} cannot be unpacked", str(error)) from error

    return _place(_folder(cache, digest, release), unpack)


def publish_kernel(registry: Registry, files: KernelFiles, repo: ImageRef) -> ImageRef:
    """Push a kernel as an artifact, unless it is there, and return it by digest. Raises CacheCorruptError."""
    import zstandard

    tag = f"kernel-{files.kernel.tag}-{files.toolkit.removeprefix('sha256:')[:12]}"
    try:
        return repo.at(registry.digest(repo.tagged(tag)))
    except NotFoundError:
        pass
    with tempfile.TemporaryFile() as archive:
        with (
            zstandard.ZstdCompressor(level=1).stream_writer(archive, closefd=False) as stream,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            _add(tar, MANIFEST, (files.folder / MANIFEST).read_bytes())
            for name in sorted(files.sums):
                _add(tar, name, files.read(name))  # checked: what is damaged here must not spread
        archive.seek(0)
        notes = {_KERNEL: files.kernel.release, _TOOLKIT: files.toolkit}
        return registry.push_artifact(repo, ARTIFACT, {_ARCHIVE: archive}, annotations=notes, tag=tag)


def staged_kernel(
    registry: Registry, toolkit: ImageRef, kernel: str, staging: ImageRef, cache: Path, say: Callable[[str], None],
    *, again: bool = True,
) -> tuple[KernelFiles, ImageRef]:  # fmt: skip
    """See to it that the kernel's own files are in the staging repository, where sign and verify look for them.

    Returns the files here and the artifact there. What is damaged here is made again, once.
    """
    files = kernel_files(registry, toolkit, None, cache, kernel)
    try:
        return files, publish_kernel(registry, files, staging)
    except CacheCorruptError as error:
        if not again:
            raise
        forget(files)
        say(f"{error.what}: {error.details[0]}; made again")
        return staged_kernel(registry, toolkit, kernel, staging, cache, say, again=False)


def forget(files: KernelFiles) -> None:
    """Drop a cached kernel, so that the next kernel_files() makes it again."""
    _drop(files.folder)


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpack regular files below `folder`, and nothing else; Python 3.11.2 has no extraction filters."""
    for member in tar:
        path = PurePosixPath(member.name)
        source = tar.extractfile(member) if member.isfile() else None
        if source is None or path.is_absolute() or ".." in path.parts:
            raise tarfile.TarError(f"unexpected member {member.name!r}")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            shutil.copyfileobj(source, out)
        target.chmod(0o755 if member.mode & 0o111 else 0o644)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o755 if name == SIGN_FILE else 0o644
    tar.addfile(member, io.BytesIO(content))


def _folder(cache: Path, digest: str, release: str) -> Path:
    return cache / "kernels" / digest.removeprefix("sha256:") / release


def _only_kernel(cache: Path, digest: str) -> str:
    note = _folder(cache, digest, "only")
    return note.read_text() if note.is_file() else ""


def _cached(cache: Path, digest: str, release: str) -> KernelFiles | None:
    folder = _folder(cache, digest, release)
    try:
        return KernelFiles.load(folder)
    except FileNotFoundError:
        return None
    except CacheCorruptError:
        _drop(folder)
        return None


def _drop(folder: Path) -> None:
    # Renamed first: nobody may find half of it.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".old-") as old:
        if folder.exists():
            folder.rename(Path(old) / "kernel")


def _place(folder: Path, make: Callable[[Path], None]) -> KernelFiles:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as new:
        made = Path(new) / "kernel"
        made.mkdir()
        make(made)
        try:
            KernelFiles.load(made)
        except (CacheCorruptError, FileNotFoundError) as error:
            raise InvalidError("the files of the kernel are not what their manifest says") from error
        try:
            made.rename(folder)
        except OSError:
            # Somebody else was quicker; theirs is as good, or is damaged and replaced now.
            try:
                return KernelFiles.load(folder)
            except (CacheCorruptError, FileNotFoundError):
                _drop(folder)
                made.rename(folder)
    return KernelFiles.load(folder)


def _from_toolkit(registry: Registry, toolkit: ImageRef, digest: str, cache: Path, kernel: str) -> KernelFiles:
    image = toolkit.at(digest)
    with tempfile.TemporaryDirectory(dir=_made(cache / "kernels"), prefix=".layers-") as layers:
        files = read_image(
            registry, image, Kernel(kernel).arch if kernel else None, _wanted(kernel), Path(layers, "root")
        )
        release = kernel or _release(files, image)
        placed = _place(_folder(cache, digest, release), lambda folder: collect(files, release, digest, folder))
    if not kernel:
        (placed.folder.parent / "only").write_text(release)
    return placed


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _wanted(kernel: str) -> Callable[[str], bool]:
    release = re.escape(kernel) if kernel else "[^/]+"
    paths = re.compile(
        rf"lib/modules/{release}/(?!{'|'.join(_NOT_MODULES)}).+|boot/vmlinuz-{release}"
        r"|.*/scripts/sign-file|usr/src/.*/Module\.symvers"
    )
    return lambda path: paths.fullmatch(path) is not None


def _release(files: ImageFiles, image: ImageRef) -> str:
    """Return the kernel of a toolkit that was not told: its label, else the only one that has modules."""
    label = files.config.labels.get("kernel-version", "")
    names = {path.split("/")[2 if path.startswith("lib") else 3] for path in files.contents if "lib/modules/" in path}
    if label in names:
        return label
    if len(names) != 1:
        raise InvalidError(
            f"{image} holds {'several kernels' if names else 'no kernel'}",
            f"below /lib/modules: {', '.join(sorted(names)) or 'nothing'}",
            hint="name the one with --kernel" if names else "",
        )
    return names.pop()


def collect(files: ImageFiles, release: str, toolkit: str, into: Path) -> None:
    """Lay the files of one kernel out in `into`. Raises NotFoundError for what a toolkit must have and lacks."""
    tree = f"lib/modules/{release}"
    sources = f"usr/src/kernels/{release}"

    def first(what: str, paths: Iterable[str]) -> Path:
        looked = list(paths)
        for path in looked:
            if found := files.file(path):
                return found
        raise NotFoundError(
            f"the toolkit has no {what} of kernel {release}", "looked at: " + ", ".join(f"/{path}" for path in looked)
        )

    vmlinuz = first("image", [f"{tree}/vmlinuz", f"boot/vmlinuz-{release}"])
    symvers = first(
        "symbol list",
        [f"{tree}/symvers.gz", f"{tree}/symvers.xz", f"{sources}/Module.symvers", f"{tree}/build/Module.symvers"],
    )
    shutil.copyfile(vmlinuz, into / VMLINUZ)
    (into / SYMVERS).write_bytes(_plain(symvers))
    for path in (f"{sources}/scripts/sign-file", f"{tree}/build/scripts/sign-file"):
        if found := files.file(path):
            shutil.copy(found, into / SIGN_FILE)
            break
    base = into / MODULES / tree
    base.mkdir(parents=True)
    for path, file in files.contents.items():
        relative = path.removeprefix("usr/").removeprefix(f"{tree}/")
        if path.removeprefix("usr/").startswith(f"{tree}/") and _is_part(relative):
            (base / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, base / relative)
    if not all((base / name).is_file() for name in ("modules.dep", "modules.alias")):
        run(["depmod", "-b", into / MODULES, release])
    base.rename(into / "tree")
    shutil.rmtree(into / MODULES)
    (into / "tree").rename(into / MODULES)
    _describe(release, toolkit, into)


def _is_part(path: str) -> bool:
    return is_module_file(path) or path in _INDEXES


def _plain(symvers: Path) -> bytes:
    data = symvers.read_bytes()
    try:
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        return lzma.decompress(data) if data.startswith(b"\xfd7zXZ\x00") else data
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InvalidError("the toolkit's list of symbols cannot be read", symvers.name, str(error)) from error


def _describe(release: str, toolkit: str, folder: Path) -> None:
    modules = sorted(path for path in (folder / MODULES).rglob("*") if is_module_file(path.name))
    if not modules:
        raise NotFoundError(
            f"the toolkit has no modules of kernel {release}",
            f"looked at: /lib/modules/{release}",
            "they tell what the kernel accepts, and are what other modules depend on",
        )
    module = read_module(modules[0])
    arch = next((arch for arch in ARCHES if arch.elf_machine == module.machine), None)
    if arch is None or not module.vermagic:
        raise InvalidError(f"{modules[0].name} of kernel {release} is of no known kind", f"machine {module.machine}")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    document = {
        "format": FORMAT, "kernel": release, "arch": arch.name, "toolkit": toolkit, "vermagic": module.vermagic,
        "files": sums,
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(document, indent=1))
