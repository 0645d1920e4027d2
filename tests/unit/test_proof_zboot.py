"""Kernels that are packed as UEFI programs are unpacked for machines without firmware."""

import gzip
import lzma
import struct
from pathlib import Path

import pytest
import zstandard

from dtkpipe.errors import UnsupportedError
from dtkpipe.tools.zboot import unpacked

IMAGE = b"the kernel inside " * 100


def packed(how: bytes, payload: bytes) -> bytes:
    return (
        struct.pack("<4s4sII8s32s", b"MZ\0\0", b"zimg", 128, len(payload), b"", how).ljust(128, b"\0")
        + payload
        + b"rest"
    )


@pytest.mark.parametrize(
    ("how", "pack"),
    [
        (b"gzip", gzip.compress),
        (b"zstd22", zstandard.compress),
        (b"lzma", lambda data: lzma.compress(data, lzma.FORMAT_ALONE)),
    ],
)
def test_what_is_packed_comes_out(tmp_path: Path, how: bytes, pack) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(packed(how, pack(IMAGE)))
    assert unpacked(kernel, tmp_path).read_bytes() == IMAGE


def test_other_kernels_stay_as_they_are(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinuz"
    for data in (b"", b"MZ", b"MZ" + bytes(1000), b"\x1f\x8b" + bytes(1000)):
        kernel.write_bytes(data)
        assert unpacked(kernel, tmp_path) == kernel


@pytest.mark.parametrize(("how", "payload"), [(b"gzip", b"no"), (b"zstd22", b"no"), (b"lzma", b"no"), (b"new", b"")])
def test_a_damaged_or_unknown_packing_is_said(tmp_path: Path, how: bytes, payload: bytes) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(packed(how, payload))
    with pytest.raises(UnsupportedError, match="cannot be unpacked"):
        unpacked(kernel, tmp_path)
