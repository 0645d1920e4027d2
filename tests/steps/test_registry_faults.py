"""The registry client on bad days: a real registry behind a proxy that misbehaves."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtkpipe.clients.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor
from dtkpipe.clients.refusals import NoSpaceError
from dtkpipe.errors import DtkpipeError, NotAllowedError, RunFailedError, UnreachableError
from dtkpipe.values.image import ImageRef
from tests.fixtures.faults import Answer, Exchange, Proxy, on, proxied
from tests.fixtures.images import file, layer, push_image
from tests.fixtures.registry import LoopbackRegistry

pytestmark = pytest.mark.tools


@pytest.fixture
def proxy(registry: LoopbackRegistry) -> Iterator[Proxy]:
    with proxied(registry.host) as running:
        yield running


@pytest.fixture
def image(registry: LoopbackRegistry, proxy: Proxy) -> ImageRef:
    """An image in the registry, as the proxy shows it."""
    made = push_image(registry.client, registry.repo("faults/image"), [layer(file("a", os.urandom(100_000)))], tag="v1")
    return ImageRef(proxy.host, made.repository, digest=made.digest)


def _errors(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


@pytest.mark.parametrize(
    ("status", "kind", "exit_code", "words"),
    [
        (401, NotAllowedError, 4, "does not allow"),
        (403, NotAllowedError, 4, "does not allow"),
        (429, UnreachableError, 7, "asked too often"),
        (500, UnreachableError, 7, "fails"),
        (503, UnreachableError, 7, "fails"),
        (507, NoSpaceError, 7, "no space left"),
        (413, NoSpaceError, 7, "no space left"),
        (418, RunFailedError, 10, "refuses"),
    ],
)
def test_a_refusal_has_its_own_error_and_nothing_is_tagged(
    proxy: Proxy, status: int, kind: type[DtkpipeError], exit_code: int, words: str
) -> None:
    proxy.faults.append(
        on("POST", "/blobs/uploads/", lambda one: one.say(Answer(status, body=_errors("X", "said the registry"))))
    )
    repo = proxy.repo(f"faults/refused-{status}")
    with pytest.raises(kind, match=words) as caught:
        push_image(proxy.client(), repo, [layer(file("a"))], tag="final")
    assert caught.value.exit_code == exit_code
    assert proxy.host in caught.value.what
    assert "said the registry" in str(caught.value)
    assert proxy.client().tags(repo) == ()


def test_a_full_disk_that_comes_as_500_is_called_full(proxy: Proxy) -> None:
    full = Answer(500, body=_errors("UNKNOWN", "write /var/lib/registry/x: no space left on device"))
    proxy.faults.append(on("PUT", "/blobs/uploads/", lambda one: one.say(full)))
    with pytest.raises(NoSpaceError):
        push_image(proxy.client(), proxy.repo("faults/full"), [layer(file("a"))])
    assert proxy.count("PUT", "/blobs/uploads/") == 1, "a full registry is not asked again at once"


def test_too_many_requests_are_tried_again_when_the_registry_says(proxy: Proxy, image: ImageRef) -> None:
    later = Answer(429, {"Retry-After": "1"})
    proxy.faults.append(on("GET", "/manifests/", lambda one: one.say(later), times=2))
    assert proxy.client().manifest(image).digest == image.digest
    assert proxy.count("GET", "/manifests/") == 3


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_recovers_is_tried_again(proxy: Proxy, image: ImageRef, status: int) -> None:
    proxy.faults.append(on("GET", "/manifests/", lambda one: one.say(Answer(status)), times=1))
    assert proxy.client().manifest(image).digest == image.digest


def test_a_dropped_connection_is_tried_again(proxy: Proxy, image: ImageRef) -> None:
    proxy.faults.append(on("GET", "/manifests/", Exchange.drop, times=1))
    assert proxy.client().manifest(image).digest == image.digest


def test_a_registry_that_never_answers_ends_in_its_time(proxy: Proxy, image: ImageRef) -> None:
    over = threading.Event()

    def hang(exchange: Exchange) -> bool:
        over.wait(60)
        return exchange.drop()

    proxy.faults.append(on("GET", "/manifests/", hang))
    try:
        with pytest.raises(UnreachableError, match=proxy.host) as caught:
            proxy.client().manifest(image)
        assert "no data within the time limit" in str(caught.value)
    finally:
        over.set()


def test_a_download_that_breaks_goes_on_where_it_stopped(proxy: Proxy, image: ImageRef) -> None:
    client = proxy.client()
    (descriptor,) = client.manifest(image).layers

    def cut(exchange: Exchange) -> bool:
        whole = exchange.fetch()
        half = whole.body[: len(whole.body) // 2]
        exchange.say(Answer(whole.status, {**whole.headers, "Content-Length": str(len(whole.body))}, half))
        return exchange.drop()

    proxy.faults.append(on("GET", "/blobs/", cut, times=1))
    with client.open_blob(image, descriptor) as blob:
        assert len(blob.readall()) == descriptor.size
    ranges = [one.headers.get("Range") for one in proxy.requests if one.method == "GET" and "/blobs/" in one.path]
    assert ranges == [None, f"bytes={descriptor.size // 2}-"]


@pytest.mark.parametrize("part", [0, 300_000])
def test_an_upload_that_breaks_is_finished(registry: LoopbackRegistry, proxy: Proxy, part: int) -> None:
    data = os.urandom(1_000_000)
    proxy.faults.append(on("PUT", "/blobs/uploads/", lambda one: one.pass_part(part), times=1))
    described = Descriptor.of(data, "application/octet-stream")
    repo = proxy.repo(f"faults/upload-{part}")
    proxy.client().push_blob(repo, io.BytesIO(data), described)
    assert registry.client.read_blob(registry.repo(repo.repository), described) == data
    assert proxy.count("PUT", "/blobs/uploads/") == 2


def test_an_upload_goes_on_where_a_registry_says_that_it_stands(registry: LoopbackRegistry, proxy: Proxy) -> None:
    """docker-registry forgets what came before a break; the proxy plays one that does not."""
    data, kept = os.urandom(100_000), b""

    def keep_a_part(exchange: Exchange) -> bool:
        nonlocal kept
        kept = exchange.rfile.read(40_000)
        return exchange.drop()

    def status(exchange: Exchange) -> bool:
        return exchange.say(Answer(204, {"Range": f"0-{len(kept) - 1}", "Location": exchange.path}))

    def complete(exchange: Exchange) -> bool:
        assert exchange.headers["Content-Range"] == "40000-99999"
        body = kept + exchange.body()
        del exchange.headers["Content-Length"], exchange.headers["Content-Range"]
        return exchange.say(exchange.ask(body))

    proxy.faults += [
        on("PUT", "/blobs/uploads/", keep_a_part, times=1),
        on("GET", "/blobs/uploads/", status),
        on("PUT", "/blobs/uploads/", complete),
    ]
    described = Descriptor.of(data, "application/octet-stream")
    proxy.client().push_blob(proxy.repo("faults/resumed"), io.BytesIO(data), described)
    assert registry.client.read_blob(registry.repo("faults/resumed"), described) == data
    assert proxy.count("POST", "/blobs/uploads/") == 1


def test_an_upload_that_always_breaks_names_the_host_and_leaves_no_tag(proxy: Proxy) -> None:
    proxy.faults.append(on("PUT", "/blobs/uploads/", lambda one: one.pass_part(10)))
    repo = proxy.repo("faults/never")
    with pytest.raises(UnreachableError, match=proxy.host):
        push_image(proxy.client(), repo, [layer(file("a", os.urandom(5000)))], tag="final")
    assert proxy.client().tags(repo) == ()


# Lies


def test_a_blob_with_other_content_is_refused(proxy: Proxy, image: ImageRef) -> None:
    client = proxy.client()
    (descriptor,) = client.manifest(image).layers

    def swap(exchange: Exchange) -> bool:
        whole = exchange.fetch()
        return exchange.say(Answer(200, body=bytes(len(whole.body))))

    proxy.faults.append(on("GET", "/blobs/", swap))
    with pytest.raises(RunFailedError, match="wrong content"), client.open_blob(image, descriptor) as blob:
        blob.readall()


@pytest.mark.parametrize("more", [-7, 7])
def test_a_blob_of_another_length_is_refused(proxy: Proxy, image: ImageRef, more: int) -> None:
    client = proxy.client()
    (descriptor,) = client.manifest(image).layers

    def resize(exchange: Exchange) -> bool:
        body = exchange.fetch().body
        return exchange.say(Answer(200, body=body[:more] if more < 0 else body + bytes(more)))

    proxy.faults.append(on("GET", "/blobs/", resize))
    with pytest.raises(RunFailedError, match="wrong content"), client.open_blob(image, descriptor) as blob:
        blob.readall()


def test_a_manifest_with_other_content_is_refused(proxy: Proxy, image: ImageRef) -> None:
    other = b'{"schemaVersion":2,"mediaType":"%s","config":{},"layers":[]}' % OCI_MANIFEST.encode()
    proxy.faults.append(on("GET", "/manifests/", lambda one: one.say(Answer(200, body=other))))
    with pytest.raises(RunFailedError, match="wrong manifest"):
        proxy.client().manifest(image)
    lying = {"Docker-Content-Digest": image.digest}
    proxy.faults[:] = [on("GET", "/manifests/", lambda one: one.say(Answer(200, lying, other)))]
    with pytest.raises(RunFailedError, match="wrong manifest"):
        proxy.client().manifest(image.tagged("v1"))


def test_a_manifest_under_a_wrong_media_type_is_refused(proxy: Proxy, image: ImageRef) -> None:
    def relabel(exchange: Exchange) -> bool:
        whole = exchange.fetch()
        return exchange.say(Answer(200, {"Content-Type": OCI_INDEX}, whole.body))

    proxy.faults.append(on("GET", "/manifests/", relabel))
    with pytest.raises(RunFailedError, match="cannot be used"):
        proxy.client().manifest(image)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"schemaVersion":1}', b"\xff\xfe", b'{"schemaVersion":2}'])
def test_an_answer_that_is_no_manifest_is_refused(proxy: Proxy, image: ImageRef, body: bytes) -> None:
    proxy.faults.append(on("GET", "/manifests/", lambda one: one.say(Answer(200, body=body))))
    with pytest.raises(RunFailedError):
        proxy.client().config(image.tagged("v1"))


def test_an_endless_manifest_is_not_read_to_its_end(proxy: Proxy, image: ImageRef) -> None:
    proxy.faults.append(on("GET", "/manifests/", lambda one: one.say(Answer(200, body=bytes(5 * 2**20)))))
    with pytest.raises(RunFailedError, match="more than"):
        proxy.client().manifest(image.tagged("v1"))


# Redirects and tokens


def _login(tmp_path: Path, host: str) -> Path:
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(b"ci:secret").decode()}}}))
    return auth


def _wants_token(realm: str) -> Answer:
    return Answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="test",scope="repository:a:pull"'})


def _bearer(proxy: Proxy, token_host: str) -> None:
    """Let the proxy ask for a bearer token, which it gives for the right user."""
    realm = f"http://{token_host}/token"

    def guard(exchange: Exchange) -> bool:
        if exchange.path.startswith("/token"):
            right = exchange.headers.get("Authorization") == "Basic " + base64.b64encode(b"ci:secret").decode()
            return exchange.say(Answer(200, body=b'{"token": "opensesame"}') if right else Answer(401))
        if exchange.headers.get("Authorization") == "Bearer opensesame":
            return False
        return exchange.say(_wants_token(realm))

    proxy.faults.append(guard)


def test_a_token_is_fetched_once_and_used(proxy: Proxy, image: ImageRef, tmp_path: Path) -> None:
    _bearer(proxy, proxy.host)
    client = proxy.client(auth_file=_login(tmp_path, proxy.host))
    client.manifest(image)
    client.config(image)
    assert proxy.count("GET", "/token") == 1
    (asked,) = [one.path for one in proxy.requests if one.path.startswith("/token")]
    assert "scope=repository%3Afaults%2Fimage%3Apull" in asked
    assert "service=test" in asked


def test_a_push_asks_for_the_right_to_push(proxy: Proxy, tmp_path: Path) -> None:
    _bearer(proxy, proxy.host)
    push_image(proxy.client(auth_file=_login(tmp_path, proxy.host)), proxy.repo("faults/token"), [layer()], tag="v1")
    asked = [one.path for one in proxy.requests if one.path.startswith("/token")]
    assert any("pull%2Cpush" in path for path in asked)


def test_an_identity_token_is_exchanged(proxy: Proxy, image: ImageRef, tmp_path: Path) -> None:
    forms: list[bytes] = []

    def guard(exchange: Exchange) -> bool:
        if exchange.path.startswith("/token"):
            forms.append(exchange.body())
            return exchange.say(Answer(200, body=b'{"access_token": "opensesame"}'))
        if exchange.headers.get("Authorization") == "Bearer opensesame":
            return False
        return exchange.say(_wants_token(f"http://{proxy.host}/token"))

    proxy.faults.append(guard)
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {proxy.host: {"identitytoken": "refresh-me"}}}))
    assert proxy.client(auth_file=auth).manifest(image).digest == image.digest
    assert b"grant_type=refresh_token&refresh_token=refresh-me" in forms[0]


def test_an_expired_token_is_renewed(proxy: Proxy, image: ImageRef, tmp_path: Path) -> None:
    tokens = iter(["first", "second"])
    valid = {"Bearer first"}

    def guard(exchange: Exchange) -> bool:
        if exchange.path.startswith("/token"):
            return exchange.say(Answer(200, body=json.dumps({"token": next(tokens)}).encode()))
        if exchange.headers.get("Authorization") in valid:
            return False
        return exchange.say(_wants_token(f"http://{proxy.host}/token"))

    proxy.faults.append(guard)
    client = proxy.client()
    client.manifest(image)
    valid.clear()
    valid.add("Bearer second")
    assert client.manifest(image).digest == image.digest


def test_a_token_host_without_tls_gets_no_credentials_unless_allowed(
    registry: LoopbackRegistry, proxy: Proxy, image: ImageRef, tmp_path: Path
) -> None:
    with proxied(registry.host) as thief:
        _bearer(proxy, thief.host)
        with pytest.raises(UnreachableError, match=thief.host):
            proxy.client(auth_file=_login(tmp_path, proxy.host)).manifest(image)
        assert thief.requests == []


def test_credentials_do_not_follow_a_redirect_to_another_host(
    registry: LoopbackRegistry, proxy: Proxy, image: ImageRef, tmp_path: Path
) -> None:
    _bearer(proxy, proxy.host)
    with proxied(registry.host) as storage:
        client = proxy.client(auth_file=_login(tmp_path, proxy.host))
        (descriptor,) = client.manifest(image).layers
        proxy.faults.append(
            on("GET", "/blobs/", lambda one: one.say(Answer(307, {"Location": f"http://{storage.host}{one.path}"})))
        )
        with client.open_blob(image, descriptor) as blob:
            assert len(blob.readall()) == descriptor.size
        (seen,) = storage.requests
        assert "Authorization" not in seen.headers


def test_redirects_without_end_are_an_error(proxy: Proxy, image: ImageRef) -> None:
    proxy.faults.append(on("GET", "/manifests/", lambda one: one.say(Answer(307, {"Location": one.path}))))
    with pytest.raises(UnreachableError, match="without end"):
        proxy.client().manifest(image)


def test_a_redirect_to_a_file_is_not_followed(proxy: Proxy, image: ImageRef) -> None:
    proxy.faults.append(on("GET", "/manifests/", lambda one: one.say(Answer(307, {"Location": "file:///etc/passwd"}))))
    with pytest.raises(UnreachableError):
        proxy.client().manifest(image)


# The referrers API, which the registry behind the proxy lacks


def test_a_registry_with_the_referrers_api_gets_no_fallback_tag(proxy: Proxy, image: ImageRef) -> None:
    listed: list[dict[str, object]] = []

    def knows_subjects(exchange: Exchange) -> bool:
        whole = exchange.fetch()
        whole.headers["OCI-Subject"] = image.digest
        return exchange.say(whole)

    def lists(exchange: Exchange) -> bool:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
        return exchange.say(Answer(200, {"Content-Type": OCI_INDEX}, json.dumps(index).encode()))

    proxy.faults += [on("PUT", "/manifests/", knows_subjects), on("GET", "/referrers/", lists)]
    client = proxy.client()
    attached = client.attach(image, "application/vnd.test", {"a": b"1"})
    assert not client.exists(image.tagged(image.digest.replace(":", "-")))
    listed.append(client.manifest(attached).descriptor.to_dict())
    assert [one.digest for one in client.referrers(image, "application/vnd.test")] == [attached.digest]
    assert client.referrers(image, "application/vnd.other") == ()


def test_two_that_attach_at_once_are_both_listed(registry: LoopbackRegistry, proxy: Proxy, image: ImageRef) -> None:
    """The fallback tag is read, changed and written: what somebody wrote in between must not be lost."""
    rival = registry.client
    here = ImageRef(registry.host, image.repository, digest=image.digest)

    def interfere(exchange: Exchange) -> bool:
        answer = exchange.fetch()
        rival.attach(here, "application/vnd.rival", {"r": b"rival"})
        return exchange.say(answer)

    proxy.faults.append(on("GET", f"/manifests/{image.digest.replace(':', '-')}", interfere, times=1))
    proxy.client().attach(image, "application/vnd.ours", {"o": b"ours"})
    kinds = {one.artifact_type for one in rival.referrers(here)}
    assert {"application/vnd.rival", "application/vnd.ours"} <= kinds
