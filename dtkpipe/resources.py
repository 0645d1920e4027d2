"""Where the files that ship with dtkpipe are (catalog/, pipelines/), and where its own files go.

In a checkout catalog/ and pipelines/ lie beside the package; in a wheel they lie inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

PREBUILT = Path("/usr/share/dtkpipe")
"""What the runner image has made beforehand out of Debian's archive, which pods need not reach."""


def shipped(name: str) -> Path:
    """Return the folder or file `name` ("catalog/toolkits", "pipelines") that ships with dtkpipe."""
    bundled = _PACKAGE / "_data" / name
    return bundled if bundled.exists() else _PACKAGE.parent / name


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder for what can be made again: toolkits, kernels, packages. Safe to delete at any time."""
    if own := environ.get("DTKPIPE_CACHE"):
        return Path(own)
    return Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/root")) / ".cache") / "dtkpipe"


def state_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder for what cannot be made again: the runs of the local engine, logs."""
    if own := environ.get("DTKPIPE_STATE"):
        return Path(own)
    return Path(environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "/root")) / ".local" / "state") / "dtkpipe"
