"""The signature at the end of a kernel module: told apart from the module, never judged here.

Layout: Linux, scripts/sign-file.c and include/linux/module_signature.h. The module's bytes come first, then the
signature (CMS, detached, DER), then 12 bytes that hold its kind and length, then a marker.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dtkpipe.errors import InvalidError

MARKER = b"~Module signature appended~\n"
_INFO = struct.Struct(">BBBBB3xI")  # algorithm, hash, kind, signer length, key id length, signature length
_PKCS7 = 2


@dataclass(frozen=True)
class Signed:
    """A module cut in two. `signature` is empty when nobody signed the module."""

    content: bytes
    signature: bytes


def split(data: bytes) -> Signed:
    """Cut an uncompressed module into content and signature. Raises InvalidError when the marker lies."""
    if not data.endswith(MARKER):
        return Signed(data, b"")
    body = data[: -len(MARKER)]
    if len(body) < _INFO.size:
        raise InvalidError("the module's signature is cut off")
    _, _, kind, _, _, length = _INFO.unpack(body[-_INFO.size :])
    if kind != _PKCS7:
        raise InvalidError(
            "the module's signature is of a kind that kernels do not take", f"id_type {kind}, not PKCS#7"
        )
    end = len(body) - _INFO.size
    if not 0 < length <= end:
        raise InvalidError("the module's signature is cut off", f"{length} bytes promised, {end} there")
    return Signed(body[: end - length], body[end - length : end])


def join(content: bytes, signature: bytes) -> bytes:
    """Append a CMS signature to an unsigned module, as the kernel expects it."""
    return content + signature + _INFO.pack(0, 0, _PKCS7, 0, 0, len(signature)) + MARKER
