"""What killed runs left in the cache."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

AGE = 24 * 3600
"""Seconds after which nobody can still be at work in a temporary folder."""
_NAMES = (".new-", ".old-", ".layers-", ".unpack-")


def sweep(cache: Path) -> None:
    """Remove temporary folders of the cache that are old. Those of other owners, or gone meanwhile, are no error."""
    before = time.time() - AGE
    for folder in (found for name in _NAMES for found in cache.glob(f"*/{name}*")):
        with contextlib.suppress(FileNotFoundError):
            if folder.lstat().st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)
