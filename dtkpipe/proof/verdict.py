"""What verify says: proven, or refused with one stable code; and the evidence for it.

The codes are a public contract: they never change their meaning. The reference page is made from CODES.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dtkpipe.errors import InvalidError

SCHEMA = "dtkpipe/verdict/v1"
PROVEN, REFUSED = "proven", "refused"
EVIDENCE_LIMIT = 2560
"""Bytes of the packed evidence: results of Tekton share about 4 KiB for each task."""
_UNPACKED_LIMIT = 1 << 20


@dataclass(frozen=True)
class Code:
    """One reason to refuse: what it means, and what to do about it."""

    name: str
    meaning: str
    fix: str


CODES: Mapping[str, Code] = {
    code.name: code
    for code in (
        Code(
            "vermagic-mismatch",
            "A module was compiled for another kernel than the target.",
            "build against the target's headers: use KERNEL_FULL_VERSION (or KVER), never `uname -r`",
        ),
        Code(
            "module-missing",
            "A module that the spec lists is not in the image, or no module is.",
            "compare `modules` in dtkpipe.yaml with what the build installs into /opt/lib/modules/<kernel>",
        ),
        Code(
            "module-unexpected",
            "The image holds a module that the spec does not list, the same module twice, or a file that is no module.",
            "list the module in dtkpipe.yaml, or do not copy it into the image",
        ),
        Code(
            "wrong-architecture",
            "A module was compiled for another processor architecture than the target.",
            "cross-compile with ARCH and CROSS_COMPILE for the target, or use the toolkit of that architecture",
        ),
        Code(
            "symbol-missing",
            "A module needs a symbol that neither the kernel nor another module of the image gives to it.",
            "the kernel's interface changed, an option is off in it, a module is missing, or the licence forbids it",
        ),
        Code(
            "symbol-crc-mismatch",
            "A module was compiled against another version of a symbol than the target kernel has.",
            "build against the Module.symvers of the target kernel, and of the other modules of the image",
        ),
        Code(
            "unsigned",
            "Signing is on, and a module carries no signature.",
            "sign after the last step that writes modules: strip before it, compress after it",
        ),
        Code(
            "wrong-signer",
            "A module's signature is not the expected signer's, is broken, or is there although signing is off.",
            "sign with the key of the given certificate; without signing, leave the modules unsigned",
        ),
        Code(
            "boot-failed",
            "The target kernel did not boot in the virtual machine, so nothing could be tried.",
            "read console.log; if the machine was just slow, raise --time-limit",
        ),
        Code(
            "load-failed",
            "The kernel refused to load a module, or a module's own init function returned an error.",
            "read the kernel's words in the evidence; does the module need hardware that a virtual machine lacks?",
        ),
        Code(
            "load-timeout",
            "Loading a module did not end within the time limit.",
            "the init function waits for something, or loops; if the machine was just slow, raise --time-limit",
        ),
        Code(
            "kernel-panic",
            "The kernel panicked.",
            "read the panic in the evidence and console.log",
        ),
        Code(
            "kernel-log",
            "The kernel logged an oops, BUG, WARNING or another sign of a defect, or so much that it cannot be judged.",
            "read the lines in the evidence",
        ),
        Code(
            "identity-mismatch",
            "What the kernel says it has loaded is not the file that was built.",
            "does something load another module of the same name?",
        ),
        Code(
            "check-failed",
            "A check command of the module's spec failed, or did not end in its time.",
            "read its output in the evidence",
        ),
        Code(
            "unload-failed",
            "A module did not unload, or not within the time limit.",
            "give the module an exit function that frees everything, or say `unload: never` in dtkpipe.yaml",
        ),
        Code(
            "unsigned-accepted",
            "Under enforcement the kernel took a module that nobody, or a stranger, had signed.",
            "the target kernel does not enforce module signatures: check its configuration",
        ),
    )
}

PROOFS = ("vermagic", "files", "symbols", "signatures", "boot")
"""The proofs, in their order."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a proof failed: a code of CODES, the reason in one line, and the facts."""

    code: str
    reason: str
    details: tuple[str, ...] = ()

    def plain(self) -> Refusal:
        """Return the same without control characters: the words may be a hostile module's, and go to a terminal."""
        return replace(self, reason=plain(self.reason), details=tuple(plain(line) for line in self.details))


