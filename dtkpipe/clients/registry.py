"""The registry client: images, artifacts and their blobs by the OCI distribution specification 1.1."""

from __future__ import annotations

import contextlib
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from dtkpipe.clients import blobs, referrers
from dtkpipe.clients.blobs import BlobReader
from dtkpipe.clients.manifest import (
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Manifest,
    digest_of,
)
from dtkpipe.clients.transport import DELETE, PUSH, Patience, Response, Transport
from dtkpipe.errors import InvalidError, NotFoundError, RunFailedError, UnsupportedError
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef

_ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
_SMALL = 4 * 2**20
_CONFIG_LIMIT = 8 * 2**20
_PARALLEL = 4
_MOMENTS = (0.2, 0.5, 1.0)
"""Seconds until a manifest is pushed again whose blobs are there, as we know, and are not found."""


class Registry:
    """Reads from and writes to registries. Each ref names its own registry; one object serves all of them.

    Every method raises NotFoundError, NotAllowedError and UnreachableError that name the host and what was asked.
    """

    def __init__(self, access: RegistryAccess, patience: Patience | None = None) -> None:
        self.access = access
        self._transport = Transport(access, patience)

    # Reading

    def digest(self, ref: ImageRef) -> str:
        """Return the digest that the tag points at; for a ref with a digest, check that it exists."""
        asked = f"find {ref}"
        headers = {"Accept": _ACCEPT}
        answer = self._transport.send("HEAD", ref, _manifest_path(ref), asked=asked, headers=headers)
        found = str(answer.headers.get("Docker-Content-Digest") or "")
        answer.drain_conn()
        if ref.digest or not re.fullmatch(r"sha256:[0-9a-f]{64}", found):
            return ref.digest or self.any_manifest(ref).digest
        return found

    def exists(self, ref: ImageRef) -> bool:
        """Tell whether the registry has the tag or digest."""
        try:
            self.digest(ref)
        except NotFoundError:
            return False
        return True

    def any_manifest(self, ref: ImageRef) -> Manifest:
        """Return the manifest or index itself. Raises RunFailedError for content that is not what was asked for."""
        asked = f"read the manifest of {ref}"
        answer = self._transport.send("GET", ref, _manifest_path(ref), asked=asked, headers={"Accept": _ACCEPT})
        body = self._transport.body(answer, ref, asked)
        wanted = ref.digest or answer.headers.get("Docker-Content-Digest") or digest_of(body)
        if digest_of(body) != wanted:
            raise RunFailedError(
                f"{self.access.mirrors.hosts(ref)} gave a wrong manifest for {ref}",
                f"got content with digest {digest_of(body)}",
            )
        media_type = str(answer.headers.get("Content-Type") or "")
        unusable = f"{self.access.mirrors.hosts(ref)} gave a manifest for {ref} that cannot be used"
        try:
            found = Manifest.parse(body, media_type)
        except InvalidError as error:
            raise RunFailedError(unusable, str(error)) from error
        claimed = media_type.split(";")[0].strip()
        if claimed in MANIFESTS + INDEXES and claimed != found.media_type:
            raise RunFailedError(
                unusable,
                f"it is sent as {claimed}, and says itself that it is {found.media_type}",
            )
        return found

    def manifest(self, ref: ImageRef, arch: Arch | None = None) -> Manifest:
        """Return the manifest of an image. Of an index, that for `arch`; without, the only one there is.

        Raises NotFoundError for an index without the architecture, InvalidError when one has to be chosen.
        """
        found = self.any_manifest(ref)
        for _ in range(2):
            if not found.is_index:
                return found
            # Attestations stand in an index as images for an unknown architecture.
            images = [one for one in found.manifests if one.arch != "unknown"]
            fitting = [one for one in images if arch is None or one.arch in ("", arch.oci)]
            has = ", ".join(sorted({one.arch or "?" for one in images})) or "none"
            if not fitting:
                raise NotFoundError(f"{ref} has no image for {arch or 'any architecture'}", f"it has: {has}")
            if len(fitting) > 1 and arch is None:
                raise InvalidError(f"{ref} has images for several architectures, and none was named", f"it has: {has}")
            found = self.any_manifest(ref.at(fitting[0].digest))
        raise RunFailedError(f"{ref} is an index of indexes", "an index of images was expected")

    def config(self, ref: ImageRef, arch: Arch | None = None) -> ImageConfig:
        """Return the config of an image: labels, architecture, layers."""
        return self.config_of(ref, self.manifest(ref, arch))

    def config_of(self, ref: ImageRef, manifest: Manifest) -> ImageConfig:
        """Return the config that a manifest of `ref`'s repository points at."""
        body = self.read_blob(ref, manifest.config, _CONFIG_LIMIT)
        try:
            data = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RunFailedError(f"the config of {ref} is not JSON") from error
        return ImageConfig(data if isinstance(data, dict) else {})

    def open_blob(self, ref: ImageRef, descriptor: Descriptor) -> BlobReader:
        """Open a blob of `ref`'s repository as a file that checks digest and size at its end."""
        return BlobReader(self._transport, ref, descriptor)

    def read_blob(self, ref: ImageRef, descriptor: Descriptor, limit: int = _SMALL) -> bytes:
        """Return a small blob as a whole. Raises RunFailedError for one of more than `limit` bytes."""
        if descriptor.size > limit:
            raise RunFailedError(f"{descriptor.digest} of {ref.name} is too big", f"{descriptor.size} bytes")
        with self.open_blob(ref, descriptor) as blob:
            return blob.readall()

    def has_blob(self, repo: ImageRef, descriptor: Descriptor) -> bool:
        """Tell whether the repository has the blob."""
        answer = self._transport.send(
            "HEAD", repo, f"{repo.repository}/blobs/{descriptor.digest}", asked=f"find {descriptor.digest}",
            ok=(200, 404),
        )  # fmt: skip
        answer.drain_conn()
        return answer.status == 200

    def tags(self, repo: ImageRef) -> tuple[str, ...]:
        """Return all tags of a repository, sorted; none where the repository does not exist yet."""
        asked = f"list the tags of {repo.name}"
        url, found = f"{repo.repository}/tags/list?n=1000", list[str]()
        while url:
            answer = self._transport.send("GET", repo, url, asked=asked, ok=(200, 404))
            if answer.status == 404:
                answer.drain_conn()
                return ()
            page = self._transport.json(answer, repo, asked).get("tags") or []
            found += [str(tag) for tag in page]
            following = re.match(r'<([^>]+)>\s*;\s*rel="?next"?', answer.headers.get("Link", ""))
            url = following[1] if following and page else ""
        return tuple(sorted(set(found)))

    # Writing

    def try_push(self, repo: ImageRef) -> None:
        """See whether we could push to a repository, without pushing. Raises what a push would."""
        blobs.try_out(self._transport, repo)

    def push_blob(self, repo: ImageRef, data: bytes | IO[bytes], descriptor: Descriptor | None = None) -> Descriptor:
        """Push a blob unless it is there. A file needs its `descriptor`, and must be seekable."""
        if isinstance(data, bytes):
            descriptor = descriptor or Descriptor.of(data, "application/octet-stream")
            data = io.BytesIO(data)
        if descriptor is None:
            raise TypeError("a file needs its descriptor")
        if not self.has_blob(repo, descriptor):
            blobs.upload(self._transport, repo, data, descriptor)
        return descriptor

    def push_manifest(self, repo: ImageRef, body: bytes, media_type: str = OCI_MANIFEST, tag: str = "") -> str:
        """Push a manifest, all of whose blobs are there, by digest or under a tag. Returns its digest."""
        self.put_manifest(repo, body, media_type, tag)
        return digest_of(body)

    def put_manifest(self, repo: ImageRef, body: bytes, media_type: str, tag: str = "") -> Mapping[str, str]:
        """Push a manifest; returns the headers of the answer."""
        ref = repo.tagged(tag) if tag else repo.at(digest_of(body))

        def put(*ok: int) -> Response:
            return self._transport.send(
                "PUT", ref, _manifest_path(ref), asked=f"push {ref}", rights=PUSH, body=body, ok=(200, 201, *ok),
                headers={"Content-Type": media_type, "Content-Length": str(len(body))},
            )  # fmt: skip

        # A registry on a file system misses a blob for a moment that somebody else pushes there, too.
        for pause in _MOMENTS:
            answer = put(400)
            if answer.status == 400 and self._misses_blob(answer, ref):
                time.sleep(pause)
                continue
            if answer.status == 400:
                break
            answer.drain_conn()
            return answer.headers
        answer = put()
        answer.drain_conn()
        return answer.headers

    def _misses_blob(self, answer: Response, ref: ImageRef) -> bool:
        with contextlib.suppress(RunFailedError):
            errors = self._transport.json(answer, ref, f"push {ref}").get("errors")
            codes = {one.get("code") for one in errors or () if isinstance(one, dict)}
            return "MANIFEST_BLOB_UNKNOWN" in codes
        return False

    def tag(self, ref: ImageRef, tags: Sequence[str]) -> None:
        """Let `tags` point at what `ref` points at."""
        found = self.any_manifest(ref)
        for tag in tags:
            self.push_manifest(ref, found.body, found.media_type, tag)

    def copy(self, source: ImageRef, repo: ImageRef, tags: Sequence[str] = ()) -> str:
        """Copy an image (or an index with all its images) by digest; tags come last. Returns the digest.

        Within one registry nothing is transferred: blobs are mounted.
        """
        found = self.any_manifest(source)
        for child in found.manifests:
            self.copy(source.at(child.digest), repo)
        if not found.is_index and repo.name != source.name:
            with ThreadPoolExecutor(_PARALLEL) as pool:
                distinct = {one.digest: one for one in (found.config, *found.layers)}.values()
                list(pool.map(lambda one: self._copy_blob(source, repo, one), distinct))
        self.push_manifest(repo, found.body, found.media_type)
        for tag in tags:
            self.push_manifest(repo, found.body, found.media_type, tag)
        return found.digest

    def _copy_blob(self, source: ImageRef, repo: ImageRef, descriptor: Descriptor) -> None:
        if self.has_blob(repo, descriptor):
            return
        if source.registry == repo.registry and blobs.mount(self._transport, repo, descriptor, source):
            return
        import tempfile

        with tempfile.TemporaryFile() as file, self.open_blob(source, descriptor) as blob:
            while chunk := blob.read(blobs.CHUNK):
                file.write(chunk)
            blobs.upload(self._transport, repo, file, descriptor)

    def delete(self, ref: ImageRef) -> None:
        """Delete a manifest (ref with a digest; all its tags go with it) or a tag alone.

        Raises UnsupportedError where the registry cannot.
        """
        answer = self._transport.send(
            "DELETE", ref, _manifest_path(ref), asked=f"delete {ref}", rights=DELETE, ok=(200, 202, 204, 400, 405)
        )
        answer.drain_conn()
        if answer.status in (400, 405):
            what = "manifests" if ref.digest else "tags"
            raise UnsupportedError(f"{ref.registry} does not delete {what}", f"asked to delete {ref}")

    def untag(self, ref: ImageRef) -> None:
        """Remove one tag and nothing else. Raises UnsupportedError where the registry cannot.

        A manifest without tags is left to the registry's own garbage collection: somebody may be using its digest.
        """
        self.digest(ref)
        try:
            self.delete(ref)
        except UnsupportedError:
            # Deleting by digest takes every tag of that digest along, other people's too. So the tag is first moved
            # to a manifest of its own; that deleting works is tried out before.
            body = referrers.artifact(self, ref, "application/vnd.dtkpipe.removed", {}, {"dtkpipe.tag": ref.tag}, None)
            with contextlib.suppress(NotFoundError):
                self.delete(ref.at(digest_of(body)))
            self.delete(ref.at(self.push_manifest(ref, body, OCI_MANIFEST, ref.tag)))

    # Artifacts

    def push_artifact(
        self,
        repo: ImageRef,
        artifact_type: str,
        files: Mapping[str, bytes | IO[bytes]],
        *,
        tag: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> ImageRef:
        """Push named files as an OCI artifact; returns it by digest. The same files give the same digest."""
        body = referrers.artifact(self, repo, artifact_type, files, annotations or {}, None)
        return repo.at(self.push_manifest(repo, body, OCI_MANIFEST, tag))

    def attach(
        self,
        subject: ImageRef,
        artifact_type: str,
        files: Mapping[str, bytes],
        annotations: Mapping[str, str] | None = None,
    ) -> ImageRef:
        """Attach named files to an image (by digest) as a referrer; the same files again change nothing."""
        return referrers.attach(self, subject, artifact_type, files, annotations or {})

    def referrers(self, subject: ImageRef, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return what is attached to an image (by digest), of one type or of all."""
        return referrers.listed(self, self._transport, subject, artifact_type)


def _manifest_path(ref: ImageRef) -> str:
    return f"{ref.repository}/manifests/{ref.digest or ref.tag or 'latest'}"


__all__ = ["DOCKER_MANIFEST", "OCI_MANIFEST", "Descriptor", "ImageConfig", "Manifest", "Registry"]
