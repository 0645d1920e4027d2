"""The images that a release of OpenShift consists of, and where they are."""

from __future__ import annotations

from dataclasses import dataclass

from dtkpipe.values.arch import X86_64, Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.version import Version

RELEASES = ImageRef("quay.io", "openshift-release-dev/ocp-release")
"""Repository of the images of releases; tags are `<version>-<architecture>`."""
CONTENT = ImageRef("quay.io", "openshift-release-dev/ocp-v4.0-art-dev")
"""Repository of everything that a release consists of, by digest only."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One stream of the operating system in a release: its toolkit, and its own image."""

    name: str
    """rhel-8, rhel-9, rhel-10, scos"""
    toolkit: ImageRef
    os_image: ImageRef | None
    rhcos: str
    """Version of the operating system, where the payload says it."""


def release_image(version: Version, arch: Arch, repo: ImageRef | None = None) -> ImageRef:
    """Return the image of a release, in `repo` if there is one; nightlies are in the registry of OpenShift's CI."""
    if repo:
        return repo.tagged(f"{version}-{arch}")
    if version.pre.startswith("0."):
        name = "ocp/release" if arch == X86_64 else f"ocp-{arch.oci}/release-{arch.oci}"
        name += "-5" if version.major >= 5 else ""
        return ImageRef("registry.ci.openshift.org", name, tag=str(version))
    return RELEASES.tagged(f"{version}-{arch}")
