"""A release payload: what the image of an OpenShift release says of its toolkits and its operating systems.

Only the newest layer is read, and of it release-manifests/image-references (openshift/oc: pkg/cli/admin/release). It is
an ImageStream whose tags name the images of the release.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dtkpipe.clients.layers import members, unpacked
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import DtkpipeError, NotFoundError, RunFailedError
from dtkpipe.releases.images import Stream
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.version import Version

_REFERENCES = "release-manifests/image-references"
_LAYER = 64 * 2**20
"""Bytes that the layer may have, and may unpack to. Real ones are near 1 MiB."""
_DOCUMENT = 8 * 2**20
# Which image of the operating system, newest name first, belongs to which toolkit.
_OS_TAGS = (
    ("rhel-coreos-10", "rhel-10"), ("rhel-coreos", "rhel-9"), ("rhel-coreos-8", "rhel-8"), ("stream-coreos", "scos"),
    ("machine-os-content", "rhel-8"),
)  # fmt: skip
_TOOLKIT, _TOOLKIT_10 = "driver-toolkit", "driver-toolkit-10"


class NoToolkitError(NotFoundError):
    """A release that has no Driver Toolkit."""


@dataclass(frozen=True, kw_only=True)
class Payload:
    """What one release image of one architecture says."""

    version: Version
    image: ImageRef
    """The release image by digest: of an index, the image of the architecture."""
    arch: Arch
    streams: tuple[Stream, ...]


def read(registry: Registry, image: ImageRef, arch: Arch, version: Version | None = None) -> Payload:
    """Read the payload of a release image, in three requests or less. It has to be that of `version`, if that is given.

    Raises NotFoundError for an image that is no release, or whose release has no toolkit, RunFailedError for content
    that is not what it should be, and what the registry client raises.
    """
    manifest = registry.manifest(image, arch)
    here = image.at(manifest.digest)
    if not manifest.layers:
        raise NotFoundError(f"{image} is not an OpenShift release", "it has no layers")
    newest = manifest.layers[-1]
    name = f"layer {newest.digest} of {image.name}"
    if newest.size > _LAYER:
        raise NotFoundError(f"{image} is not an OpenShift release", f"its newest layer has {newest.size} bytes")
    text: bytes | None = None
    with registry.open_blob(here, newest) as blob, unpacked(blob, name, _LAYER) as (tar, _):
        for entry, member, archive in members(tar, name):
            if entry.path == _REFERENCES and entry.kind == "file":
                if entry.size > _DOCUMENT:
                    raise RunFailedError(f"{_REFERENCES} of {image} is too big", f"{entry.size} bytes")
                source = archive.extractfile(member)
                text = source.read() if source else b""
                break
    if text is None:
        raise NotFoundError(f"{image} is not an OpenShift release", f"its newest layer has no {_REFERENCES}")
    found = parse(text, here, arch)
    if version and found.version != version:
        raise RunFailedError(f"{image} is not OpenShift {version}", f"it says that it is {found.version}")
    return found


def parse(text: bytes, image: ImageRef, arch: Arch) -> Payload:
    """Parse image-references. Raises RunFailedError, and NotFoundError for a release without a toolkit."""
    try:
        data = json.loads(text)
        version = Version.parse(str(data["metadata"]["name"]))
        tags = {str(tag["name"]): tag for tag in data["spec"]["tags"]}
        images = {name: found for name, tag in tags.items() if (found := _image(name, tag))}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DtkpipeError) as error:
        raise RunFailedError(f"{_REFERENCES} of {image} is not valid", _why(error)) from error
    systems: dict[str, str] = {}
    for tag, stream in _OS_TAGS:
        if tag in images:
            # What was called machine-os-content stands beside the image that took its place.
            if tag == "machine-os-content" and systems:
                continue
            systems[stream] = tag
    first = next((name for name in systems if name != "rhel-10"), "rhel-9" if version.line > (4, 12) else "rhel-8")
    toolkits = {first: _TOOLKIT, "rhel-10": _TOOLKIT_10}
    streams = tuple(
        Stream(
            name=stream, toolkit=images[tag], os_image=images.get(systems.get(stream, "")),
            rhcos=_machine_os(tags.get(systems.get(stream, ""), {})),
        )
        for stream, tag in toolkits.items()
        if tag in images
    )  # fmt: skip
    if not streams:
        raise NoToolkitError(
            f"OpenShift {version} has no Driver Toolkit",
            f"looked for the tags {_TOOLKIT} and {_TOOLKIT_10} in {image}",
            f"it has {len(tags)} tags: {', '.join(sorted(tags, key=_likeness)[:12])}",
            hint="releases before 4.8 and some of OKD have none: give an image with --toolkit IMAGE",
        )
    return Payload(version=version, image=image, arch=arch, streams=streams)


def _why(error: Exception) -> str:
    if isinstance(error, DtkpipeError):
        return error.what
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _likeness(tag: str) -> tuple[bool, str]:
    """Sort what could have been meant first."""
    return not ("toolkit" in tag or "coreos" in tag or "machine-os" in tag), tag


def _image(name: str, tag: Mapping[str, Any]) -> ImageRef | None:
    """Return the image of a tag; only those that matter to us have to be valid, and named by digest."""
    if name not in (_TOOLKIT, _TOOLKIT_10) and name not in dict(_OS_TAGS):
        return None
    source = tag["from"]
    if source["kind"] != "DockerImage":
        return None
    try:
        image = ImageRef.parse(str(source["name"]))
    except DtkpipeError as error:
        raise RunFailedError(f"its tag `{name}` has no valid image", error.what) from error
    if not image.digest:
        raise RunFailedError(f"its tag `{name}` names its image without a digest", str(image))
    return ImageRef(image.registry, image.repository, digest=image.digest)


def _machine_os(tag: Mapping[str, Any]) -> str:
    """Return the version of the operating system, from `io.openshift.build.versions: machine-os=...`."""
    versions = str((tag.get("annotations") or {}).get("io.openshift.build.versions") or "")
    found = re.search(r"(?:^|,)machine-os=([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:,|$)", versions)
    return found[1] if found else ""
