"""publish: give a proven image its final tags, with its run card and evidence attached."""

from __future__ import annotations

from dataclasses import dataclass

from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """The proven image, and where it belongs."""

    image: ImageRef = arg("Verified image, by digest")
    verdict: str = arg("Verdict of verify; anything but `proven` publishes nothing")
    evidence: str = arg("Evidence of verify", "")
    push_to: ImageRef = arg("Repository for the final image; a tag given with it is set as well")
    kernel: Kernel = arg("Kernel release the image is for: its tag")
    run_name: str = arg("Name of the run")
    toolkit: str = arg("Toolkit image, by digest", "")
    release: str = arg("Release the image is for", "")
    repo: str = arg("Source of the module", "")
    commit: str = arg("Commit of the source", "")
    signer: str = arg("Signer of the modules", "")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The published image."""

    image_url: str = result("Repository of the published image")
    image_digest: str = result("Digest of the published image")
    tags: str = result("Final tags, separated by spaces")


def run(args: Args, room: Room) -> Results:
    """Copy by digest, attach, tag; in this order."""
    raise NotImplementedError
