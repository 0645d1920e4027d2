"""resolve: from a release, a kernel or a toolkit image to one toolkit by digest and the exact kernel it is for."""

from __future__ import annotations

from dataclasses import dataclass

from dtkpipe.steps.contract import RegistryArgs, Room, arg, result


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """What to build for. One of release, kernel and toolkit is enough."""

    release: str = arg("OpenShift release or distribution: 4.14, 4.14.38, debian-12", "")
    kernel: str = arg("Kernel release, as `uname -r` prints it", "")
    toolkit: str = arg("Driver Toolkit image to use instead of looking for one", "")
    arch: str = arg("Architecture of the target: x86_64, aarch64", "")
    variant: str = arg("Kernel flavour: std, rt, 64k, cloud", "")
    toolkit_repo: str = arg("Repository for toolkits made from a distribution's kernel packages", "")


@dataclass(frozen=True, kw_only=True)
class Results:
    """One toolkit, one kernel."""

    kernel: str = result("Kernel release of the target")
    arch: str = result("Architecture of the target")
    toolkit_url: str = result("Repository of the toolkit image")
    toolkit_digest: str = result("Digest of the toolkit image")
    release: str = result("The release that was chosen, e.g. 4.14.38 for 4.14")
    how: str = result("How the answer was found, in words")


def run(args: Args, room: Room) -> Results:
    """Find or make the toolkit."""
    raise NotImplementedError
