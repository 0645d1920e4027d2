"""From what a cluster says to a toolkit: its ImageStream openshift/driver-toolkit, and what a node runs.

The stream has a tag for each version of the operating system that the cluster has known, and `latest`
(openshift/driver-toolkit, docs/driver_toolkit_imagestream.md). Tags may be missing or stale: the node's kernel decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dtkpipe.errors import DtkpipeError, NotFoundError, RunFailedError
from dtkpipe.releases.answer import EQUAL, OVERRIDDEN, Answer
from dtkpipe.releases.resolver import Choice, Resolver
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

NAMESPACE, STREAM = "openshift", "driver-toolkit"
_OS_VERSION = re.compile(r"\b\d+\.\d+\.\d{8,12}-\d+\b")


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a node runs."""

    name: str
    kernel: Kernel
    arch: Arch
    os_version: str
    """Version of RHCOS, which is a tag of the stream; "" where the node does not name it."""

    @classmethod
    def parse(cls, name: str, info: Mapping[str, Any]) -> Node:
        """Parse `status.nodeInfo`. Raises NotFoundError or InvalidError for an architecture or kernel that is none."""
        found = _OS_VERSION.search(str(info.get("osImage") or ""))
        return cls(
            name=name, kernel=Kernel.parse(str(info.get("kernelVersion") or "")), os_version=found[0] if found else "",
            arch=Arch.parse(str(info.get("architecture") or "")),
        )  # fmt: skip


def toolkits(stream: Mapping[str, Any]) -> dict[str, ImageRef]:
    """Return the image of each tag of the stream, by digest; tags that have none are left out."""
    found: dict[str, ImageRef] = {}
    spec = stream.get("spec")
    for tag in (spec.get("tags") if isinstance(spec, dict) else None) or []:
        try:
            image = ImageRef.parse(str(tag["from"]["name"]))
            if image.digest:
                found[str(tag["name"])] = image
        except (DtkpipeError, KeyError, TypeError):
            continue
    return found


def of_cluster(resolver: Resolver, stream: Mapping[str, Any], choice: Choice) -> Answer:
    """Return the toolkit of the newest operating system that the cluster knows. Raises NotFoundError."""
    tags = toolkits(stream)
    name = "latest-rhel-10" if choice.stream == "rhel-10" else "latest"
    if name not in tags:
        raise _no_tag(name, tags)
    answer = resolver.toolkit(tags[name], choice)
    return replace(answer, how=(f"toolkit from the cluster's image stream, tag {name}", *answer.how[1:]))


def of_node(resolver: Resolver, stream: Mapping[str, Any], node: Node, choice: Choice) -> Answer:
    """Return the toolkit for the kernel that a node runs. Raises NotFoundError, RunFailedError for a stale tag."""
    tags = toolkits(stream)
    choice = replace(choice, arch=node.arch, variant=node.kernel.variant)
    words = f"node {node.name} runs kernel {node.kernel} on {node.os_version or 'an operating system it does not name'}"
    if node.os_version not in tags:
        try:
            answer = resolver.kernel(node.kernel, choice)
        except NotFoundError as error:
            missing = _no_tag(node.os_version, tags)
            raise NotFoundError(missing.what, *missing.details, error.what, hint=error.hint) from error
        return replace(answer, how=(words, "its version is no tag of the cluster's image stream", *answer.how))
    answer = resolver.toolkit(tags[node.os_version], choice)
    how = (words, f"toolkit from the cluster's image stream, tag {node.os_version}", *answer.how[1:])
    if answer.kernel == node.kernel:
        return replace(answer, how=how, os_kernel=node.kernel, gate=EQUAL)
    if choice.allow_mismatch:
        return replace(answer, how=how, os_kernel=node.kernel, gate=OVERRIDDEN)
    raise RunFailedError(
        f"the cluster's toolkit for {node.os_version} is not for the kernel of node {node.name}",
        f"toolkit: {answer.kernel}",
        f"node: {node.kernel}",
        hint=f"dtkpipe resolve --kernel {node.kernel}, or --allow-kernel-mismatch",
    )


def _no_tag(name: str, tags: Mapping[str, ImageRef]) -> NotFoundError:
    return NotFoundError(
        f"the cluster's image stream {NAMESPACE}/{STREAM} has no tag `{name}`",
        f"it has: {', '.join(sorted(tags)) or 'none'}",
    )
