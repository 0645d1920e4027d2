"""build: compile the module against the toolkit and push the candidate image to the staging repository."""

from __future__ import annotations

from dataclasses import dataclass

from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """What to compile, against what, and where the candidate goes."""

    repo: str = arg("Source of the module: folder, tarball, or git URL (github.com/org/kmod means https)")
    ref: str = arg("Branch, tag or commit of the git repository", "")
    path: str = arg("Folder of the module inside the source", "")
    spec: str = arg("dtkpipe.yaml of the module, as JSON or YAML text, instead of the one in the source", "")
    toolkit: ImageRef = arg("Toolkit image, by digest")
    kernel: Kernel = arg("Kernel release to build for")
    arch: Arch = arg("Architecture to build for")
    release: str = arg("Release the image is for; goes into its labels", "")
    build_args: tuple[str, ...] = arg("Build arguments, NAME=value", ())
    hermetic: bool = arg("Compile without network even where a Containerfile of the module's would have it", False)
    staging: ImageRef = arg("Repository for candidates")
    run_name: str = arg("Name of the run: candidates are tagged <run>-<step>")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The candidate image: unsigned, unverified."""

    image_url: str = result("Repository of the candidate")
    image_digest: str = result("Digest of the candidate")
    commit: str = result("Commit of the source, or sha256:... of a folder or tarball")
    module: str = result("Name of the module")
    kernel_image: str = result("Kernel artifact (vmlinuz, symvers, in-tree modules) for verify, by digest")


def run(args: Args, room: Room) -> Results:
    """Compile and push."""
    raise NotImplementedError
