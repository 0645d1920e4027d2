"""Kernels packed as UEFI programs (CONFIG_EFI_ZBOOT, on aarch64): older QEMUs boot only what is inside.

Layout: Linux, drivers/firmware/efi/libstub/zboot-header.S.
"""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from pathlib import Path

from dtkpipe.errors import UnsupportedError

_HEADER = struct.Struct("<4s4sII8s32s")


def unpacked(kernel: Path, work: Path) -> Path:
    """Return a kernel that QEMU can boot without firmware: the same file, or what was packed in it, in `work`.

    Raises UnsupportedError for a packing that is unknown or damaged.
    """
    data = kernel.read_bytes()
    if len(data) < _HEADER.size:
        return kernel
    dos, magic, offset, size, _, kind = _HEADER.unpack_from(data)
    if not dos.startswith(b"MZ") or magic != b"zimg":
        return kernel
    payload, how = data[offset : offset + size], kind.split(b"\0", 1)[0].decode(errors="replace")
    try:
        image = _inflate(payload, how)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise UnsupportedError("the kernel image cannot be unpacked", str(kernel), f"{how}: {error}") from error
    path = work / "Image"
    path.write_bytes(image)
    return path


def _inflate(payload: bytes, how: str) -> bytes:
    match how:
        case "gzip":
            return gzip.decompress(payload)
        case "lzma" | "xzkern" | "xz":
            return lzma.decompress(payload)
        case "zstd22" | "zstd":
            import zstandard

            try:
                with zstandard.ZstdDecompressor().stream_reader(payload) as reader:
                    return bytes(reader.read())
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from error
    raise ValueError("this packing is not known")