def plain(text: str) -> str:
    """Write control characters as what they are, so that a terminal does not obey them."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


@dataclass(frozen=True, kw_only=True)
class Proof:
    """One proof that was run. `seconds` it took; `facts` are what it found, plain JSON values."""

    name: str
    seconds: float
    summary: str
    """What it found, in one line."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The proofs that were run, of which at most the last has failed."""

    image: str
    kernel: str
    arch: str
    proofs: tuple[Proof, ...]

    @property
    def refusal(self) -> Refusal | None:
        """Why the image was refused; None when it is proven."""
        return next((proof.refusal for proof in self.proofs if proof.refusal), None)

    @property
    def code(self) -> str:
        """The code of the refusal, or an empty string."""
        return self.refusal.code if self.refusal else ""

    @property
    def text(self) -> str:
        """`proven`, or `refused: <code>`."""
        return f"{REFUSED}: {self.code}" if self.refusal else PROVEN

    def document(self) -> dict[str, Any]:
        """Return the whole verdict as a JSON object, schema dtkpipe/verdict/v1."""
        refusal = self.refusal
        return {
            "schema": SCHEMA,
            "verdict": REFUSED if refusal else PROVEN,
            "code": self.code,
            "reason": refusal.reason if refusal else "",
            "details": list(refusal.details) if refusal else [],
            "fix": CODES[refusal.code].fix if refusal else "",
            "image": self.image,
            "kernel": self.kernel,
            "arch": self.arch,
            "proofs": [
                {
                    "name": proof.name,
                    "result": "failed" if proof.refusal else "passed",
                    "seconds": round(proof.seconds, 2),
                    "summary": proof.summary,
                    "facts": dict(proof.facts),
                }
                for proof in self.proofs
            ],
        }


def pack_evidence(document: Mapping[str, Any]) -> str:
    """Write a verdict's document as short text: JSON, deflated, base64; at most EVIDENCE_LIMIT bytes.

    What does not fit is shortened, largest first, and the document says `"shortened": true`.
    """
    shortened: Any = document
    for longest, most in ((2000, 200), (400, 40), (160, 12), (80, 6), (40, 3), (24, 1)):
        text = json.dumps(shortened, ensure_ascii=False, separators=(",", ":"))
        packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
        if len(packed) <= EVIDENCE_LIMIT:
            return packed
        shortened = {**_shorten(document, longest, most), "shortened": True}
    bare = {key: document.get(key, "") for key in ("schema", "verdict", "code", "image", "kernel", "arch")}
    return base64.b64encode(zlib.compress(json.dumps({**bare, "shortened": True}).encode(), 9)).decode()


def _shorten(value: Any, longest: int, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else value[: longest - 1] + "…"
    if isinstance(value, Mapping):
        return {key: _shorten(item, longest, most) for key, item in list(value.items())[: max(most, 12)]}
    if isinstance(value, Sequence):
        return [_shorten(item, longest, most) for item in value[: max(most, len(PROOFS))]]
    return value


def unpack_evidence(text: str) -> dict[str, Any]:
    """Read what pack_evidence() wrote. Raises InvalidError."""
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(text, validate=True), _UNPACKED_LIMIT)
        document = json.loads(data)
        if not inflate.eof or document.get("schema") != SCHEMA:
            raise InvalidError("the evidence is not of a schema we know", f"expected {SCHEMA}")
    except (binascii.Error, zlib.error, ValueError, AttributeError) as error:
        raise InvalidError("the evidence cannot be read", str(error)) from error
    return dict(document)
