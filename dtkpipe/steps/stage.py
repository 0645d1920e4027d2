"""stage: bring a published image back into staging, with the files of its kernel, to be signed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtkpipe.errors import InvalidError
from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.image import ImageRef

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry

_NEEDED = ("dtkpipe.kernel", "dtkpipe.toolkit", "dtkpipe.commit")


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """The published image, and where candidates are."""

    image: ImageRef = arg("Published image")
    staging: ImageRef = arg("Repository for candidates")
    run_name: str = arg("Name of the run: candidates are tagged <run>-<step>")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The candidate, and what the labels of the image say of it."""

    image_url: str = result("Repository of the candidate")
    image_digest: str = result("Digest of the candidate: the published image's")
    kernel: str = result("Kernel release it is for")
    kernel_image: str = result("Kernel artifact (vmlinuz, symvers, in-tree modules) for sign and verify, by digest")
    toolkit: str = result("Toolkit it was built with, by digest")
    commit: str = result("Commit of its source")
    repo: str = result("Where its source is")
    release: str = result("Release it was built for")


def run(args: Args, room: Room) -> Results:
    """Copy by digest; nothing is built. Raises InvalidError for an image that dtkpipe did not make, and others."""
    from dtkpipe.clients.registry import Registry
    from dtkpipe.proof.kernel_store import staged_kernel
    from dtkpipe.values.kernel import Kernel

    registry = Registry(args.access(room.environ))
    image = args.image if args.image.digest else args.image.at(registry.digest(args.image))
    labels = _labels(registry, image)
    kernel, toolkit = Kernel.parse(labels["dtkpipe.kernel"]), ImageRef.parse(labels["dtkpipe.toolkit"])
    digest = registry.copy(image, args.staging, [f"{args.run_name}-stage"])
    room.say(f"staged {image}")
    _, kernel_image = staged_kernel(registry, toolkit, kernel.release, args.staging, room.cache, room.say)
    return Results(
        image_url=args.staging.name, image_digest=digest, kernel=kernel.release, kernel_image=str(kernel_image),
        toolkit=str(toolkit), commit=labels["dtkpipe.commit"], release=labels.get("dtkpipe.releases", ""),
        repo=labels.get("org.opencontainers.image.source", ""),
    )  # fmt: skip


def _labels(registry: Registry, image: ImageRef) -> dict[str, str]:
    labels = dict(registry.config(image).labels)
    if missing := [name for name in _NEEDED if not labels.get(name)]:
        raise InvalidError(
            f"{image} cannot be signed again", f"it has no label {', '.join(missing)}: dtkpipe did not make it",
            hint="dtkpipe submit builds and signs it",
        )  # fmt: skip
    return labels
