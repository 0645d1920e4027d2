"""Certificates and private keys for module signatures: parsed once, judged before anything is done with them.

The kernel takes X.509 certificates with RSA or EC keys (Linux, Documentation/admin-guide/module-signing.rst), and
looks at neither their dates nor who issued them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dtkpipe.errors import InvalidError

_PEM = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """One certificate. Times are in UTC."""

    der: bytes = field(repr=False)
    common_name: str
    """Of the subject; the whole subject (RFC 4514) where it has none."""
    not_before: datetime
    not_after: datetime
    is_ca: bool
    public_key: bytes = field(repr=False)
    """SubjectPublicKeyInfo, DER."""

    @classmethod
    def parse(cls, data: bytes) -> Certificate:
        """Parse DER or PEM. Raises InvalidError, also for a key that is neither RSA nor EC."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        if b"PRIVATE KEY-----" in data:
            raise InvalidError("the certificate is not a certificate", "it holds a private key: never pass one on here")
        try:
            found = x509.load_pem_x509_certificate(data) if _PEM in data else x509.load_der_x509_certificate(data)
            key = found.public_key()
            names = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            common_name = str(names[0].value) if names else found.subject.rfc4514_string()
            constraints = [one for one in found.extensions if isinstance(one.value, x509.BasicConstraints)]
        except Exception as error:
            raise InvalidError("the certificate cannot be read", "expected X.509, DER or PEM") from error
        if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey):
            raise InvalidError(
                f"the kernel cannot check signatures by the certificate `{common_name}`",
                f"its key is neither RSA nor EC: {type(key).__name__}",
            )
        return cls(
            der=found.public_bytes(Encoding.DER),
            common_name="".join(char if char.isprintable() else "?" for char in common_name),
            not_before=found.not_valid_before_utc,
            not_after=found.not_valid_after_utc,
            is_ca=any(one.value.ca for one in constraints if isinstance(one.value, x509.BasicConstraints)),
            public_key=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        )

    @classmethod
    def from_base64(cls, text: str) -> Certificate:
        """Parse what pipelines pass on: DER in base64. Raises InvalidError."""
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidError(
                "the certificate is not base64", hint="base64 -w0 certificate.der, or --sign-cert with submit"
            ) from error
        return cls.parse(data)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, in hexadecimal digits."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def signer(self) -> str:
        """How results and run cards name the signer: common name and fingerprint."""
        return f"{self.common_name} (sha256:{self.fingerprint})"

    @property
    def pem(self) -> str:
        """The certificate as PEM."""
        body = base64.encodebytes(self.der).decode().replace("\n", "")
        lines = [body[at : at + 64] for at in range(0, len(body), 64)]
        return "\n".join([_PEM.decode(), *lines, "-----END CERTIFICATE-----", ""])

    def warnings(self, now: datetime | None = None) -> tuple[str, ...]:
        """Say what is odd about it, though the kernel does not mind."""
        now = now or datetime.now(UTC)
        found = []
        if now > self.not_after:
            found.append(f"the certificate `{self.common_name}` expired on {self.not_after:%Y-%m-%d}")
        if now < self.not_before:
            found.append(
                f"the certificate `{self.common_name}` is not valid before {self.not_before:%Y-%m-%d %H:%M} UTC"
            )
        if self.is_ca:
            found.append(
                f"the certificate `{self.common_name}` is a CA: what it enrols can issue certificates, not only sign"
            )
        return tuple(found)


@dataclass(frozen=True)
class PrivateKey:
    """A private key in memory. Never printed, never compared but by its public half."""

    pem: bytes = field(repr=False)
    """Unencrypted PKCS#8: for a file that nobody else can read."""
    public_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, pem: bytes, passphrase: bytes = b"") -> PrivateKey:
        """Parse a PEM key, decrypt it if need be. Raises InvalidError, which never holds anything of the key."""
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            PublicFormat,
            load_pem_private_key,
        )

        encrypted = b"ENCRYPTED" in pem
        if encrypted and not passphrase:
            raise InvalidError(
                "the signing key is encrypted, and no passphrase was given",
                hint="put the passphrase into a file and name it: --sign-passphrase-file FILE",
            )
        try:
            key = load_pem_private_key(pem, passphrase if encrypted else None)
        except Exception:  # noqa: BLE001 - every failure says the same, and no cause may quote the key
            if encrypted:
                raise InvalidError(
                    "the passphrase does not open the signing key", "the file's last newline is not part of it"
                ) from None
            raise InvalidError(
                "the signing key cannot be read", "expected a private key as PEM: -----BEGIN PRIVATE KEY-----"
            ) from None
        if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
            raise InvalidError("the kernel cannot check signatures by the signing key", "it is neither RSA nor EC")
        return cls(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        )

    def matches(self, certificate: Certificate) -> bool:
        """Tell whether the certificate is for this key."""
        return self.public_key == certificate.public_key
