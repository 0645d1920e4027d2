"""UEFI firmware for virtual machines, with Secure Boot on and one signer's certificate enrolled."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import UnsupportedError
from dtkpipe.tools.process import run
from dtkpipe.tools.qemu import Firmware
from dtkpipe.tools.x509 import Certificate
from dtkpipe.values.arch import AARCH64, X86_64, Arch

_OWNER = "d1b4a4f6-7f1e-4f0b-9b0b-6f6d7a8c2c11"
"""Any GUID: UEFI wants one as the owner of each entry, and nobody looks at it."""
_OTHERS = ("PK", "KEK", "db", "dbx", "Timeout")
"""What a store may hold of others: keys, and a time to wait for somebody at the keyboard."""
_FORMAT = "2"
"""To be changed when the same inputs shall give other variables."""


@dataclass(frozen=True)
class Build:
    """One build of the firmware as distributions install it: program, and a store of variables to begin with."""

    arch: Arch
    code: str
    variables: str
    smm: bool


BUILDS = (
    # Debian, Ubuntu: package ovmf
    Build(X86_64, "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", True),
    Build(X86_64, "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", False),
    # Red Hat, Fedora: package edk2-ovmf
    Build(X86_64, "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd", True),
    # Debian, Ubuntu: package qemu-efi-aarch64. Its empty store is all zeros, which only the firmware can make use of.
    Build(AARCH64, "/usr/share/AAVMF/AAVMF_CODE.secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.ms.fd", False),
    Build(AARCH64, "/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.ms.fd", False),
)
PACKAGES = {X86_64: "ovmf", AARCH64: "qemu-efi-aarch64"}


def build_for(arch: Arch) -> Build | None:
    """Return the firmware that is installed for `arch`; None when there is none."""
    return next((one for one in BUILDS if one.arch == arch and Path(one.code).is_file()), None)


def firmware(arch: Arch, certificate: Certificate, kernel: Path, cache: Path, work: Path) -> Firmware:
    """Return firmware with Secure Boot on and `certificate` in db. Its variables are a copy in `work`.

    `kernel` is enrolled by its hash: it is the one program that the firmware has to start.
    Raises UnsupportedError where no firmware is installed.
    """
    build = build_for(arch)
    if build is None:
        places = [f"looked at: {one.code}" for one in BUILDS if one.arch == arch]
        raise UnsupportedError(
            f"there is no UEFI firmware for {arch} on this machine, and Secure Boot needs it", *places,
            hint=f"apt-get install {PACKAGES[arch]}" if arch in PACKAGES else "",
        )  # fmt: skip
    variables = work / "variables.fd"
    shutil.copyfile(_enrolled(build, certificate, kernel, cache), variables)
    return Firmware(code=Path(build.code), variables=variables, smm=build.smm)


def _enrolled(build: Build, certificate: Certificate, kernel: Path, cache: Path) -> Path:
    """Return variables with the certificate enrolled, from the cache if they were made before."""
    parts = [certificate.fingerprint, _sha256(kernel), _sha256(Path(build.variables)), _FORMAT]
    place = cache / "secureboot" / f"{build.arch}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()}.fd"
    if place.is_file() and place.stat().st_size == Path(build.variables).stat().st_size:
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".new-") as new:
        pem, made = Path(new) / "certificate.pem", Path(new) / "variables.fd"
        pem.write_text(certificate.pem)
        run(
            [
                sys.executable, "-m", "virt.firmware.vars", "--input", build.variables, "--output", made,
                *(word for name in _OTHERS for word in ("--delete", name)),
                "--set-pk", _OWNER, pem, "--add-kek", _OWNER, pem, "--add-db", _OWNER, pem,
                "--add-db-hash", _OWNER, authenticode(kernel), "--no-microsoft", "--sb",
            ]
        )  # fmt: skip
        made.rename(place)
    return place


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def authenticode(program: Path) -> str:
    """Return the hash by which UEFI knows a program (SHA-256 of a PE file without its signatures).

    Raises UnsupportedError for what is no UEFI program.
    """
    import pefile
    from virt.peutils.pesign import pe_authenticode_hash

    try:
        return str(pe_authenticode_hash(pefile.PE(str(program), fast_load=True)).hex())
    except pefile.PEFormatError as error:
        raise UnsupportedError(
            "the target kernel is no UEFI program, so it cannot boot under Secure Boot", str(program), str(error)
        ) from error
