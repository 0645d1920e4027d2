"""Layers that are kept in the cache: made once by whoever comes first, checked whenever they are used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.clients.layers import writing
from dtkpipe.toolkits.layer import Written
from dtkpipe.tools.lock import locked


@dataclass(frozen=True)
class Layer:
    """A layer in the cache."""

    path: Path
    written: Written


def kept(path: Path, write: Callable[[Path], Written], say: Callable[[str], None]) -> Layer:
    """Return the layer `path`, made by `write` if it is not there or is damaged.

    Others that want the same layer wait for it. An interrupted `write` leaves nothing at `path`.
    Raises UnsupportedError when the disk is full.
    """
    note = path.with_name(f"{path.name}.json")
    with locked(path.with_name(f"{path.name}.lock")):
        if note.exists():
            with contextlib.suppress(OSError, ValueError, TypeError):
                written = Written(**json.loads(note.read_text()))
                with path.open("rb") as file:
                    if "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() == written.digest:
                        return Layer(path, written)
            say(f"{path.name} in the cache is damaged: it is made again")
        for left in path.parent.glob(f".{path.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        with writing(path.parent), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as work:
            partial, partial_note = Path(work) / path.name, Path(work) / note.name
            written = write(partial)
            partial_note.write_text(json.dumps(vars(written)))
            note.unlink(missing_ok=True)
            partial.replace(path)
            partial_note.replace(note)
    return Layer(path, written)
