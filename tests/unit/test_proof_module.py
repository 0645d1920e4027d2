"""Reading kernel modules: every byte sequence gives a module or a clear error."""

import contextlib
import gzip
import lzma

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import InvalidError
from dtkpipe.proof.module import module_name, parse_module
from dtkpipe.proof.signature import MARKER, join, split
from tests.fixtures.elf import module_bytes


def test_reads_what_the_file_says() -> None:
    module = parse_module(module_bytes(), "/lib/demo-one.ko")
    assert module.name == "demo_one"
    assert module.machine == "EM_X86_64"
    assert module.vermagic == "6.1.0-56-cloud-amd64 SMP preempt mod_unload modversions"
    assert module.depends == ("first_dep", "second")
    assert module.softdeps == ("early",)
    assert module.parameters == ("answer",)
    assert module.firmware == ("demo/one.bin",)
    assert module.imports == {"_printk": 0x92997ED8, "maybe": None, "module_layout": 0x1234}
    assert module.weak == {"maybe"}
    assert module.exports == {"demo_call": 0xCAFE}
    assert module.build_id == "00112233"
    assert module.gpl


def test_reads_the_long_crc_table_of_newer_kernels() -> None:
    module = parse_module(module_bytes(long_crcs=True), "demo.ko")
    assert module.imports["_printk"] == 0x92997ED8


@pytest.mark.parametrize("pack", [lzma.compress, zstandard.ZstdCompressor().compress, gzip.compress])
def test_reads_compressed_modules(pack) -> None:
    assert parse_module(pack(module_bytes()), "demo.ko.z").name == "demo_one"


@pytest.mark.parametrize("pack", [lzma.compress, zstandard.ZstdCompressor().compress, gzip.compress])
@given(st.data())
def test_a_cut_compressed_module_is_an_error(pack, data) -> None:
    packed = pack(module_bytes())
    cut = data.draw(st.integers(8, len(packed) - 1))
    with pytest.raises(InvalidError):
        parse_module(packed[:cut], "demo.ko.z")


def test_a_signature_is_told_apart_from_the_module() -> None:
    content = module_bytes()
    module = parse_module(join(content, b"CMS"), "demo.ko")
    assert (module.content, module.signature) == (content, b"CMS")
    assert split(content).signature == b""


@given(st.binary(max_size=64))
def test_any_tail_before_the_marker_is_a_signature_or_an_error(tail: bytes) -> None:
    try:
        signed = split(tail + MARKER)
    except InvalidError:
        return
    assert signed.signature
    assert len(signed.content) + len(signed.signature) + 12 == len(tail)


@given(st.binary(max_size=512))
def test_no_bytes_are_a_traceback(data: bytes) -> None:
    for start in (b"", b"\x7fELF", b"\x7fELF\x02\x01\x01", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x1f\x8b"):
        with pytest.raises(InvalidError):
            parse_module(start + data, "x.ko")


@given(st.lists(st.tuples(st.integers(0, len(module_bytes()) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_no_changed_byte_is_a_traceback(changes: list[tuple[int, int]]) -> None:
    data = bytearray(module_bytes())
    for place, value in changes:
        data[place] = value
    with contextlib.suppress(InvalidError):
        parse_module(bytes(data), "x.ko")


@given(st.integers(0, len(module_bytes()) - 1))
def test_no_cut_is_a_traceback(length: int) -> None:
    with contextlib.suppress(InvalidError):
        parse_module(module_bytes()[:length], "x.ko")


def test_an_object_that_is_no_module_is_said() -> None:
    with pytest.raises(InvalidError, match="not a kernel module"):
        parse_module(module_bytes(this_module=False), "x.ko")


def test_names_are_spelled_as_the_kernel_spells_them() -> None:
    assert module_name("/opt/lib/modules/6.1/kmm-ci-a.ko.xz") == "kmm_ci_a"


@pytest.mark.parametrize("name", ["../../init", "two words", "line\nbreak", "x" * 60, "\x1b[2J"])
def test_a_name_that_no_module_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidError, match="not a kernel module"):
        parse_module(module_bytes(name=name), "x.ko")
