"""Run a program where "/" is a mount point: `python -m dtkpipe.tools.rooted PROGRAM ARG...`, in a mount namespace.

In a plain chroot it is not one, and what buildah unpacks layers with (containers/storage, pkg/chrootarchive) cannot
work there. A bind mount of the root onto itself makes it one; `/..` leads onto that mount.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dtkpipe.tools import process


def prefix() -> list[str | Path]:
    """Return what to put before a command so that it finds a mount at "/"; nothing where there is one already."""
    mounts = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    if "/" in mounts or os.geteuid() != 0:
        return []
    return ["unshare", "--mount", "--propagation", "unchanged", "--", sys.executable, "-m", __name__]


def main(argv: Sequence[str]) -> NoReturn:
    """Put the mount there and become the program."""
    here = Path.cwd()
    process.run(["mount", "--rbind", "/", "/"])
    os.chroot("/..")
    os.chdir(here)
    program = process.which(argv[0])
    os.execv(program, [program, *argv[1:]])  # noqa: S606 - an argv, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
