"""Change the contents of files inside an image's own layers, so that no layer keeps the old content.

A changed layer keeps every header, order and time stamp; only the content, its size and the header's checksum are new.
The same change gives the same digest.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from dtkpipe.clients.image import Tree
from dtkpipe.clients.layers import Compression, Entry, members, readable, unpacked, writing
from dtkpipe.clients.manifest import Descriptor, Manifest, canonical, digest_of
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import RunFailedError
from dtkpipe.values.image import ImageRef

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 2**20
_LARGEST = 2**30
"""Bytes of a file that can be given new content: it is held in memory."""

Wanted = Callable[[Entry], bool]
Transform = Callable[[str, bytes], bytes]
"""Path in the image and the content there -> the content that shall be there."""


@dataclass(frozen=True)
class Rewritten:
    """The new image, by digest and not tagged, and the paths that were given new content in at least one layer."""

    image: ImageRef
    paths: tuple[str, ...]


def rewrite_layers(
    registry: Registry,
    image: ImageRef,
    wanted: Wanted,
    transform: Transform,
    work: Path,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Rewritten:
    """Give new content to the wanted files of an image, in every layer that holds one, hidden or not.

    What a wanted link leads to is changed too. Layers without such files are used as they are. The image stays in its
    repository; `labels` and `annotations` are added. `work` is a folder for the unpacked layers.
    Raises RunFailedError for damaged layers, and whatever `transform` raises.
    """
    manifest = registry.manifest(image)
    old = registry.config_of(image, manifest)
    layers = [_listed(registry, image, descriptor) for descriptor in manifest.layers]
    chosen = _chosen(layers, wanted)
    diff_ids, descriptors, changed = list(old.diff_ids), list(manifest.layers), set[str]()
    if len(diff_ids) != len(layers):
        raise RunFailedError(f"the config of {image} does not describe its layers")
    tar, rewritten, packed = work / "old.tar", work / "new.tar", work / "packed"
    for at, entries in enumerate(layers):
        paths = {entry.path for entry in entries if entry.kind == "file" and entry.path in chosen}
        if paths:
            name = f"layer {descriptors[at].digest} of {image.name}"
            with writing(work):
                compression = _fetch(registry, image, descriptors[at], tar)
                diff_ids[at] = _rewrite(tar, rewritten, paths, transform, name)
                made = _pack(rewritten, compression, packed)
            # Annotations of the old layer speak of its old bytes (eStargz, zstd:chunked): they do not go along.
            descriptors[at] = replace(descriptors[at], digest=made.digest, size=made.size, annotations={})
            with packed.open("rb") as file:
                registry.push_blob(image, file, descriptors[at])
            changed |= paths
    for leftover in (tar, rewritten, packed):
        leftover.unlink(missing_ok=True)
    config = {**old.data, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    if labels:
        runtime = old.data.get("config")
        config["config"] = {**(runtime if isinstance(runtime, dict) else {}), "Labels": {**old.labels, **labels}}
    return Rewritten(_push(registry, image, manifest, config, descriptors, annotations or {}), tuple(sorted(changed)))


def _listed(registry: Registry, image: ImageRef, descriptor: Descriptor) -> list[Entry]:
    """Return the members of a layer, without keeping any of it on disk: most layers hold nothing that is wanted."""
    name = f"layer {descriptor.digest} of {image.name}"
    with registry.open_blob(image, descriptor) as blob, unpacked(blob, name) as (plain, _):
        return [entry for entry, _, _ in members(plain, name)]


def _fetch(registry: Registry, image: ImageRef, descriptor: Descriptor, tar: Path) -> Compression:
    """Write a layer's tar to disk, uncompressed, and tell how it was compressed."""
    name = f"layer {descriptor.digest} of {image.name}"
    with (
        registry.open_blob(image, descriptor) as blob,
        unpacked(blob, name) as (plain, compression),
        tar.open("wb") as out,
    ):
        shutil.copyfileobj(plain, out, _CHUNK)
    return compression


