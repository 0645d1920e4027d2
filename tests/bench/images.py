"""How large a published image is besides its modules, read out of the loopback registry's storage."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from dtkpipe.resources import cache_dir
from dtkpipe.values.run import RunCard


def over_modules(card: RunCard) -> int:
    """Bytes of the image's layers, as they are stored, that are not its kernel modules."""
    manifest = json.loads(blob(card.result("publish", "IMAGE_DIGEST")).read_text())
    stored = sum(layer["size"] for layer in manifest["layers"])
    modules = sum(size for layer in manifest["layers"] for size in module_sizes(blob(layer["digest"])))
    return int(stored - modules)


def blob(digest: str) -> Path:
    """A blob's file. Layout: github.com/distribution/distribution, registry/storage/paths.go."""
    hexadecimal = digest.removeprefix("sha256:")
    storage = cache_dir(os.environ) / "registry"
    (found,) = storage.rglob(f"docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data")
    return found


def module_sizes(layer: Path) -> Iterator[int]:
    with tarfile.open(layer) as tar:
        for member in tar:
            if member.isfile() and ".ko" in Path(member.name).suffixes:
                yield member.size
