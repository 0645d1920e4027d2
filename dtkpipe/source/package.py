"""Sources in packages of Debian: what a -dkms package puts below /usr/src, as it is in the archive."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dtkpipe.errors import InvalidError
from dtkpipe.resources import cache_dir
from dtkpipe.source import tree
from dtkpipe.tools import apt
from dtkpipe.values.arch import Arch

_PLACE = "usr/src"
_WITHOUT_POCKETS = ("sid", "unstable", "experimental")


def identify(name: str, suite: str) -> tuple[str, str]:
    """Return the SHA-256 of the suite's newest package of that name, as the archive's signed index says, and its title.

    Raises NotFoundError, UnreachableError.
    """
    return _told(_archive(suite).newest(name), suite)


def unpack(name: str, suite: str, into: Path) -> tuple[str, str]:
    """Copy the source in the suite's newest package of that name into the new folder `into`; return what identify does.

    One folder that holds everything is left out. Raises NotFoundError, UnreachableError, and InvalidError for a package
    without a source.
    """
    archive = _archive(suite)
    found = archive.newest(name)
    [deb] = archive.fetch([found])
    with tempfile.TemporaryDirectory(prefix="dtkpipe-") as folder:
        apt.unpack(deb, Path(folder) / "package")
        root = Path(folder) / "package" / _PLACE
        inner = list(root.iterdir()) if root.is_dir() else []
        if not inner:
            raise InvalidError(
                f"the package {name} of {suite} holds no source", f"looked in: /{_PLACE}",
                hint="packages with the source of modules have names such as v4l2loopback-dkms",
            )  # fmt: skip
        if len(inner) == 1 and inner[0].is_dir() and not inner[0].is_symlink():
            root = inner[0]
        into.mkdir(parents=True)
        tree.copy(root, tree.scan(root), into)
    return _told(found, suite)


def _archive(suite: str) -> apt.Archive:
    """-dkms packages are the same for all architectures: this machine's index is asked, which others share."""
    pockets = () if suite in _WITHOUT_POCKETS else ("updates", "security")
    return apt.Archive(suite, Arch.host(), cache_dir(os.environ), pockets=pockets)


def _told(found: apt.Package, suite: str) -> tuple[str, str]:
    return f"sha256:{found.sha256}", f"package {found.name} {found.version} of {suite}"
