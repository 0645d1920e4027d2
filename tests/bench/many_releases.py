"""Hundreds of releases in the storage of a registry, written there directly: pushing them would take longer than all
that is measured. Layout: distribution/distribution, registry/storage/paths.go."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from dtkpipe.clients.manifest import DOCKER_MANIFEST, OCI_CONFIG, Descriptor, canonical
from dtkpipe.releases.images import CONTENT, RELEASES
from dtkpipe.values.arch import ARCHES, Arch
from dtkpipe.values.image import ImageRef
from tests.fixtures.images import file, layer, pack
from tests.fixtures.openshift import image_references

_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Storage:
    """The storage folder of docker-registry."""

    def __init__(self, root: Path) -> None:
        self._root = root / "docker/registry/v2"

    def blob(self, repository: str, data: bytes, media_type: str) -> dict[str, object]:
        """Put a blob into a repository."""
        found = Descriptor.of(data, media_type)
        kind, _, name = found.digest.partition(":")
        self._write(f"blobs/{kind}/{name[:2]}/{name}/data", data)
        self._link(f"repositories/{repository}/_layers/{kind}/{name}", found.digest)
        return found.to_dict()

    def image(self, repository: str, layers: list[bytes], labels: dict[str, str], arch: Arch, tag: str = "") -> str:
        """Put an image into a repository; returns its digest."""
        described = [self.blob(repository, one, _LAYER) for one in layers]
        config = canonical({"architecture": arch.oci, "os": "linux", "config": {"Labels": labels}})
        manifest = canonical({
            "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": self.blob(repository, config, OCI_CONFIG),
            "layers": described,
        })  # fmt: skip
        digest = Descriptor.of(manifest, DOCKER_MANIFEST).digest
        kind, _, name = digest.partition(":")
        self._write(f"blobs/{kind}/{name[:2]}/{name}/data", manifest)
        self._link(f"repositories/{repository}/_manifests/revisions/{kind}/{name}", digest)
        if tag:
            self.tag(repository, tag, digest)
        return digest

    def tag(self, repository: str, tag: str, digest: str) -> None:
        """Let a tag point at an image. Its history, which is only for deleting, is left out."""
        self._link(f"repositories/{repository}/_manifests/tags/{tag}/current", digest)

    def _link(self, folder: str, digest: str) -> None:
        self._write(f"{folder}/link", digest.encode())

    def _write(self, path: str, data: bytes) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def fill(root: Path, releases: int, filler: int = 2**20) -> ImageRef:
    """Write releases of six minor versions, each on four architectures, each with a toolkit and a system of its own.

    Returns a toolkit, for those who want to pull one.
    """
    storage = Storage(root)
    big = pack(layer(file("usr/lib/filler", random.Random(0).randbytes(filler))), "gzip")
    digest = ""
    for number in range(releases):
        version = f"4.{16 + number % 6}.{number // 6}"
        for arch in ARCHES:
            kernel = f"5.14.0-{427 + number % 6}.{number}.1.el9_4.{arch}"
            told = json.dumps({"KERNEL_VERSION": kernel, "RT_KERNEL_VERSION": f"{kernel}+rt", "RHEL_VERSION": "9.4"})
            small = pack(layer(file("etc/driver-toolkit-release.json", told.encode())), "gzip")
            digest = storage.image(CONTENT.repository, [big, small], {"name": "driver-toolkit"}, arch)
            system = storage.image(CONTENT.repository, [big], {"ostree.linux": kernel}, arch)
            images = {"driver-toolkit": CONTENT.at(digest), "rhel-coreos": CONTENT.at(system)}
            references = image_references(version, images, {"rhel-coreos": f"416.94.2024{number:08d}-0"})
            manifests = gzip.compress(layer(file("release-manifests/image-references", references)), 1, mtime=0)
            storage.image(RELEASES.repository, [big, manifests], {}, arch, f"{version}-{arch}")
    return CONTENT.at(digest)
