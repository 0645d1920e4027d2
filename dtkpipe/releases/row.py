"""One row of the lock: what is known of one release, on one architecture, in one stream of the operating system."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dtkpipe.errors import DtkpipeError, InvalidError
from dtkpipe.values.arch import ARCHES, Arch
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.version import Version

VARIANTS = ("std", "rt", "64k")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_STREAM = re.compile(r"rhel-\d+|scos")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WORDS = re.compile(r"[ -~]{1,200}")
_DAY = re.compile(r"20\d\d-[01]\d-[0-3]\d")


class ConflictError(InvalidError):
    """A release that has another digest or kernel than the lock says. Releases never change: one of them is wrong."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row. What is not known is empty; digests are `sha256:<hex>`."""

    version: Version
    arch: Arch
    stream: str
    """Stream of the operating system: rhel-8, rhel-9, rhel-10; scos for OKD."""
    payload: str = ""
    """Digest of the release image of this architecture."""
    toolkit: str = ""
    """Digest of the Driver Toolkit."""
    os_image: str = ""
    """Digest of the image of the operating system."""
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    """Kernel by variant: std, rt, 64k."""
    os_kernel: Kernel | None = None
    """The kernel of the operating system, where it is not the toolkit's: such a toolkit builds for nobody."""
    rhcos: str = ""
    """Version of the operating system: 416.94.202409040013-0, 9.6.20250925-0."""
    withdrawn: str = ""
    """Why the release was taken back, where it was: it counts only for those who name it."""
    source: tuple[str, ...] = ()
    """Where it is from: ids of sources.yaml, oldest first."""
    date: str = ""
    """The day on which something was added last: YYYY-MM-DD."""

    @property
    def key(self) -> tuple[Version, str, str]:
        """What there is one row for."""
        return self.version, self.arch.name, self.stream

    @property
    def order(self) -> tuple[Any, int, tuple[int, str]]:
        """Rows stand by version, then by architecture as ARCHES has them, then by stream."""
        return self.version.order, ARCHES.index(self.arch), (len(self.stream), self.stream)

    @property
    def complete(self) -> bool:
        """Whether a registry has nothing more to tell."""
        return bool(self.payload and self.toolkit and self.os_image and "std" in self.kernels)

    @property
    def name(self) -> str:
        """The row in words."""
        return f"{self.version} {self.arch} ({self.stream})"

    @property
    def origin(self) -> str:
        """Where it is from and when that was, in words."""
        return "; ".join(filter(None, (", ".join(self.source), self.date)))

    @property
    def knowledge(self) -> str:
        """What is known of it, in words: `toolkit sha256:..., kernel 5.14.0-... (from ...; 2024-09-10)`."""
        facts = {**self._facts(), "withdrawn": self.withdrawn}
        known = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items() if value)
        return f"{known or 'that it exists'} (from {', '.join(self.source)}; {self.date})"

    def to_json(self) -> str:
        """Write the row as one line of JSON, which is YAML too; the same row is always the same bytes."""
        facts = {
            "version": str(self.version), "arch": self.arch.name, "stream": self.stream, "payload": self.payload,
            "toolkit": self.toolkit, "os_image": self.os_image,
            "kernels": {name: self.kernels[name].release for name in VARIANTS if name in self.kernels},
            "os_kernel": self.os_kernel.release if self.os_kernel else "", "rhcos": self.rhcos,
            "withdrawn": self.withdrawn, "source": list(self.source), "date": self.date,
        }  # fmt: skip
        return json.dumps({name: value for name, value in facts.items() if value})

    @classmethod
    def parse(cls, text: str) -> Row:
        """Parse one line. Raises InvalidError for anything that `to_json` would not write."""
        try:
            data = json.loads(text, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise InvalidError("it is not one JSON object", str(error)) from error
        if not isinstance(data, dict):
            raise InvalidError("it is not one JSON object")
        if unknown := data.keys() - cls.__dataclass_fields__.keys():
            raise InvalidError(f"unknown key `{min(unknown)}`", f"known: {', '.join(cls.__dataclass_fields__)}")
        kernels = data.get("kernels", {})
        if not isinstance(kernels, dict) or kernels.keys() - set(VARIANTS):
            raise InvalidError("`kernels` is not a mapping of variants to kernels", f"known: {', '.join(VARIANTS)}")
        source = data.get("source", [])
        if not isinstance(source, list) or not source:
            raise InvalidError("`source` is not a list of ids of sources.yaml")
        try:
            return cls(
                version=Version.parse(_text(data, "version", required=True)),
                arch=_arch(_text(data, "arch", required=True)),
                stream=_text(data, "stream", _STREAM, required=True),
                payload=_text(data, "payload", _DIGEST),
                toolkit=_text(data, "toolkit", _DIGEST),
                os_image=_text(data, "os_image", _DIGEST),
                kernels={name: Kernel.parse(_text(kernels, name, required=True)) for name in kernels},
                os_kernel=Kernel.parse(_text(data, "os_kernel", required=True)) if "os_kernel" in data else None,
                rhcos=_text(data, "rhcos", _WORD),
                withdrawn=_text(data, "withdrawn", _WORDS),
                source=tuple(_text({"source": one}, "source", _WORD, required=True) for one in source),
                date=_text(data, "date", _DAY, required=True),
            )
        except InvalidError:
            raise
        except DtkpipeError as error:
            raise InvalidError(error.what, *error.details) from error

    def merged(self, found: Row) -> Row:
        """Return this row with what `found` knows besides; itself when that is nothing.

        Raises ConflictError, naming both, where the two contradict each other. What `found` does not know never
        takes anything away.
        """
        mine, new = self._facts(), found._facts()
        for name, value in mine.items():
            if value and new.get(name) and new[name] != value:
                raise ConflictError(
                    f"{self.name}: {name} is not what the lock says",
                    f"the lock says {value} (from {self.origin})",
                    f"now it is {new[name]} (from {found.origin})",
                    hint="a release never changes: find out which of the two is wrong, and correct the lock by hand",
                )
        if not any(value for name, value in new.items() if not mine.get(name)):
            return self
        return replace(
            self,
            payload=self.payload or found.payload, toolkit=self.toolkit or found.toolkit,
            os_image=self.os_image or found.os_image, os_kernel=self.os_kernel or found.os_kernel,
            rhcos=self.rhcos or found.rhcos,
            kernels={**found.kernels, **self.kernels},
            source=tuple(dict.fromkeys((*self.source, *found.source))), date=found.date,
        )  # fmt: skip

    def _facts(self) -> dict[str, str]:
        kernels = {f"kernel {name}": kernel.release for name, kernel in self.kernels.items()}
        if self.os_kernel:
            kernels["os_kernel"] = self.os_kernel.release
        return {"payload": self.payload, "toolkit": self.toolkit, "os_image": self.os_image, "rhcos": self.rhcos,
                **kernels}  # fmt: skip


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidError("a key is given twice")
    return found


def _text(data: Mapping[str, Any], key: str, pattern: re.Pattern[str] | None = None, *, required: bool = False) -> str:
    value = data.get(key, "")
    if not isinstance(value, str) or (value == "" and (required or key in data)):
        raise InvalidError(f"`{key}` is required" if value == "" else f"`{key}` is not text")
    if value and pattern and not pattern.fullmatch(value):
        raise InvalidError(f"`{key}` is not valid: {value[:80]}", f"expected {pattern.pattern}")
    return value


def _arch(text: str) -> Arch:
    for arch in ARCHES:
        if arch.name == text:
            return arch
    raise InvalidError(f"`arch` is not valid: {text[:80]}", f"known: {', '.join(arch.name for arch in ARCHES)}")
