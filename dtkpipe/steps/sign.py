"""sign: sign every kernel module in the candidate image. The only step that sees the key."""

from __future__ import annotations

from dataclasses import dataclass

from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.image import ImageRef


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
    """Sign and push."""
    raise NotImplementedError
