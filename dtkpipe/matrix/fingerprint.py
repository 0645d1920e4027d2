"""What failures have in common: the first error, without what differs from kernel to kernel and module to module."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dtkpipe.errors import InvalidError, RunFailedError, RunUnknownError, how_ended

COMPILE, SYMBOL, VERDICT, TIMEOUT, OTHER, INFRASTRUCTURE = KINDS = (
    "compile", "symbol", "verdict", "timeout", "other", "infrastructure",
)  # fmt: skip
"""Kinds of causes. What is infrastructure says nothing about the cell: it is not recorded, and tried again."""
_LENGTH = 160

_REFUSED = re.compile(r"refused: (?P<code>[a-z-]+)(?:: (?P<reason>.*))?")
_COMPILER = re.compile(r"^[^\s:][^:]*:\d+(?::\d+)?: (?:fatal )?[Ee]rror: (?P<text>.*)$")
_UNDEFINED = re.compile(r"\"?(?P<name>[A-Za-z_]\w*)\"? \[[^\]]*\] undefined!")
_MACHINE = re.compile(
    r"No space left on device|Cannot allocate memory|[Oo]ut of memory|Read-only file system|Input/output error"
)
_NOISE = (
    (re.compile(r"[‘’“”`\"]"), "'"),
    (re.compile(r"\s*\[-W[^\]]*\]"), ""),
    (re.compile(r"; did you mean '[^']*'\?"), ""),  # what is near by differs from kernel to kernel
    (re.compile(r"^\[\s*\d+\.\d+\]\s*"), ""),
    (re.compile(r"sha256:[0-9a-f]+"), "DIGEST"),
    (re.compile(r"\b\d+\.\d+\.\d+[-+][\w.+~-]*\w"), "KERNEL"),
    (re.compile(r"\b(?:0x)?(?=[a-f]*\d)[0-9a-f]{8,}\b"), "HEX"),
    (re.compile(r"(?:/[\w.+@-]+)+/(?=[\w.+-])"), ""),
    (re.compile(r"(?<=[\w]\.[chS]):\d+(?::\d+)?"), ""),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Fingerprint:
    """A cause: its kind, and its words without what differs. Equal ones are one cause."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that stand for it."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:8]


def fingerprint(exit_code: int, lines: Sequence[str], names: Collection[str] = ()) -> Fingerprint:
    """Return the cause of a failure.

    `exit_code` and `lines` are of the step that failed: its error, and what it said about it. `names` are the module's
    own: where the words hold one, they mean the same for another module.
    """
    first = next((line.strip() for line in lines if line.strip()), how_ended(exit_code))
    # What the kernel said to a module is no word about the machine that it was tried on.
    refused = _REFUSED.match(first) if exit_code == RunFailedError.exit_code else None
    if machine := next((line for line in lines if _MACHINE.search(line)), "") if not refused else "":
        return Fingerprint(INFRASTRUCTURE, normal(machine, names))
    if exit_code == RunUnknownError.exit_code:
        return Fingerprint(TIMEOUT, normal(first, names))
    if exit_code not in (RunFailedError.exit_code, InvalidError.exit_code):
        return Fingerprint(INFRASTRUCTURE, normal(first, names))
    if refused:
        reason = normal(refused["reason"] or "", names)
        # A kernel that does not boot has not met the module yet.
        kind = INFRASTRUCTURE if refused["code"] == "boot-failed" else VERDICT
        return Fingerprint(kind, f"{refused['code']}: {reason}" if reason else refused["code"])
    for line in lines:
        if found := _COMPILER.match(line.strip()):
            return Fingerprint(COMPILE, normal(found["text"], names))
        if found := _UNDEFINED.search(line):
            return Fingerprint(SYMBOL, f"{found['name']} is undefined")
    # The first line says what failed; the second is the first of what was found out about it.
    told = [line.strip() for line in lines[1:] if line.strip() and not line.strip().startswith(("log:", "whole log:"))]
    return Fingerprint(OTHER, normal(told[0] if told and "cannot be built" in first else first, names))


def normal(text: str, names: Collection[str] = ()) -> str:
    """Return a line without paths, places in files, kernels, digests, addresses and the module's own names."""
    for name in sorted({spelt for one in names for spelt in (one, one.replace("-", "_"))}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "MODULE", text)
    for pattern, instead in _NOISE:
        text = pattern.sub(instead, text)
    return text.strip()[:_LENGTH]
