"""The update graph: which releases a channel has, and which updates between them are there, or carry a risk.

Protocol: openshift/cincinnati, docs/design/openshift.md. Sites without internet run it as OpenShift Update Service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from urllib3.exceptions import HTTPError

from dtkpipe.clients.refusals import unreachable
from dtkpipe.clients.transport import Transport
from dtkpipe.errors import DtkpipeError, InvalidError, NotAllowedError, NotFoundError, RunFailedError, UnreachableError
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.version import Version

PUBLIC = "https://api.openshift.com/api/upgrades_info/v1/graph"
_ACCEPT = "application/vnd.redhat.cincinnati.v1+json, application/json"
_LIMIT = 64 * 2**20
_HINT = "--graph URL asks another update graph; dtkpipe catalog list shows what is known without one"
_CHANNELS = "io.openshift.upgrades.graph.release.channels"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One release in the graph."""

    version: Version
    payload: ImageRef
    """The image of the release, by digest."""
    channels: tuple[str, ...]
    url: str
    """Where its advisory is."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One channel for one architecture."""

    nodes: Mapping[Version, Node]
    edges: frozenset[tuple[Version, Version]]
    """Updates that are recommended."""
    risks: Mapping[tuple[Version, Version], tuple[str, ...]] = field(default_factory=dict)
    """Updates that carry risks, by the names of these."""


def read(access: RegistryAccess, channel: str, arch: Arch, url: str = PUBLIC) -> Graph:
    """Ask for a channel. Raises NotFoundError for one without releases, UnreachableError, RunFailedError."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and access.is_insecure(parts.netloc)):
        raise InvalidError(
            f"the update graph `{url[:200]}` is not an https URL",
            hint=f"--insecure-registry {parts.netloc}" if parts.scheme == "http" else "",
        )
    asked = f"read channel {channel} of the update graph"
    query = urlencode({"channel": channel, "arch": arch.oci})
    try:
        answer = Transport(access).get(f"{url}?{query}", asked, {"Accept": _ACCEPT})
    except UnreachableError as error:
        raise UnreachableError(error.what, *error.details, hint=_HINT) from error
    try:
        body = answer.read(_LIMIT + 1, decode_content=True)
    except HTTPError as error:
        raise unreachable(error, parts.netloc, asked) from error
    finally:
        answer.release_conn()
    if answer.status != 200 or len(body) > _LIMIT:
        raise _refused(answer.status, body, parts.netloc, asked)
    found = parse(body, parts.netloc)
    if not found.nodes:
        raise NotFoundError(
            f"the update graph has no channel `{channel}` for {arch}", f"asked: {parts.netloc}",
            hint="channels are stable-, fast-, candidate- and eus- with a minor version: stable-4.16",
        )  # fmt: skip
    return found


def parse(body: bytes, host: str) -> Graph:
    """Parse a reply. Raises RunFailedError."""
    try:
        data = json.loads(body)
        nodes = [_node(one) for one in data.get("nodes") or ()]
        edges = [(nodes[_index(start)].version, nodes[_index(end)].version) for start, end in data.get("edges") or ()]
        risks: dict[tuple[Version, Version], tuple[str, ...]] = {}
        for group in data.get("conditionalEdges") or ():
            names = tuple(str(risk["name"]) for risk in group["risks"])
            for edge in group["edges"]:
                key = Version.parse(str(edge["from"])), Version.parse(str(edge["to"]))
                risks[key] = tuple(dict.fromkeys((*risks.get(key, ()), *names)))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, DtkpipeError) as error:
        why = error.what if isinstance(error, DtkpipeError) else f"{type(error).__name__}: {error}"
        raise RunFailedError(f"{host} gave an update graph that is not valid", why[:200]) from error
    return Graph(nodes={node.version: node for node in nodes}, edges=frozenset(edges), risks=risks)


def _node(data: Any) -> Node:
    metadata = data.get("metadata") or {}
    channels = str(metadata.get(_CHANNELS) or "")
    return Node(
        version=Version.parse(str(data["version"])),
        payload=ImageRef.parse(str(data["payload"])),
        channels=tuple(part.strip() for part in channels.split(",") if part.strip()),
        url=str(metadata.get("url") or ""),
    )


def _index(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not an index of a node")
    return value


def _refused(status: int, body: bytes, host: str, asked: str) -> DtkpipeError:
    """Return what an answer that is no graph means: {"kind", "value"} of Cincinnati's errors."""
    try:
        said = str(json.loads(body)["value"])[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        said = ""
    details = [f"{host} answered {status}" + (f": {said}" if said else "")]
    if len(body) > _LIMIT:
        return RunFailedError(f"{host} answers with more than {_LIMIT} bytes: cannot {asked}")
    if status in (401, 403):
        return NotAllowedError(f"{host} does not allow to {asked}", *details)
    if status >= 500 or status == 429:
        return UnreachableError(f"{host} fails: cannot {asked}", *details)
    return NotFoundError(f"{host} refuses to {asked}", *details)
