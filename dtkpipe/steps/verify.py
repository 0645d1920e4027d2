"""verify: prove on the target kernel that the modules of an image load. Writes nothing, anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtkpipe.errors import UsageError
from dtkpipe.steps.contract import RegistryArgs, Room, StepRefusedError, arg, result
from dtkpipe.values.image import ImageRef

if TYPE_CHECKING:
    from dtkpipe.proof.verdict import Verdict

_LEAST = 5
"""Seconds that a boot must be given."""


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
    """Run the five proofs, in order, until one fails.

    Raises StepRefusedError when the image is refused, and for what cannot be judged: UsageError, NotFoundError,
    InvalidError, UnreachableError, UnsupportedError.
    """
    import json

    from dtkpipe.clients.registry import Registry
    from dtkpipe.proof.kernel import CacheCorruptError
    from dtkpipe.proof.kernel_store import forget, kernel_files
    from dtkpipe.proof.prove import Prover
    from dtkpipe.proof.verdict import CODES, pack_evidence
    from dtkpipe.tools.x509 import Certificate
    from dtkpipe.values.kernel import Kernel

    if args.time_limit < _LEAST:
        raise UsageError(f"--time-limit is {args.time_limit} s: no kernel boots in less than {_LEAST} s")
    registry = Registry(args.access(room.environ))
    certificate = Certificate.from_base64(args.sign_cert) if args.sign_cert else None
    release = Kernel.parse(args.kernel).release if args.kernel else ""
    image = args.image if args.image.digest else args.image.at(registry.digest(args.image))
    kept = room.kept

    def attempt(number: int) -> Verdict:
        kernel = kernel_files(registry, args.toolkit, args.kernel_image, room.cache, release)
        work = room.work / f"proof-{number}"
        work.mkdir()
        prover = Prover(
            registry=registry, kernel=kernel, certificate=certificate, time_limit=args.time_limit, work=work,
            cache=room.cache, say=room.say, keep=kept,
        )  # fmt: skip
        try:
            return prover.prove(image, args.spec)
        except CacheCorruptError as error:
            forget(kernel)
            if number:
                raise
            room.say(f"{error.what}: {error.details[0]}; made again")
            return attempt(number + 1)

    room.say(f"verifying {image}")
    verdict = attempt(0)
    document = verdict.document()
    (kept / "verdict.json").write_text(json.dumps(document, indent=2, ensure_ascii=False))
    room.document(document)
    results = Results(verdict=verdict.text, evidence=pack_evidence(document))
    if refusal := verdict.refusal:
        raise StepRefusedError(
            f"{verdict.text}: {refusal.reason}", *refusal.details, results=results, hint=CODES[refusal.code].fix
        )
    room.say(f"proven on {verdict.kernel}")
    return results
