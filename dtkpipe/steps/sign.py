"""sign: sign every kernel module in the candidate image. The only step that sees the key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dtkpipe.errors import InvalidError, RunFailedError
from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.image import ImageRef

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry
    from dtkpipe.tools.x509 import Certificate, PrivateKey

LABEL = "dtkpipe.signer"
"""Label and annotation of a signed image: the certificate's SHA-256."""
UNSIGNED = "unsigned: no certificate was given; a node with Secure Boot will refuse these modules"


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """The candidate, and what to sign it with."""

    image: ImageRef = arg("Candidate image, by digest")
    run_name: str = arg("Name of the run: candidates are tagged <run>-<step>")
    kernel_image: ImageRef | None = arg("Kernel artifact that holds the kernel's sign-file", None)
    sign_cert: str = arg("Certificate to sign for: DER in base64. Without it nothing is signed", "")
    sign_hash: str = arg("Digest algorithm of the signature", "sha256")
    key: str = arg("File of the private key (PEM)", "")
    passphrase: str = arg("File of the key's passphrase", "")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The candidate with every module signed, or the same candidate when there is nothing to sign with."""

    image_url: str = result("Repository of the candidate")
    image_digest: str = result("Digest of the candidate")
    signer: str = result("`unsigned`, or the certificate's common name and SHA-256 fingerprint")


def run(args: Args, room: Room) -> Results:
    """Sign and push. Raises InvalidError when certificate, key and passphrase do not fit, before anything is read."""
    from dtkpipe.clients.registry import Registry

    registry = Registry(args.access(room.environ))
    if not args.sign_cert:
        room.say(UNSIGNED)
        digest = args.image.digest or registry.digest(args.image)
        return Results(image_url=args.image.name, image_digest=digest, signer="unsigned")
    signer = signer_from(args, room)
    if not args.kernel_image:
        raise InvalidError("a certificate was given, but no kernel artifact", "its sign-file makes the signatures")
    from dtkpipe.proof.kernel_store import stored_kernel

    kernel = stored_kernel(registry, args.kernel_image, room.cache)
    signed = sign_image(registry, args.image, kernel.sign_file, signer, room)
    registry.tag(signed, [f"{args.run_name}-sign"])
    return Results(image_url=signed.name, image_digest=signed.digest, signer=signer.certificate.signer)


@dataclass(frozen=True)
class Signer:
    """Who signs, and how."""

    certificate: Certificate
    key: PrivateKey
    hash_name: str


def signer_from(args: Args, room: Room) -> Signer:
    """Read certificate, key and passphrase, and check that they fit. Raises InvalidError."""
    from dtkpipe.tools.signfile import check_hash
    from dtkpipe.tools.x509 import Certificate, PrivateKey

    check_hash(args.sign_hash)
    certificate = Certificate.from_base64(args.sign_cert)
    key = PrivateKey.parse(_secret(args.key, "signing key"), _passphrase(args.passphrase))
    if not key.matches(certificate):
        raise InvalidError(
            "the signing key and the certificate do not belong together",
            f"certificate: {certificate.signer}",
            hint="openssl pkey -in KEY -pubout | openssl sha256; openssl x509 -in CERT -noout -pubkey | openssl sha256",
        )
    for warning in certificate.warnings():
        room.say(f"warning: {warning}; the kernel does not check that")
    return Signer(certificate, key, args.sign_hash)


def _secret(path: str, what: str) -> bytes:
    if not path:
        raise InvalidError(f"a certificate was given, but no {what}", hint="--sign-key FILE, or leave --sign-cert out")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidError(
            f"a certificate was given, but the {what} cannot be read", f"{path}: {error.strerror}",
            hint="--sign-key FILE, or leave --sign-cert out",
        ) from error  # fmt: skip


def _passphrase(path: str) -> bytes:
    """Return the first line of the passphrase file; a secret that holds no passphrase has no such file."""
    if not path or not Path(path).exists():
        return b""
    lines = _secret(path, "passphrase").splitlines()
    return lines[0] if lines else b""


def sign_image(registry: Registry, image: ImageRef, sign_file: Path, signer: Signer, room: Room) -> ImageRef:
    """Sign every module in every layer of an image; returns the new image by digest, not tagged."""
    from dtkpipe.clients.rewrite import rewrite_layers
    from dtkpipe.proof.module import is_module_file

    modules, layers = room.work / "modules", room.work / "layers"
    modules.mkdir()
    layers.mkdir()
    fingerprint = signer.certificate.fingerprint
    rewritten = rewrite_layers(
        registry,
        image,
        lambda entry: is_module_file(entry.path),
        lambda path, data: sign_module(path, data, sign_file, signer, modules),
        layers,
        labels={LABEL: fingerprint},
        annotations={LABEL: fingerprint},
    )
    if not rewritten.paths:
        raise RunFailedError(
            f"there is nothing to sign: {image} holds no kernel module", "looked for: *.ko, *.ko.xz, ..."
        )
    for path in rewritten.paths:
        room.say(f"signed {path}")
    room.say(f"signer: {signer.certificate.signer}")
    return rewritten.image


def sign_module(path: str, data: bytes, sign_file: Path, signer: Signer, work: Path) -> bytes:
    """Return a module, in the compression it has, with the one signature of `signer`.

    Raises InvalidError for what is no module, RunFailedError when the signature does not prove good.
    """
    from dtkpipe.proof.module import decompress
    from dtkpipe.proof.signature import split
    from dtkpipe.tools import openssl, signfile

    content = split(decompress(data, path)).content
    if not content.startswith(b"\x7fELF"):
        raise InvalidError(f"{path} is not a kernel module", "it is not an ELF file")
    module = work / "module.ko"
    module.write_bytes(content)
    signfile.sign(sign_file, signer.hash_name, signer.key, signer.certificate, module, work)
    signed = module.read_bytes()
    made = split(signed)
    if made.content != content or not openssl.signed_by(content, made.signature, signer.certificate, work):
        raise RunFailedError(f"the new signature of {path} does not prove good", f"made by {sign_file}")
    return _compressed_like(data, signed)


def _compressed_like(old: bytes, plain: bytes) -> bytes:
    """Compress as the old file was, the way kernels can read: as scripts/Makefile.modinst of Linux does."""
    if old.startswith(b"\xfd7zXZ\0"):
        import lzma

        filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20}]
        return lzma.compress(plain, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)
    if old.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return zstandard.ZstdCompressor(level=9).compress(plain)
    if old.startswith(b"\x1f\x8b"):
        import gzip

        return gzip.compress(plain, 9, mtime=0)
    return plain
