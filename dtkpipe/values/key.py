"""The content key: what an image was made of, so short that it fits into a tag, and the tags that carry it.

A key is four hashes, one for each thing that can change: which cell, which commit, how it is built, with which
toolkit. Two keys therefore tell not only that they differ but why. Tags carry keys, so that one listing of a
repository's tags answers for every kernel: docs/explanation/content-key.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dtkpipe.errors import InvalidError
from dtkpipe.values.arch import Arch
from dtkpipe.values.kernel import Kernel

if TYPE_CHECKING:
    from dtkpipe.values.module import ModuleSpec

LABEL = "dtkpipe.key"
"""Label of an image: its content key."""
STEP_VERSION = "1"
"""Changes whenever the steps make another image of the same inputs: then every cell is built again."""
UNSIGNED = "unsigned"

_PART = "[0-9a-f]{12}"
_KEY = rf"(?P<cell>[0-9a-f]{{16}})-(?P<commit>{_PART})-(?P<recipe>{_PART})-(?P<toolkit>{_PART})"
_TAG = re.compile(rf"(?P<kind>key|failed)-{_KEY}-(?P<signer>{_PART}|{UNSIGNED})(?:-(?P<when>[0-9a-f]{{8}}))?")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
# What says where a module comes from and which kernels it is for, and nothing about what is built.
_NOT_BUILT = ("name", "source", "kernels", "arches", "exclusions")


@dataclass(frozen=True)
class ContentKey:
    """What an image is made of. `cell` has 16 hexadecimal digits, the other parts have 12."""

    cell: str
    """Module, kernel and architecture."""
    commit: str
    """The first digits of the source's commit, or of the hash of a folder, tarball or package."""
    recipe: str
    """Folder in the source, module spec, patches for the kernel, build arguments, version of the steps."""
    toolkit: str
    """The first digits of the toolkit's digest."""

    def __str__(self) -> str:
        return f"{self.cell}-{self.commit}-{self.recipe}-{self.toolkit}"

    @classmethod
    def parse(cls, text: str) -> ContentKey:
        """Parse what `str` gives. Raises InvalidError."""
        if not (found := re.fullmatch(_KEY, text)):
            raise InvalidError(f"`{text[:80]}` is not a content key")
        return cls(*found.groups())


def content_key(
    *, module: str, commit: str, kernel: Kernel, arch: Arch, toolkit: str, path: str = "",
    spec: ModuleSpec | None = None, build_args: Mapping[str, str] | None = None,
) -> ContentKey:  # fmt: skip
    """Return the key of what is built from these.

    `commit` is hexadecimal, or `sha256:...`; `toolkit` a digest; `spec` the module spec that is given with the source
    (one that lies in it is part of the commit), `path` the module's folder in the source.
    """
    return ContentKey(
        cell=cell_hash(module, kernel, arch), commit=_digits(commit),
        recipe=recipe_hash(kernel, path, spec, build_args or {}), toolkit=_digits(toolkit),
    )  # fmt: skip


def cell_hash(module: str, kernel: Kernel, arch: Arch) -> str:
    """Return the part of the key that a cell keeps whatever changes."""
    return _hash([module, kernel.release, arch.name], 16)


def recipe_hash(kernel: Kernel, path: str, spec: ModuleSpec | None, build_args: Mapping[str, str]) -> str:
    """Return the part of the key that says how it is built. Patches for other kernels do not count."""
    built = _built(spec, kernel) if spec and not spec.is_pointer else None
    return _hash([STEP_VERSION, path, built, dict(build_args)], 12)


def _built(spec: ModuleSpec, kernel: Kernel) -> dict[str, Any]:
    document = {name: value for name, value in spec.to_mapping().items() if name not in _NOT_BUILT}
    if patches := spec.build.patches:
        mine = [one.file for one in patches if one.kernel.holds(kernel)]
        document["build"] = {**document["build"], "patches": mine}
    return document


def _hash(value: Any, digits: int) -> str:
    """Hash the canonical form: JSON without blanks, keys sorted, UTF-8."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:digits]


def _digits(digest: str) -> str:
    found = digest.removeprefix("sha256:")[:12]
    return found if re.fullmatch(_PART, found) else "0" * 12


def signer_id(signer: str) -> str:
    """Return how tags name a signer: the first digits of the certificate's SHA-256, or `unsigned`.

    `signer` is what `sign` gives: `unsigned`, or a name and `(sha256:...)`.
    """
    found = re.search(rf"sha256:({_PART})", signer)
    return found[1] if found else UNSIGNED


@dataclass(frozen=True)
class KeyTag:
    """What a tag tells: that the key was published, or that it failed."""

    key: ContentKey
    signer: str
    """As `signer_id` gives it."""
    failed_at: int = 0
    """When it failed, in seconds since the epoch; 0 for what was published."""

    def __str__(self) -> str:
        if self.failed_at:
            return f"failed-{self.key}-{self.signer}-{self.failed_at:08x}"
        return f"key-{self.key}-{self.signer}"

    @classmethod
    def parse(cls, tag: str) -> KeyTag | None:
        """Parse a tag; None for any other tag."""
        found = _TAG.fullmatch(tag)
        if not found or (found["kind"] == "failed") != bool(found["when"]):
            return None
        key = ContentKey(found["cell"], found["commit"], found["recipe"], found["toolkit"])
        return cls(key, found["signer"], int(found["when"] or "0", 16))
