"""Input that is broken on purpose, as users of `dtkpipe resolve` meet it: one clear error, the documented exit code,
and no further request once something could not be parsed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dtkpipe.errors import RunFailedError
from dtkpipe.releases.resolver import Choice
from dtkpipe.values.arch import X86_64
from tests.fixtures.cli import Cli, Said
from tests.fixtures.faults import Answer, Exchange, on
from tests.fixtures.images import file, layer, push_image
from tests.fixtures.openshift import KERNEL, Site

CORPUS: list[bytes] = [
    b"", b"\xff\xfe", b"\x00", b"{", b"[]", b"null", b"7", b"[" * 100_000, b'{"a":' * 100_000, b"<html>",
    b'{"schemaVersion": 2, "layers": 7}', b'{"schemaVersion": 2, "layers": [{"size": -1}]}',
    b'{"schemaVersion": 2, "config": {"digest": "sha256:..", "size": 1e400, "mediaType": "x"}, "layers": []}',
    b'{"nodes": [{"version": "4.16.1", "payload": 7}]}',
]  # fmt: skip
"""What comes instead of documents."""


def _asked(cli: Cli, site: Site, folder: Path, *words: str | Path, mirrors: bytes | None = None, **env: str) -> Said:
    sets = folder / "mirrors.yaml"
    sets.write_bytes(site.openshift.mirrors().encode() if mirrors is None else mirrors)
    where = ["--registry-mirrors", sets, "--insecure-registry", site.proxy.host, "--lock", site.folder]
    said = cli("resolve", "--arch", "x86_64", *words, *where, env=env)
    assert "Traceback" not in said.err
    assert said.out == ""
    return said


@pytest.mark.parametrize(
    ("words", "mirrors", "lock", "code", "said"),
    [
        (["--release", "4.16.600"], b"kind: [", b"", 6, "is not YAML"),
        (["--release", "4.16.600"], b"\xff", b"", 2, "is not a text file"),
        (["--release", "4.16.600"], b"{}", b"", 6, "names no mirrors"),
        (["--release", "4.16.600"], None, b"# x\n- {nonsense}\n", 6, "4.16.yaml:2: "),
        (["--kernel", KERNEL], None, b"\n\n- []\n", 6, "4.16.yaml:3: "),
        (["--release-image", "../../etc/passwd"], None, b"", 6, "is not an image reference"),
        (["--release", "4.16..3"], None, b"", 5, "no release is known"),
    ],
)  # fmt: skip
def test_what_cannot_be_parsed_asks_nobody(
    site: Site, cli: Cli, tmp_path: Path, words: list[str], mirrors: bytes | None, lock: bytes, code: int, said: str
) -> None:
    if lock:
        site.folder.mkdir()
        (site.folder / "4.16.yaml").write_bytes(lock)
    done = _asked(cli, site, tmp_path, *words, mirrors=mirrors)
    assert done.code == code, done.err
    assert said in done.err
    assert site.proxy.requests == []


@pytest.mark.parametrize("body", CORPUS)
def test_a_manifest_that_is_none_ends_it(site: Site, body: bytes) -> None:
    site.proxy.faults.append(on("GET", "/manifests/", lambda one: one.say(Answer(200, body=body))))
    with pytest.raises(RunFailedError) as failed:
        site.ask("4.16.601")
    assert failed.value.exit_code == 10
    assert site.proxy.count("GET", "/manifests/") == 1
    assert site.proxy.count("GET", "/blobs/") == 0


@pytest.mark.parametrize("body", CORPUS)
def test_a_graph_that_is_none_ends_it(site: Site, cli: Cli, tmp_path: Path, body: bytes) -> None:
    site.proxy.faults.append(on("GET", "/graph", lambda one: one.say(Answer(200, body=body))))
    graph = f"http://{site.proxy.host}/graph"
    done = _asked(cli, site, tmp_path, "--release", "stable-4.16", "--graph", graph)
    # An object without releases is a channel without releases.
    assert done.code == (5 if body.startswith(b'{"schemaVersion"') else 10), done.err
    assert {one.path.partition("?")[0] for one in site.proxy.requests} == {"/graph"}


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"auths": 7}', b'{"auths": {"%s": {"auth": "hunter2"}}}'])
def test_credentials_that_are_none_end_it(site: Site, cli: Cli, tmp_path: Path, body: bytes) -> None:
    site.openshift.standard("4.16.602")
    site.proxy.faults.append(on("GET", "ocp-release/", lambda one: one.say(Answer(401, {"WWW-Authenticate": "Basic"}))))
    auth = tmp_path / "auth.json"
    auth.write_bytes(body.replace(b"%s", site.proxy.host.encode()))
    done = _asked(cli, site, tmp_path, "--release", "4.16.602", REGISTRY_AUTH_FILE=str(auth))
    assert (done.code, str(auth) in done.err, "hunter2" in done.err) == (6, True, False), done.err
    assert site.proxy.count("GET", "ocp-release/") == 1


# Registries that lie about a toolkit


def _shorter(one: Exchange) -> bool:
    return one.say(Answer(200, body=one.fetch().body[:-9]))


def _longer(one: Exchange) -> bool:
    return one.say(Answer(200, body=one.fetch().body + bytes(9)))


def _other(one: Exchange) -> bool:
    return one.say(Answer(200, body=bytes(len(one.fetch().body))))


def _relabelled(one: Exchange) -> bool:
    kind = {"Content-Type": "application/vnd.oci.image.index.v1+json"}
    return one.say(Answer(200, kind, one.fetch().body))


@pytest.mark.parametrize(
    ("part", "lie"), [*[("/blobs/", lie) for lie in (_shorter, _longer, _other)], ("/manifests/", _relabelled)]
)
def test_a_registry_that_lies_about_a_toolkit(site: Site, part: str, lie: Callable[[Exchange], bool]) -> None:
    toolkit = site.openshift.toolkit()
    site.proxy.faults.append(on("GET", f"ocp-v4.0-art-dev{part}", lie))
    with pytest.raises(RunFailedError) as failed:
        site.resolver.toolkit(toolkit, Choice(arch=X86_64))
    assert site.proxy.host in str(failed.value)


def test_a_layer_with_files_without_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtkpipe.clients.layers.MEMBERS", 1000)
    shift = site.openshift
    many = layer(*(file(f"release-manifests/{number:05}") for number in range(2000)))
    push_image(shift.client, shift.releases, [many], tag="4.16.603-x86_64")
    with pytest.raises(RunFailedError, match="more than 1000 files"):
        site.ask("4.16.603")


# Clocks


@pytest.mark.parametrize(
    "claims",
    [
        {}, {"expires_in": 0}, {"expires_in": -60}, {"expires_in": 10**12}, {"expires_in": "soon"},
        {"expires_in": 300, "issued_at": "1970-01-01T00:00:00Z"},
        {"expires_in": 300, "issued_at": "2999-01-01T00:00:00Z"}, {"issued_at": "never"},
    ],
)  # fmt: skip
def test_clocks_that_differ(site: Site, claims: dict[str, object]) -> None:
    """Whether a token still counts is the registry's word alone: here each counts for three requests."""
    given: list[str] = []
    used: list[str] = []

    def guard(one: Exchange) -> bool:
        if one.path.startswith("/token"):
            given.append(f"t{len(given)}")
            return one.say(Answer(200, body=json.dumps({"token": given[-1], **claims}).encode()))
        if one.path == "/v2/":
            return False
        bearer = str(one.headers.get("Authorization") or "").removeprefix("Bearer ")
        if bearer in given and used.count(bearer) < 3:
            used.append(bearer)
            return False
        realm = f'Bearer realm="http://{site.proxy.host}/token",service="test"'
        return one.say(Answer(401, {"WWW-Authenticate": realm}))

    site.openshift.standard("4.16.604")
    site.proxy.faults.append(guard)
    assert str(site.ask("4.16.604").kernel) == KERNEL
    assert 2 <= len(given) <= 6
