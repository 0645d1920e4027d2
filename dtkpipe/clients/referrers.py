"""Artifacts, and artifacts that refer to an image: OCI distribution specification 1.1, "Listing Referrers".

A registry without the referrers API gets an index under the tag `sha256-<hex of the subject>` instead.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from dtkpipe.clients.manifest import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, canonical
from dtkpipe.clients.transport import Transport
from dtkpipe.errors import NotFoundError, RunFailedError, UnreachableError
from dtkpipe.values.image import ImageRef

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry

TITLE = "org.opencontainers.image.title"
_EMPTY = b"{}"
_FILE = "application/octet-stream"
_RACES = 8


def artifact(
    registry: Registry,
    repo: ImageRef,
    artifact_type: str,
    files: Mapping[str, bytes | IO[bytes]],
    annotations: Mapping[str, str],
    subject: Descriptor | None,
) -> bytes:
    """Push the blobs of an artifact and return the manifest, which is not pushed yet."""
    empty = registry.push_blob(repo, _EMPTY, Descriptor.of(_EMPTY, OCI_EMPTY))
    layers = []
    for name, content in files.items():
        described = _described(content)
        registry.push_blob(repo, content, described)
        layers.append({**described.to_dict(), "annotations": {TITLE: name}})
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": empty.to_dict(),
        "layers": layers or [empty.to_dict()],
    }
    if subject:
        manifest["subject"] = subject.to_dict()
    if annotations:
        manifest["annotations"] = dict(annotations)
    return canonical(manifest)


def _described(content: bytes | IO[bytes]) -> Descriptor:
    import hashlib

    if isinstance(content, bytes):
        return Descriptor.of(content, _FILE)
    content.seek(0)
    digest = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    return Descriptor(media_type=_FILE, digest=f"sha256:{digest}", size=content.seek(0, io.SEEK_END))


def attach(
    registry: Registry,
    subject: ImageRef,
    artifact_type: str,
    files: Mapping[str, bytes],
    annotations: Mapping[str, str],
) -> ImageRef:
    """Attach files to an image, by digest. Returns the artifact."""
    of = registry.any_manifest(subject).descriptor
    bare = Descriptor(media_type=of.media_type, digest=of.digest, size=of.size)
    body = artifact(registry, subject, artifact_type, files, annotations, bare)
    answer = registry.put_manifest(subject, body, OCI_MANIFEST)
    pushed = Manifest.parse(body)
    if answer.get("OCI-Subject") != of.digest:
        _list_by_tag(registry, subject.at(of.digest), pushed.descriptor)
    return subject.at(pushed.digest)


def _fallback(subject: ImageRef) -> ImageRef:
    return subject.tagged(subject.digest.replace(":", "-"))


def _by_tag(registry: Registry, subject: ImageRef) -> tuple[str, tuple[Descriptor, ...]]:
    """Return the digest of the index under the fallback tag, and what it lists."""
    try:
        found = registry.any_manifest(_fallback(subject))
    except NotFoundError:
        return "", ()
    if not found.is_index:
        raise RunFailedError(f"{_fallback(subject)} is not a list of referrers", "its tag is kept for one")
    return found.digest, found.manifests


def _list_by_tag(registry: Registry, subject: ImageRef, added: Descriptor) -> None:
    """Add a referrer to the index under the fallback tag.

    Registries cannot change a tag only if nobody else did: we look again right before and after, which leaves the
    moment of writing itself.
    """
    for _ in range(_RACES):
        before, entries = _by_tag(registry, subject)
        if any(one.digest == added.digest for one in entries):
            return
        listing = [one.to_dict() for one in (*entries, added)]
        index = canonical({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listing})
        if _by_tag(registry, subject)[0] == before:
            registry.put_manifest(subject, index, OCI_INDEX, _fallback(subject).tag)
    raise UnreachableError(f"cannot list a referrer at {_fallback(subject)}", "others change the list all the time")


def listed(registry: Registry, transport: Transport, subject: ImageRef, artifact_type: str) -> tuple[Descriptor, ...]:
    """Return the referrers of an image, from the API or from the fallback tag."""
    answer = transport.send(
        "GET", subject, f"{subject.repository}/referrers/{subject.digest}", ok=(200, 400, 404, 405),
        asked=f"list what is attached to {subject}", headers={"Accept": OCI_INDEX},
    )  # fmt: skip
    if answer.status == 200 and OCI_INDEX in answer.headers.get("Content-Type", ""):
        entries = transport.json(answer, subject, f"list what is attached to {subject}").get("manifests") or ()
        found = tuple(Descriptor.parse(one) for one in entries)
    else:
        answer.drain_conn()
        found = _by_tag(registry, subject)[1]
    return tuple(one for one in found if artifact_type in ("", one.artifact_type))
