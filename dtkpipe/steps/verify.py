"""verify: prove on the target kernel that the modules of an image load. Writes nothing, anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.image import ImageRef


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """The image to prove, and the kernel to prove it on."""

    image: ImageRef = arg("Image to verify, by digest or tag")
    toolkit: ImageRef = arg("Toolkit image of the target kernel")
    kernel_image: ImageRef | None = arg("Kernel artifact of the toolkit, if there is one already", None)
    kernel: str = arg("Kernel release to verify for; default: the toolkit's", "")
    spec: str = arg("dtkpipe.yaml as JSON or YAML text; default: the image's label, else what the image holds", "")
    sign_cert: str = arg("Certificate of the expected signer: DER in base64. Without it modules must be unsigned", "")
    time_limit: int = arg("Seconds that one boot may take", 120)


@dataclass(frozen=True, kw_only=True)
class Results:
    """The verdict. A refusal also ends the step with exit code 10."""

    verdict: str = result("`proven`, or `refused: <code>`")
    evidence: str = result("The evidence, as JSON, deflated, in base64; at most 2.5 KiB")


def run(args: Args, room: Room) -> Results:
    """Run the five proofs, in order, until one fails."""
    raise NotImplementedError