def _chosen(layers: list[list[Entry]], wanted: Wanted) -> set[str]:
    """Return the paths whose content is wanted: named so, or reached by a link that is."""
    tree, chosen, links = Tree(), set[str](), list[Entry]()
    for at, layer in enumerate(layers):
        tree.add(at, layer)
        for entry in layer:
            if entry.kind == "file" and wanted(entry):
                chosen.add(entry.path)
            if entry.kind == "symlink" and wanted(entry) and (target := tree.resolve(entry.path)):
                chosen.add(tree.entries[target].entry.path)
            if entry.kind == "hardlink":
                links.append(entry)
    before = -1
    while before < len(chosen):
        before = len(chosen)
        chosen |= {link.target for link in links if wanted(link) or link.path in chosen}
    return chosen


def _rewrite(source: Path, target: Path, paths: set[str], transform: Transform, name: str) -> str:
    """Write the tar with new contents for `paths`; returns its digest."""
    with source.open("rb") as old, target.open("w+b") as new, readable(name):
        copied = 0
        for entry, member, _ in members(old, name, seekable=True):
            if entry.path not in paths or entry.kind != "file":
                continue
            if member.issparse() or "size" in member.pax_headers:
                raise RunFailedError(f"{name} holds {entry.path} in a form that cannot be changed in place")
            if member.size > _LARGEST:
                raise RunFailedError(f"{name} holds {entry.path} with {member.size} bytes", "too big to be changed")
            here = old.tell()
            content_ends = member.offset_data + member.size
            old.seek(member.offset_data)
            content = transform(entry.path, old.read(member.size))
            _copy(old, new, copied, member.offset_data - _BLOCK)
            old.seek(member.offset_data - _BLOCK)
            new.write(_resized(old.read(_BLOCK), len(content)))
            new.write(content + bytes(-len(content) % _BLOCK))
            copied = content_ends + -content_ends % _BLOCK
            old.seek(here)
        _copy(old, new, copied, source.stat().st_size)
        new.seek(0)
        return "sha256:" + hashlib.file_digest(new, "sha256").hexdigest()


def _copy(old: IO[bytes], new: IO[bytes], start: int, end: int) -> None:
    old.seek(start)
    while start < end:
        chunk = old.read(min(_CHUNK, end - start))
        if not chunk:
            return
        new.write(chunk)
        start += len(chunk)


def _resized(header: bytes, size: int) -> bytes:
    """Return a ustar header with another size (bytes 124 to 135, octal) and its checksum (148 to 155) made right."""
    blank = header[:124] + f"{size:011o}\0".encode() + header[136:148] + b" " * 8 + header[156:]
    return blank[:148] + f"{sum(blank):06o}\0 ".encode() + blank[156:]


def _pack(tar: Path, compression: Compression, packed: Path) -> Descriptor:
    """Compress the new tar as the old one was, without a time stamp or a name in it."""
    with tar.open("rb") as plain, packed.open("w+b") as out:
        if compression == "gzip":
            with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0, compresslevel=6) as zipped:
                shutil.copyfileobj(plain, zipped, _CHUNK)
        elif compression == "zstd":
            import zstandard

            zstandard.ZstdCompressor(level=3).copy_stream(plain, out, size=tar.stat().st_size)
        else:
            shutil.copyfileobj(plain, out, _CHUNK)
        size = out.tell()
        out.seek(0)
        return Descriptor(media_type="", digest=f"sha256:{hashlib.file_digest(out, 'sha256').hexdigest()}", size=size)


def _push(
    registry: Registry,
    image: ImageRef,
    manifest: Manifest,
    config: Mapping[str, Any],
    layers: list[Descriptor],
    annotations: Mapping[str, str],
) -> ImageRef:
    body = canonical(config)
    described = replace(manifest.config, digest=digest_of(body), size=len(body))
    registry.push_blob(image, body, described)
    document = {**manifest.data, "config": described.to_dict(), "layers": [one.to_dict() for one in layers]}
    if annotations:
        document["annotations"] = {**manifest.annotations, **annotations}
    return image.at(registry.push_manifest(image, canonical(document), manifest.media_type))
