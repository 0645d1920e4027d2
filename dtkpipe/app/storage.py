"""Finds what is broken in the loopback registry's storage and removes it, so that it is made again.

A registry checks what it is sent and trusts its disk ever after. Layout of the storage: distribution v2,
registry/storage/paths.go.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{64}")


def repair(root: Path, noted: Path) -> list[str]:
    """Remove broken blobs and all that refers to them; return what was removed. Only while no registry runs on it.

    A blob whose size and time of change are those of `noted` is trusted, any other is read and its digest compared.
    """
    store = root / "docker/registry/v2"
    shutil.rmtree(store / "uploads", ignore_errors=True)
    for uploads in store.glob("repositories/**/_uploads"):
        shutil.rmtree(uploads, ignore_errors=True)
    known = _noted(noted)
    removed: list[str] = []
    good: set[str] = set()
    for blob in _blobs(store):
        data = blob / "data"
        if _stamp(data) == known.get(blob.name, ()) or _sha256(data) == blob.name:
            good.add(blob.name)
        else:
            shutil.rmtree(blob)
            removed.append(f"blob {blob.name[:12]}")
    bad: set[str] = set()
    while broken := [manifest for manifest in _manifests(store) if not _is_whole(store, manifest.name, good, bad)]:
        for manifest in broken:
            good.discard(manifest.name)
            bad.add(manifest.name)
            shutil.rmtree(manifest)
            removed.append(f"manifest {manifest.name[:12]} of {_repository(store, manifest)}")
    for link in [
        *store.glob("repositories/**/_layers/sha256/*/link"),
        *store.glob("repositories/**/_manifests/tags/*/current/link"),
    ]:
        if _target(link) not in good:
            folder = link.parent.parent if link.parent.name == "current" else link.parent
            shutil.rmtree(folder)
            removed.append(f"{folder.name[:24]} of {_repository(store, folder)}")
    note(root, noted)
    return removed


def note(root: Path, noted: Path) -> None:
    """Remember size and time of change of every blob as they are now, when all that was written has been checked."""
    stamps = {blob.name: _stamp(blob / "data") for blob in _blobs(root / "docker/registry/v2")}
    beside = noted.with_suffix(".new")
    beside.write_text(json.dumps(stamps))
    beside.replace(noted)


def _noted(noted: Path) -> dict[str, tuple[int, int]]:
    with suppress(OSError, ValueError, AttributeError, TypeError):
        return {name: (int(size), int(time)) for name, (size, time) in json.loads(noted.read_text()).items()}
    return {}


def _blobs(store: Path) -> Iterator[Path]:
    return (blob for blob in store.glob("blobs/sha256/*/*") if _DIGEST.fullmatch(blob.name))


def _manifests(store: Path) -> Iterator[Path]:
    return store.glob("repositories/**/_manifests/revisions/sha256/*")


def _is_whole(store: Path, digest: str, good: set[str], bad: set[str]) -> bool:
    """Tell whether a manifest and everything it needs is there. An index may list images that were never copied."""
    if digest not in good:
        return False
    try:
        content = json.loads((store / "blobs/sha256" / digest[:2] / digest / "data").read_bytes())
        parts = [content.get("config"), *content.get("layers", [])]
        images = {part["digest"].removeprefix("sha256:") for part in content.get("manifests", [])}
        return not images & bad and all(part["digest"].removeprefix("sha256:") in good for part in parts if part)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _repository(store: Path, inside: Path) -> str:
    return str(inside.relative_to(store / "repositories")).split("/_")[0]


def _target(link: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return link.read_text().strip().removeprefix("sha256:")
    return ""


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return ""
