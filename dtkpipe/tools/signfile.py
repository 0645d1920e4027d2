"""The kernel's own sign-file: appends a signature to a module. Linux, scripts/sign-file.c.

The key is handed over in memory (memfd): it is in no file system, in no argv, in no environment, and gone with us.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dtkpipe.errors import InvalidError, RunFailedError, UnsupportedError
from dtkpipe.tools.process import Finished, run
from dtkpipe.tools.x509 import Certificate, PrivateKey

HASHES = ("sha224", "sha256", "sha384", "sha512")
"""Digest algorithms that kernels are configured for (CONFIG_MODULE_SIG_HASH)."""
_SECONDS = 60.0
_ELF_HEADER = 20
"""Bytes up to e_machine; class and byte order are at 4 and 5."""


def check_hash(name: str) -> None:
    """Raise InvalidError for a name that is no digest algorithm for module signatures."""
    if name not in HASHES:
        raise InvalidError(f"`{name}` is no digest algorithm for module signatures", f"known: {', '.join(HASHES)}")


@contextmanager
def _in_memory(key: PrivateKey) -> Iterator[str]:
    """Give a path at which a child of ours can read the key while the block runs."""
    descriptor = os.memfd_create("signing-key")
    try:
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(key.pem)
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def sign(sign_file: Path, hash_name: str, key: PrivateKey, certificate: Certificate, module: Path, work: Path) -> None:
    """Sign an uncompressed module, which must not be signed yet, in place. `work` is a folder for the certificate.

    Raises InvalidError for a digest algorithm that is none, UnsupportedError where sign-file cannot run on this
    machine, RunFailedError when it refuses.
    """
    check_hash(hash_name)
    if not _runs_here(sign_file):
        raise UnsupportedError("the kernel's sign-file is a program for another machine than this", str(sign_file))
    public = work / f"{certificate.fingerprint}.der"
    public.write_bytes(certificate.der)
    with _in_memory(key) as path:
        done = run([sign_file, hash_name, path, public, module], timeout=_SECONDS, ok=None)
    if done.returncode:
        raise _refusal(done, sign_file)


def _runs_here(program: Path) -> bool:
    """Tell whether a program is for this machine; execvp would hand one that is not to the shell, as a script."""
    with program.open("rb") as file, Path("/proc/self/exe").open("rb") as ours:
        head, own = file.read(_ELF_HEADER), ours.read(_ELF_HEADER)
    return not head.startswith(b"\x7fELF") or (head[4:6], head[18:20]) == (own[4:6], own[18:20])


def _refusal(done: Finished, sign_file: Path) -> Exception:
    said = [line.strip()[:200] for line in done.errors.splitlines() if line.strip()][:5]
    if any(words in done.errors for words in ("shared librar", "Exec format error", "cannot execute", "GLIBC_")):
        return UnsupportedError(
            "the kernel's sign-file does not run on this machine", str(sign_file), *said,
            hint="run the sign step in the runner image, or install the libraries that it names",
        )  # fmt: skip
    return RunFailedError(f"sign-file failed with exit code {done.returncode}", *said)
