"""openssl(1): checks module signatures by another code than the one that makes them, and makes throw-away keys."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from dtkpipe.tools.process import run
from dtkpipe.tools.x509 import Certificate, PrivateKey

_SECONDS = 60.0


def signed_by(content: bytes, signature: bytes, certificate: Certificate, work: Path) -> bool:
    """Tell whether `signature` (CMS, detached, DER) is the certificate holder's over `content`.

    As in the kernel, neither the certificate's dates nor its issuer count. `work` is a folder for the files.
    """
    files = {"content": content, "signature.der": signature, "certificate.pem": certificate.pem.encode()}
    for name, data in files.items():
        (work / name).write_bytes(data)
    done = run(
        [
            "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", work / "signature.der",
            "-content", work / "content", "-certfile", work / "certificate.pem", "-nointern", "-noverify",
            "-out", work / "verified",
        ],
        timeout=_SECONDS,
        ok=None,
    )  # fmt: skip
    for name in (*files, "verified"):
        (work / name).unlink(missing_ok=True)
    return done.returncode == 0


def throw_away_key(common_name: str, work: Path) -> tuple[PrivateKey, Certificate]:
    """Make a key and a certificate that nobody trusts; nothing of them stays on disk."""
    key, certificate = work / "throw-away.key", work / "throw-away.pem"
    run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
            "-days", "2", "-subj", f"/CN={common_name}", "-addext", "basicConstraints=critical,CA:FALSE",
            "-addext", "keyUsage=digitalSignature",
        ],
        timeout=_SECONDS,
    )  # fmt: skip
    made = PrivateKey.parse(key.read_bytes()), Certificate.parse(certificate.read_bytes())
    key.unlink()
    certificate.unlink()
    return made


def throw_away_signature(content: bytes, key: PrivateKey, certificate: Certificate, work: Path) -> bytes:
    """Return the signature (CMS, detached, DER) over `content` by a throw-away key, in the form that sign-file writes.

    Not for keys that are worth anything: this one lies in `work` for a moment.
    """
    files = {"content": content, "stranger.key": key.pem, "stranger.pem": certificate.pem.encode()}
    for name, data in files.items():
        (work / name).write_bytes(data)
    run(
        [
            "openssl", "cms", "-sign", "-binary", "-noattr", "-nocerts", "-md", "sha256", "-outform", "DER",
            "-in", work / "content", "-inkey", work / "stranger.key", "-signer", work / "stranger.pem",
            "-out", work / "stranger.cms",
        ],
        timeout=_SECONDS,
    )  # fmt: skip
    signature = (work / "stranger.cms").read_bytes()
    for name in (*files, "stranger.cms"):
        (work / name).unlink(missing_ok=True)
    return signature


def signer_of(signature: bytes) -> str:
    """Return whom a CMS signature (DER) names as its signer: the issuer of the certificate; "" where it names none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "signature.der")
        file.write_bytes(signature)
        done = run(["openssl", "cms", "-cmsout", "-print", "-inform", "DER", "-in", file], timeout=_SECONDS, ok=None)
    found = re.search(r"^\s+issuer: (.+)$", done.output, re.MULTILINE)
    return found[1].strip() if found and not done.returncode else ""
