"""Blobs on the wire: a reader that checks and resumes, and an upload that survives a dropped connection."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from typing import IO, Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from urllib3.exceptions import HTTPError

from dtkpipe.clients.manifest import Descriptor
from dtkpipe.clients.refusals import NoSpaceError, unreachable
from dtkpipe.clients.transport import PUSH, Response, Rights, Transport
from dtkpipe.errors import DtkpipeError, NotFoundError, RunFailedError, UnreachableError
from dtkpipe.values.image import ImageRef

CHUNK = 2**18
"""Bytes per read."""


class BlobReader(io.RawIOBase):
    """The content of a blob as a file. Digest and length are checked at its end; a broken connection is resumed.

    Reading raises RunFailedError for content that is not what the descriptor says, UnreachableError when the registry
    stays away.
    """

    def __init__(self, transport: Transport, image: ImageRef, descriptor: Descriptor) -> None:
        super().__init__()
        self._transport, self._image, self._descriptor = transport, image, descriptor
        self._hash = hashlib.sha256()
        self._offset = 0
        self._response: Response | None = self._open()

    def readable(self) -> bool:
        """Return True: it is a source."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next; 0 at the end, which is checked."""
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Give the connection up; what has not been read is not fetched."""
        if self._response is not None:
            self._response.close()
            self._response = None
        super().close()

    def _asked(self) -> str:
        return f"read {self._descriptor.digest} of {self._image.name}"

    def _open(self) -> Response:
        headers = {"Range": f"bytes={self._offset}-"} if self._offset else {}
        path = f"{self._image.repository}/blobs/{self._descriptor.digest}"
        response = self._transport.send("GET", self._image, path, asked=self._asked(), headers=headers, ok=(200, 206))
        if response.status == 200 and self._offset:  # a server without ranges starts again
            self._offset, self._hash = 0, hashlib.sha256()
            raise UnreachableError(f"{self._image.registry} dropped the connection, and cannot resume")
        return response

    def _next(self, size: int) -> bytes:
        broken = 0
        while self._response is not None:
            try:
                data = self._response.read(min(size, CHUNK))
            except HTTPError as error:
                broken += 1
                self._response.close()
                if broken >= self._transport.patience.attempts:
                    raise unreachable(error, self._image.registry, self._asked()) from error
                self._response = self._open()
                continue
            self._hash.update(data)
            self._offset += len(data)
            if self._offset > self._descriptor.size:
                self._lies(f"more than the {self._descriptor.size} bytes that the manifest says")
            if not data:
                self._response.release_conn()
                self._response = None
                self._check()
            return bytes(data)
        return b""

    def _check(self) -> None:
        if self._offset != self._descriptor.size:
            self._lies(f"{self._offset} bytes instead of the {self._descriptor.size} that the manifest says")
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._descriptor.digest:
            self._lies(f"content with digest {found}")

    def _lies(self, got: str) -> None:
        host = self._transport.access.mirrors.hosts(self._image)
        raise RunFailedError(
            f"{host} gave wrong content for {self._descriptor.digest} of {self._image.name}",
            f"got {got}",
            hint="the registry's storage is damaged, or somebody changes what it sends",
        )


def upload(transport: Transport, repo: ImageRef, source: IO[bytes], descriptor: Descriptor) -> None:
    """Send a blob in one piece; after a dropped connection, go on where the registry stands, or start again.

    Raises NoSpaceError when the registry is full, and what `Transport.send` raises.
    """
    asked = f"push {descriptor.digest} ({descriptor.size} bytes) to {repo.name}"
    location, offset = "", 0
    for left in range(transport.patience.attempts - 1, -1, -1):
        try:
            if not location:
                location = _begin(transport, repo, asked)
            _put(transport, repo, source, descriptor, location, offset, asked)
        except (UnreachableError, RunFailedError, NotFoundError) as error:
            # Not found is an upload that the registry has given up; without an upload, it is the repository.
            if not left or isinstance(error, NoSpaceError) or (isinstance(error, NotFoundError) and not location):
                raise
            location, offset = _progress(transport, repo, location, asked) if location else ("", 0)
        else:
            return


def try_out(transport: Transport, repo: ImageRef) -> None:
    """Begin an upload and end it at once: the one question about the right to push that every registry answers."""
    location = _begin(transport, repo, f"push to {repo.name}")
    with contextlib.suppress(DtkpipeError):  # then it ends by itself, some day
        _end(transport, repo, location)


def _begin(transport: Transport, repo: ImageRef, asked: str) -> str:
    """Begin an upload; return where to send it to."""
    begun = transport.send(
        "POST", repo, f"{repo.repository}/blobs/uploads/", asked=asked, rights=PUSH, ok=(202,),
        headers={"Content-Length": "0"},
    )  # fmt: skip
    return _location(begun, repo)


def _end(transport: Transport, repo: ImageRef, location: str) -> None:
    """End an upload that was begun, so that the registry does not wait for us."""
    transport.send(
        "DELETE", repo, location, asked=f"end an upload to {repo.name}", rights=PUSH, ok=(200, 202, 204, 404, 405)
    ).drain_conn()


def _put(
    transport: Transport,
    repo: ImageRef,
    source: IO[bytes],
    descriptor: Descriptor,
    location: str,
    offset: int,
    asked: str,
) -> None:
    source.seek(offset)
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size - offset)}
    if offset:
        headers["Content-Range"] = f"{offset}-{descriptor.size - 1}"
    parts = urlsplit(location)
    query = "&".join(one for one in (parts.query, urlencode({"digest": descriptor.digest})) if one)
    transport.send(
        "PUT", repo, urlunsplit(parts._replace(query=query)), asked=asked, rights=PUSH, headers=headers,
        body=source, ok=(201,), resend=False,
    ).drain_conn()  # fmt: skip


def _progress(transport: Transport, repo: ImageRef, location: str, asked: str) -> tuple[str, int]:
    """Ask how much of an upload has arrived: where to go on, or ("", 0) to start again."""
    try:
        status = transport.send("GET", repo, location, asked=asked, rights=PUSH, ok=(204,))
    except DtkpipeError:
        return "", 0
    arrived = re.fullmatch(r"(?:bytes=)?0-(\d+)", status.headers.get("Range", ""))
    if not arrived or not int(arrived[1]):
        return "", 0
    return _location(status, repo), int(arrived[1]) + 1


def mount(transport: Transport, repo: ImageRef, descriptor: Descriptor, source: ImageRef) -> bool:
    """Make a blob of another repository of the same registry appear in `repo`; False where it has to be sent."""
    query = urlencode({"mount": descriptor.digest, "from": source.repository})
    answer = transport.send(
        "POST", repo, f"{repo.repository}/blobs/uploads/?{query}", ok=(201, 202), headers={"Content-Length": "0"},
        asked=f"push {descriptor.digest} to {repo.name}", rights=Rights(actions=PUSH.actions, also=(source,)),
    )  # fmt: skip
    answer.drain_conn()
    if answer.status == 201:
        return True
    _end(transport, repo, _location(answer, repo))  # what it began instead
    return False


def _location(answer: Response, repo: ImageRef) -> str:
    answer.drain_conn()
    location = str(answer.headers.get("Location") or "")
    if not location:
        raise RunFailedError(f"{repo.registry} does not say where to send a blob to", "no Location in its answer")
    return location
