"""Manifests, indexes and configs of images: OCI image specification 1.1 and Docker schema 2."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dtkpipe.errors import InvalidError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_INDEX)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(data: bytes) -> str:
    """Return `sha256:<hex>` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical(document: Mapping[str, Any]) -> bytes:
    """Write a manifest, index or config: the same document is always the same bytes."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(value: Any) -> Mapping[str, str]:
    return {key: str(item) for key, item in _object(value).items()}


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """What a manifest says of a blob or of another manifest. `size` is in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    arch: str = ""
    """The architecture of the platform, as OCI calls it (amd64, arm64)."""

    @classmethod
    def parse(cls, data: Any) -> Descriptor:
        """Parse one descriptor. Raises InvalidError."""
        said = _object(data)
        size = said.get("size")
        digest = str(said.get("digest"))
        if not _DIGEST.fullmatch(digest) or not isinstance(size, int) or size < 0:
            raise InvalidError("a manifest holds a descriptor that is not valid", repr(data)[:200])
        return cls(
            media_type=str(said.get("mediaType") or ""),
            digest=digest,
            size=size,
            annotations=_strings(said.get("annotations")),
            artifact_type=str(said.get("artifactType") or ""),
            arch=str(_object(said.get("platform")).get("architecture") or ""),
        )

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Descriptor:
        """Describe `data`."""
        return cls(media_type=media_type, digest=digest_of(data), size=len(data))

    def to_dict(self) -> dict[str, Any]:
        """Return the descriptor as manifests hold it."""
        out: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        return out


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest or an index, as the registry gave it: `body` is what the digest is of."""

    media_type: str
    digest: str
    body: bytes = field(repr=False)
    data: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, body: bytes, media_type: str = "") -> Manifest:
        """Parse the body of a manifest or index. What it says itself goes before `media_type`. Raises InvalidError."""
        try:
            data = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InvalidError("the manifest is not JSON") from error
        if not isinstance(data, dict) or data.get("schemaVersion") != 2:
            raise InvalidError("the manifest is of a format that we do not know", "known: OCI, Docker schema 2")
        kind = str(data.get("mediaType") or media_type.split(";")[0].strip())
        if kind not in MANIFESTS + INDEXES:
            kind = OCI_INDEX if "manifests" in data else OCI_MANIFEST
        # One that could be read both ways is an attack: OCI advisory GHSA-mc8v-mgrf-8f4m.
        if ("manifests" in data) != (kind in INDEXES) or ("manifests" in data and data.keys() & {"config", "layers"}):
            raise InvalidError("the manifest is not what its media type says", kind)
        found = cls(media_type=kind, digest=digest_of(body), body=body, data=data)
        _ = found.manifests if found.is_index else (found.config, found.layers)  # a bad descriptor is found here
        return found

    @property
    def is_index(self) -> bool:
        """Whether it lists other manifests instead of layers."""
        return self.media_type in INDEXES

    @property
    def descriptor(self) -> Descriptor:
        """The manifest as others point at it."""
        return Descriptor(
            media_type=self.media_type, digest=self.digest, size=len(self.body), artifact_type=self.artifact_type,
            annotations=self.annotations,
        )  # fmt: skip

    @property
    def config(self) -> Descriptor:
        """The config of an image. Raises InvalidError for an index."""
        return Descriptor.parse(self.data.get("config"))

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers of an image, lowest first, or the files of an artifact."""
        return tuple(Descriptor.parse(layer) for layer in _list(self.data.get("layers")))

    @property
    def manifests(self) -> tuple[Descriptor, ...]:
        """The manifests that an index lists."""
        return tuple(Descriptor.parse(one) for one in _list(self.data.get("manifests")))

    @property
    def annotations(self) -> Mapping[str, str]:
        """The manifest's own annotations."""
        return _strings(self.data.get("annotations"))

    @property
    def artifact_type(self) -> str:
        """What kind of artifact it is; for images "" (the specification falls back to the config's media type)."""
        kind = str(self.data.get("artifactType") or "")
        if kind or self.is_index:
            return kind
        media_type = str(_object(self.data.get("config")).get("mediaType") or "")
        return "" if media_type in (OCI_CONFIG, OCI_EMPTY) else media_type

    @property
    def subject(self) -> str:
        """Digest of the manifest that this one is attached to, or ""."""
        return str(_object(self.data.get("subject")).get("digest") or "")


@dataclass(frozen=True)
class ImageConfig:
    """The config of an image."""

    data: Mapping[str, Any]

    @property
    def labels(self) -> Mapping[str, str]:
        """The image's labels."""
        return _strings(_object(self.data.get("config")).get("Labels"))

    @property
    def architecture(self) -> str:
        """As OCI calls it: amd64, arm64."""
        return str(self.data.get("architecture") or "")

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Digests of the layers' tars, uncompressed, lowest first."""
        return tuple(str(one) for one in _list(_object(self.data.get("rootfs")).get("diff_ids")))
