"""Kernel module files: what a .ko says about itself, read once and safely.

The file is hostile until proven otherwise: whatever its bytes are, reading it gives a KernelModule or InvalidError.
"""

from __future__ import annotations

import lzma
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from dtkpipe.errors import InvalidError
from dtkpipe.proof.signature import split

MAX_SIZE = 512 << 20
"""Bytes of an uncompressed module that are still read. The largest known drivers are below 200 MB with debug data."""

_MAGICS = {b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst", b"\x1f\x8b": "gz"}
_ELF = b"\x7fELF"
_SHN_UNDEF, _SHN_ABS, _SHN_LORESERVE = 0, 0xFFF1, 0xFF00
_STB_LOCAL, _STB_WEAK = 0, 2
_NOT_SYMBOLS = frozenset({"_GLOBAL_OFFSET_TABLE_"})  # the kernel's loader ignores it: ignore_undef_symbol()
_VERSION = struct.Struct("<Q56s")
_NOTE = struct.Struct("<III")
_NT_GNU_BUILD_ID = 3
_NAME = re.compile(r"[A-Za-z0-9_.]{1,55}")  # MODULE_NAME_LEN of 64-bit kernels


@dataclass(frozen=True, kw_only=True)
class KernelModule:
    """One kernel module. Names of modules and symbols are spelled as the kernel spells them."""

    file: str
    """Path or name the caller knows it by."""
    name: str
    machine: str
    """ELF machine: EM_X86_64, EM_AARCH64, ..."""
    vermagic: str = ""
    srcversion: str = ""
    build_id: str = ""
    """Hexadecimal digits; empty when the linker left none."""
    version: str = ""
    license: str = ""
    depends: tuple[str, ...] = ()
    softdeps: tuple[str, ...] = ()
    """Modules to load before this one, if they exist (softdep: pre)."""
    parameters: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    """Symbol namespaces that it imports."""
    imports: Mapping[str, int | None]
    """Symbols it needs, with the CRC it was built against; None where it holds no CRC."""
    weak: frozenset[str] = frozenset()
    """Those of the imports that may be missing."""
    exports: Mapping[str, int | None]
    """Symbols it gives to other modules, with their CRCs."""
    content: bytes = b""
    """The uncompressed module without its signature: what a signer signs."""
    signature: bytes = b""
    """The CMS signature (DER) appended to it; empty when nobody signed it."""

    @property
    def gpl(self) -> bool:
        """Tell whether the kernel lets it use symbols that are for GPL modules only (license_is_gpl_compatible())."""
        return self.license in _GPL


_GPL = frozenset({"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"})


def module_name(file: str) -> str:
    """Return the module's name for a file name: `kmm-ci-a.ko.xz` is `kmm_ci_a`."""
    return Path(file).name.split(".ko", 1)[0].replace("-", "_")


def is_module_file(path: str) -> bool:
    """Tell whether `path` is named like a kernel module: .ko, .ko.xz, .ko.zst, .ko.gz."""
    return path.endswith((".ko", ".ko.xz", ".ko.zst", ".ko.gz"))


def read_module(path: Path, file: str = "") -> KernelModule:
    """Read a module from disk. `file` is the name to know it by; default: the path. Raises InvalidError."""
    return parse_module(path.read_bytes(), file or str(path))


def parse_module(data: bytes, file: str) -> KernelModule:
    """Read a module from its bytes, compressed or not. Raises InvalidError for what is no module."""
    data = decompress(data, file)
    signed = split(data)
    if not signed.content.startswith(_ELF):
        raise InvalidError(f"{file} is not a kernel module", "it is not an ELF file")
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError

    try:
        return _parse(signed.content, signed.signature, file)
    except InvalidError:
        raise
    # pyelftools trusts the numbers in the file; these are what broken ones make it raise.
    except (
        ELFError, ConstructError, struct.error, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
        AssertionError, OSError, MemoryError, RecursionError,
    ) as error:  # fmt: skip
        raise InvalidError(f"{file} is a broken ELF file", f"{type(error).__name__}: {error}"[:200]) from error


def decompress(data: bytes, file: str) -> bytes:
    """Return a module's uncompressed bytes, signature included. Raises InvalidError, also for more than MAX_SIZE."""
    kind = next((name for magic, name in _MAGICS.items() if data.startswith(magic)), "")
    try:
        match kind:
            case "xz":
                unxz = lzma.LZMADecompressor(memlimit=1 << 30)
                plain, whole = unxz.decompress(data, MAX_SIZE + 1), unxz.eof
            case "gz":
                gunzip = zlib.decompressobj(wbits=31)
                plain, whole = gunzip.decompress(data, MAX_SIZE + 1), gunzip.eof
            case "zst":
                plain, whole = _unzstd(data)
            case _:
                plain, whole = data, True
    except (lzma.LZMAError, zlib.error, ValueError, EOFError, MemoryError) as error:
        raise InvalidError(f"{file} cannot be decompressed", f"{kind}: {error}") from error
    if len(plain) > MAX_SIZE:
        raise InvalidError(f"{file} is too large", f"more than {MAX_SIZE >> 20} MiB uncompressed")
    if not whole:
        raise InvalidError(f"{file} cannot be decompressed", f"{kind}: the file is cut off")
    return plain


def _unzstd(data: bytes) -> tuple[bytes, bool]:
    import zstandard

    try:
        size = zstandard.frame_content_size(data)  # -1 when the file does not say
        with zstandard.ZstdDecompressor(max_window_size=1 << 28).stream_reader(data) as reader:
            plain = reader.read(MAX_SIZE + 1)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    return plain, size in (-1, len(plain)) or len(plain) > MAX_SIZE


@dataclass(frozen=True)
class _Symbol:
    name: str
    binding: int
    section: int
    value: int


def _parse(content: bytes, signature: bytes, file: str) -> KernelModule:
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(BytesIO(content))
    if elf.header["e_type"] != "ET_REL":
        raise InvalidError(f"{file} is not a kernel module", f"it is an ELF file of type {elf.header['e_type']}")
    sections = {section.name: section for section in elf.iter_sections()}
    info = list(_modinfo(_bytes(sections.get(".modinfo"))))
    facts = dict(info)
    # Of architectures that we do not build for, it is enough to know which one it is.
    symbols = list(_symbols(elf)) if elf.elfclass == 64 and elf.little_endian else []
    crcs = _crc_table(sections)
    wanted = [one for one in symbols if one.section == _SHN_UNDEF and one.binding != _STB_LOCAL]
    wanted = [one for one in wanted if one.name and one.name not in _NOT_SYMBOLS]
    if "name" not in facts and ".gnu.linkonce.this_module" not in sections:
        raise InvalidError(f"{file} is not a kernel module", "it is an object file without .gnu.linkonce.this_module")
    name = (facts.get("name") or module_name(file)).replace("-", "_")
    if not _NAME.fullmatch(name):
        raise InvalidError(f"{file} is not a kernel module", f"it calls itself {name[:80]!a}")
    return KernelModule(
        file=file,
        name=name,
        machine=str(elf.header["e_machine"]),
        vermagic=facts.get("vermagic", "").strip(),
        srcversion=facts.get("srcversion", ""),
        build_id=build_id(_bytes(sections.get(".note.gnu.build-id"))),
        version=facts.get("version", ""),
        license=facts.get("license", ""),
        depends=tuple(one.replace("-", "_") for one in facts.get("depends", "").split(",") if one),
        softdeps=tuple(_softdeps(info)),
        parameters=tuple(value.split(":", 1)[0] for key, value in info if key == "parmtype"),
        firmware=tuple(value for key, value in info if key == "firmware"),
        namespaces=tuple(value for key, value in info if key == "import_ns"),
        imports={one.name: crcs.get(one.name) for one in wanted}
        | {name: crc for name, crc in crcs.items() if name == "module_layout"},
        weak=frozenset(one.name for one in wanted if one.binding == _STB_WEAK),
        exports=_exports(elf, symbols),
        content=content,
        signature=signature,
    )


def _bytes(section: Any) -> bytes:
    if section is None or section["sh_type"] == "SHT_NOBITS":
        return b""
    return bytes(section.data())


def _modinfo(data: bytes) -> Iterator[tuple[str, str]]:
    for entry in data.split(b"\0"):
        key, equals, value = entry.partition(b"=")
        if equals:
            yield key.decode(errors="replace"), value.decode(errors="replace")


def _softdeps(info: list[tuple[str, str]]) -> Iterator[str]:
    # "pre: a b post: c"; the words before a keyword are nothing.
    for key, value in info:
        when = ""
        for word in value.split() if key == "softdep" else ():
            if word in ("pre:", "post:"):
                when = word
            elif when == "pre:":
                yield word.replace("-", "_")


def _symbols(elf: Any) -> Iterator[_Symbol]:
    table = elf.get_section_by_name(".symtab")
    if table is None:
        return
    data, names = _bytes(table), _bytes(elf.get_section(table["sh_link"]))
    for name, info, _, section, value, _ in struct.iter_unpack("<IBBHQQ", data[: len(data) // 24 * 24]):
        end = names.find(b"\0", name)
        yield _Symbol(names[name : max(end, name)].decode(errors="replace"), info >> 4, section, value)


def _crc_table(sections: Mapping[str, Any]) -> dict[str, int]:
    """Read the CRCs of the symbols that the module was built against: the old table, and the one of Linux 6.14."""
    old = _bytes(sections.get("__versions"))
    table = {
        name.split(b"\0", 1)[0].decode(errors="replace"): crc & 0xFFFFFFFF
        for crc, name in _VERSION.iter_unpack(old[: len(old) // _VERSION.size * _VERSION.size])
    }
    crcs = _bytes(sections.get("__version_ext_crcs"))
    names = _bytes(sections.get("__version_ext_names")).split(b"\0")
    long = zip(struct.iter_unpack("<I", crcs[: len(crcs) // 4 * 4]), names, strict=False)
    return table | {name.decode(errors="replace"): crc for (crc,), name in long if name}


def _exports(elf: Any, symbols: list[_Symbol]) -> dict[str, int | None]:
    exports: dict[str, int | None] = {
        one.name.removeprefix("__ksymtab_"): None for one in symbols if one.name.startswith("__ksymtab_")
    }
    cache: dict[int, bytes] = {}
    for one in symbols:
        name = one.name.removeprefix("__crc_")
        if name == one.name or name not in exports:
            continue
        if one.section == _SHN_ABS:
            exports[name] = one.value & 0xFFFFFFFF
        elif _SHN_UNDEF < one.section < _SHN_LORESERVE:
            # The CRC lies in a section (__kcrctab, or .rodata where CRCs are relative), at the symbol's place.
            data = cache.get(one.section)
            if data is None:
                data = cache[one.section] = _bytes(elf.get_section(one.section))
            if one.value + 4 <= len(data):
                exports[name] = int.from_bytes(data[one.value : one.value + 4], "little")
    return exports


def build_id(note: bytes) -> str:
    """Return the build id that a note section .note.gnu.build-id holds, in hexadecimal digits, or an empty string."""
    if len(note) < _NOTE.size:
        return ""
    name_size, size, kind = _NOTE.unpack_from(note)
    start = _NOTE.size + (name_size + 3 & ~3)
    return note[start : start + size].hex() if kind == _NT_GNU_BUILD_ID and size <= 64 else ""
