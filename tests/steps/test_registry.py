"""The registry client against Debian's docker-registry."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtkpipe.clients.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, canonical
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import (
    InvalidError,
    NotAllowedError,
    NotFoundError,
    RunFailedError,
    UnreachableError,
    UnsupportedError,
)
from dtkpipe.tools import process
from dtkpipe.values.access import RegistryAccess, access_from
from dtkpipe.values.arch import AARCH64, X86_64
from dtkpipe.values.image import ImageRef
from tests.fixtures.faults import QUICK, Answer, Exchange, on, proxied
from tests.fixtures.images import file, layer, push_image
from tests.fixtures.registry import LoopbackRegistry, free_port, running_registry

pytestmark = pytest.mark.tools
# docker-registry takes bcrypt only; this is "secret".
HTPASSWD = "ci:$2b$04$dc20hbeYb1WNZhv0xaQxcuKuSOCkQ7idqgEnCc90o3/I4eSckq0Ve\n"


@pytest.fixture
def client(registry: LoopbackRegistry) -> Registry:
    return registry.client


def test_a_blob_comes_back_as_it_was_pushed(registry: LoopbackRegistry, client: Registry) -> None:
    repo, data = registry.repo("blobs/same"), os.urandom(3_000_001)
    described = client.push_blob(repo, io.BytesIO(data), Descriptor.of(data, "application/octet-stream"))
    with client.open_blob(repo, described) as blob:
        assert blob.read(10) == data[:10]
        assert blob.readall() == data[10:]


def test_an_empty_blob_can_be_pushed_and_read(registry: LoopbackRegistry, client: Registry) -> None:
    repo = registry.repo("blobs/empty")
    described = client.push_blob(repo, b"")
    assert client.read_blob(repo, described) == b""


def test_images_are_found_by_tag_and_by_digest(registry: LoopbackRegistry, client: Registry) -> None:
    repo = registry.repo("images/found")
    image = push_image(client, repo, [layer(file("a"))], tag="v1", labels={"k": "v"})
    assert client.digest(repo.tagged("v1")) == image.digest == client.digest(image)
    assert client.manifest(repo.tagged("v1")).digest == image.digest
    assert client.config(image).labels == {"k": "v"}
    assert client.exists(image)
    assert not client.exists(repo.tagged("v2"))


@pytest.mark.parametrize("docker", [False, True])
def test_both_manifest_formats_are_read(registry: LoopbackRegistry, client: Registry, docker: bool) -> None:
    image = push_image(client, registry.repo("images/formats"), [layer(file("a"))], docker=docker)
    assert len(client.manifest(image).layers) == 1


def _index(client: Registry, repo: ImageRef, *arches: str) -> ImageRef:
    entries = []
    for arch in arches:
        image = push_image(client, repo, [layer(file(arch))], arch=arch)
        entry = client.manifest(image).descriptor.to_dict()
        entries.append({**entry, "platform": {"architecture": arch, "os": "linux"}})
    index = canonical({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    return repo.at(client.push_manifest(repo, index, OCI_INDEX, "multi"))


def test_of_an_index_the_architecture_is_chosen(registry: LoopbackRegistry, client: Registry) -> None:
    index = _index(client, registry.repo("images/index"), "amd64", "arm64")
    assert client.config(index, AARCH64).architecture == "arm64"
    assert client.config(index, X86_64).architecture == "amd64"
    with pytest.raises(InvalidError, match="several architectures"):
        client.manifest(index)


def test_an_index_without_the_architecture_says_what_it_has(registry: LoopbackRegistry, client: Registry) -> None:
    index = _index(client, registry.repo("images/index-one"), "amd64")
    assert client.config(index).architecture == "amd64"
    with pytest.raises(NotFoundError, match="aarch64") as caught:
        client.manifest(index, AARCH64)
    assert "amd64" in str(caught.value)


def test_copy_mounts_within_a_registry_and_transfers_between_two(
    registry: LoopbackRegistry, client: Registry, tmp_path: Path
) -> None:
    image = push_image(client, registry.repo("copy/from"), [layer(file("a", os.urandom(5000)))], tag="x")
    inside = registry.repo("copy/to")
    assert client.copy(image, inside, ["v1", "v2"]) == image.digest
    assert client.tags(inside) == ("v1", "v2")
    with running_registry(tmp_path) as other:
        outside = Registry(RegistryAccess(insecure=(registry.host, other.host)))
        assert outside.copy(image, other.repo("far"), ["v1"]) == image.digest
        assert other.client.config(other.repo("far").tagged("v1")).architecture == "amd64"


def test_copy_takes_all_images_of_an_index(registry: LoopbackRegistry, client: Registry) -> None:
    index = _index(client, registry.repo("copy/index"), "amd64", "arm64")
    target = registry.repo("copy/index-to")
    assert client.copy(index, target, ["all"]) == index.digest
    assert client.config(target.tagged("all"), AARCH64).architecture == "arm64"


def test_all_tags_are_listed(registry: LoopbackRegistry, client: Registry) -> None:
    repo = registry.repo("tags/many")
    wanted = tuple(f"t{number}" for number in range(9))
    client.tag(push_image(client, repo, [layer()]), wanted)
    assert tuple(sorted(client.tags(repo))) == wanted
    assert client.tags(registry.repo("tags/none")) == ()


def test_tags_are_listed_over_all_pages(registry: LoopbackRegistry) -> None:
    """docker-registry 2.8 gives all at once; the proxy plays a registry that pages."""
    pages = {"": ["a", "b"], "b": ["c", "d"], "d": ["e"]}

    def page(exchange: Exchange) -> bool:
        last = exchange.path.partition("last=")[2]
        more = {"Link": f'</v2/tags/paged/tags/list?n=2&last={pages[last][-1]}>; rel="next"'} if last != "d" else {}
        return exchange.say(Answer(200, more, json.dumps({"name": "tags/paged", "tags": pages[last]}).encode()))

    with proxied(registry.host) as proxy:
        proxy.faults.append(on("GET", "/tags/list", page))
        assert proxy.client().tags(proxy.repo("tags/paged")) == ("a", "b", "c", "d", "e")


def test_a_blob_that_is_missed_for_a_moment_is_found(registry: LoopbackRegistry) -> None:
    """Of two who push the same blob, one may be told so by a registry on a file system."""
    body = json.dumps({"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry"}]}).encode()
    with proxied(registry.host) as proxy:
        proxy.faults.append(on("PUT", "/manifests/", lambda one: one.say(Answer(400, {}, body)), times=2))
        assert proxy.client().exists(push_image(proxy.client(), proxy.repo("moment/found"), [layer(file("a"))]))
        proxy.faults[:] = [on("PUT", "/manifests/", lambda one: one.say(Answer(400, {}, body)))]
        with pytest.raises(RunFailedError, match=r"refuses(?s:.*)blob unknown to registry"):
            push_image(proxy.client(), proxy.repo("moment/missing"), [layer(file("a"))])


def test_attached_files_are_listed_by_type_and_once(registry: LoopbackRegistry, client: Registry) -> None:
    """docker-registry 2.8 has no referrers API: this is the tag fallback."""
    repo = registry.repo("attach/here")
    image = push_image(client, repo, [layer()])
    first = client.attach(image, "application/vnd.test.a", {"a.json": b"{}"}, {"note": "one"})
    again = client.attach(image, "application/vnd.test.a", {"a.json": b"{}"}, {"note": "one"})
    client.attach(image, "application/vnd.test.b", {"b.json": b"[]"})
    assert first == again
    assert len(client.referrers(image)) == 2
    (found,) = client.referrers(image, "application/vnd.test.a")
    assert found.annotations == {"note": "one"}
    manifest = client.manifest(repo.at(found.digest))
    assert manifest.subject == image.digest
    assert client.read_blob(repo, manifest.layers[0]) == b"{}"
    assert client.tags(repo) == (image.digest.replace(":", "-"),)


def test_other_tools_read_what_we_push(registry: LoopbackRegistry, client: Registry) -> None:
    repo = registry.repo("skopeo/reads")
    image = push_image(client, repo, [layer(file("a"))], tag="v1", labels={"k": "v"})
    told = process.run(["skopeo", "inspect", "--tls-verify=false", f"docker://{repo.tagged('v1')}"], timeout=60)
    assert json.loads(told.output)["Digest"] == image.digest


def test_an_artifact_is_pushed_with_files_of_any_size(registry: LoopbackRegistry, client: Registry) -> None:
    repo, big = registry.repo("artifact/kernel"), os.urandom(2**21)
    one = client.push_artifact(repo, "application/vnd.test.kernel", {"vmlinuz": io.BytesIO(big)}, tag="k")
    two = client.push_artifact(repo, "application/vnd.test.kernel", {"vmlinuz": io.BytesIO(big)}, tag="k")
    assert one == two
    manifest = client.manifest(repo.tagged("k"))
    assert manifest.artifact_type == "application/vnd.test.kernel"
    (found,) = manifest.layers
    assert found.annotations == {"org.opencontainers.image.title": "vmlinuz"}
    with client.open_blob(repo, found) as blob:
        assert blob.readall() == big


def test_delete_by_digest_takes_the_tags_along(registry: LoopbackRegistry, client: Registry) -> None:
    repo = registry.repo("delete/digest")
    image = push_image(client, repo, [layer()], tag="v1")
    client.delete(image)
    assert not client.exists(repo.tagged("v1"))


def test_untag_leaves_other_tags_of_the_same_digest(registry: LoopbackRegistry, client: Registry) -> None:
    repo = registry.repo("delete/tag")
    image = push_image(client, repo, [layer()], tag="mine")
    client.tag(image, ["yours"])
    client.untag(repo.tagged("mine"))
    assert client.tags(repo) == ("yours",)
    assert client.digest(repo.tagged("yours")) == image.digest


def test_a_registry_that_does_not_delete_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    with running_registry(tmp_path, delete=False) as fixed:
        image = push_image(fixed.client, fixed.repo("kept"), [layer()], tag="v1")
        with pytest.raises(UnsupportedError, match=fixed.host):
            fixed.client.untag(fixed.repo("kept").tagged("v1"))
        assert fixed.client.digest(fixed.repo("kept").tagged("v1")) == image.digest


def test_what_is_not_there_is_said_with_host_and_reference(registry: LoopbackRegistry, client: Registry) -> None:
    with pytest.raises(NotFoundError, match=rf"{registry.host}/no/such:v9"):
        client.manifest(registry.repo("no/such").tagged("v9"))


def test_a_registry_that_is_down_is_named() -> None:
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableError, match=host):
        Registry(RegistryAccess(insecure=(host,)), QUICK).digest(ImageRef(host, "a", "b"))


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(UnreachableError, match=r"registry\.invalid"):
        Registry(RegistryAccess(), QUICK).digest(ImageRef("registry.invalid", "a", "b"))


# Credentials


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackRegistry]:
    with running_registry(tmp_path_factory.mktemp("guarded"), htpasswd=HTPASSWD) as running:
        yield running


def _auth_file(path: Path, entries: dict[str, str]) -> Path:
    auths = {key: {"auth": base64.b64encode(value.encode()).decode()} for key, value in entries.items()}
    path.write_text(json.dumps({"auths": auths}))
    return path


def test_credentials_come_from_the_auth_file(guarded: LoopbackRegistry, tmp_path: Path) -> None:
    auth = _auth_file(tmp_path / "auth.json", {guarded.host: "ci:secret"})
    access = access_from([guarded.host], "", {"REGISTRY_AUTH_FILE": str(auth)})
    image = push_image(Registry(access), guarded.repo("org/a"), [layer()], tag="v1")
    assert Registry(access).digest(guarded.repo("org/a").tagged("v1")) == image.digest


def test_the_entry_of_the_repository_wins(guarded: LoopbackRegistry, tmp_path: Path) -> None:
    auth = _auth_file(tmp_path / "auth.json", {guarded.host: "ci:wrong", f"{guarded.host}/org": "ci:secret"})
    access = access_from([guarded.host], "", {"REGISTRY_AUTH_FILE": str(auth)})
    push_image(Registry(access), guarded.repo("org/b"), [layer()])
    with pytest.raises(NotAllowedError):
        push_image(Registry(access), guarded.repo("other/b"), [layer()])


def test_refused_credentials_are_named_and_not_shown(guarded: LoopbackRegistry, tmp_path: Path) -> None:
    auth = _auth_file(tmp_path / "auth.json", {guarded.host: "ci:hunter2"})
    access = access_from([guarded.host], "", {"REGISTRY_AUTH_FILE": str(auth)})
    with pytest.raises(NotAllowedError) as caught:
        Registry(access, QUICK).digest(guarded.repo("org/a").tagged("v1"))
    text = str(caught.value)
    assert guarded.host in text
    assert str(auth) in text
    assert "hunter2" not in text + repr(caught.value)
    assert base64.b64encode(b"ci:hunter2").decode() not in text


def test_no_credentials_say_where_we_looked(guarded: LoopbackRegistry, tmp_path: Path) -> None:
    missing = tmp_path / "none.json"
    access = access_from([guarded.host], "", {"REGISTRY_AUTH_FILE": str(missing)})
    with pytest.raises(NotAllowedError, match=f"{missing} does not exist"):
        Registry(access, QUICK).digest(guarded.repo("org/a").tagged("v1"))


def test_a_credential_helper_is_asked(
    guarded: LoopbackRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "bin/docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(
        '#!/bin/sh\nread -r server\n[ "$1" = get ] || exit 1\n'
        f'[ "$server" = "{guarded.host}" ] || {{ echo credentials not found in native keychain; exit 1; }}\n'
        'echo \'{"ServerURL": "x", "Username": "ci", "Secret": "secret"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    auth = tmp_path / "auth.json"
    for content in (
        {"credHelpers": {guarded.host: "test"}},
        {"credsStore": "test", "auths": {guarded.host: {}}},
    ):
        auth.write_text(json.dumps(content))
        access = access_from([guarded.host], "", {"REGISTRY_AUTH_FILE": str(auth)})
        push_image(Registry(access), guarded.repo("org/helper"), [layer()])


# TLS


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackRegistry]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    process.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
            "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        timeout=60,
    )  # fmt: skip
    with running_registry(folder / "registry", tls=(certificate, key), ca=certificate.read_text()) as running:
        yield running


def test_an_own_authority_is_trusted_when_given(secure: LoopbackRegistry) -> None:
    image = push_image(secure.client, secure.repo("a"), [layer()], tag="v1")
    assert secure.client.digest(secure.repo("a").tagged("v1")) == image.digest


def test_an_unknown_authority_is_refused_by_name(secure: LoopbackRegistry) -> None:
    with pytest.raises(UnreachableError, match=secure.host) as caught:
        Registry(RegistryAccess(), QUICK).digest(secure.repo("a").tagged("v1"))
    assert "certificate" in str(caught.value)


def test_an_insecure_host_may_have_any_certificate(secure: LoopbackRegistry) -> None:
    assert Registry(RegistryAccess(insecure=(secure.host,)), QUICK).tags(secure.repo("zz")) == ()


def test_plain_http_is_not_spoken_unless_asked_for(registry: LoopbackRegistry) -> None:
    with pytest.raises(UnreachableError, match=registry.host):
        Registry(RegistryAccess(), QUICK).tags(registry.repo("a"))


def test_a_manifest_is_the_same_bytes_after_parsing() -> None:
    config = b'"config":{"mediaType":"x",  "digest":"sha256:' + b"0" * 64 + b'","size":2}'
    body = b'{"schemaVersion":2,  "mediaType":"application/vnd.oci.image.manifest.v1+json",' + config + b',"layers":[]}'
    assert Manifest.parse(body, OCI_MANIFEST).body == body


def test_certificates_of_a_host(tmp_path: Path) -> None:
    """containers-certs.d(5): the authority of a registry, and the certificate that it wants of us."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    process.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
            "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        timeout=60,
    )  # fmt: skip
    with running_registry(tmp_path / "registry", tls=(certificate, key), clients=certificate) as running:
        own = tmp_path / "home/.config/containers/certs.d" / running.host
        own.mkdir(parents=True)
        (own / "ca.crt").write_bytes(certificate.read_bytes())
        access = access_from([], "", {"HOME": str(tmp_path / "home")})
        with pytest.raises(UnreachableError):
            push_image(Registry(access, QUICK), running.repo("a"), [layer()])
        (own / "client.cert").write_bytes(certificate.read_bytes())
        with pytest.raises(InvalidError, match="certificates in"):
            push_image(Registry(access, QUICK), running.repo("a"), [layer()])
        (own / "client.key").write_bytes(key.read_bytes())
        image = push_image(Registry(access, QUICK), running.repo("a"), [layer()], tag="v1")
        assert Registry(access).digest(running.repo("a").tagged("v1")) == image.digest


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize("bypass", ["NO_PROXY", "no_proxy"])
def test_proxies_count_and_their_exceptions(
    registry: LoopbackRegistry, monkeypatch: pytest.MonkeyPatch, name: str, bypass: str
) -> None:
    for variable in ("HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    repo = registry.repo("registry/proxies")
    pushed = push_image(registry.client, repo, [layer()], tag="v1")
    with proxied(registry.host) as proxy:
        monkeypatch.setenv(name, f"http://{proxy.host}")
        assert Registry(registry.access).digest(repo.tagged("v1")) == pushed.digest
        assert [one.path for one in proxy.requests if one.method == "HEAD"] == [
            f"http://{registry.host}/v2/{repo.repository}/manifests/v1"
        ]
        proxy.requests.clear()
        monkeypatch.setenv(bypass, "localhost,127.0.0.1")
        assert Registry(registry.access).digest(repo.tagged("v1")) == pushed.digest
        assert proxy.requests == []
