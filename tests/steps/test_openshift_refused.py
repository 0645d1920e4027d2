"""Releases that cannot be resolved: unknown, contradicting, broken and hostile ones; mirrors and credentials."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dtkpipe.clients.registry import Registry
from dtkpipe.errors import InvalidError, NotAllowedError, NotFoundError, RunFailedError, UnreachableError
from dtkpipe.releases.images import CONTENT, RELEASES
from dtkpipe.releases.resolver import Choice, resolver_for
from dtkpipe.tools import process
from dtkpipe.tools.buildah import Buildah
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.arch import AARCH64, X86_64
from dtkpipe.values.mirrors import parse_mirrors
from dtkpipe.values.version import Wanted
from tests.fixtures.faults import QUICK, Exchange, on
from tests.fixtures.faults import Answer as Reply
from tests.fixtures.images import file, layer, push_image
from tests.fixtures.openshift import KERNEL, OpenShift, Site, known
from tests.fixtures.registry import running_registry

HTPASSWD = "ci:$2b$04$dc20hbeYb1WNZhv0xaQxcuKuSOCkQ7idqgEnCc90o3/I4eSckq0Ve\n"

# What goes wrong


def test_unknown_release_names_the_nearest(site: Site) -> None:
    site.know(known("4.16.3"), known("4.16.5"))
    with pytest.raises(NotFoundError, match=r"there is no OpenShift 4\.16\.4") as failed:
        site.ask("4.16.4")
    assert "4.16.3, 4.16.5" in str(failed.value)


def test_digest_is_known_without_a_pull_secret(site: Site) -> None:
    site.openshift.standard("4.16.140")
    site.proxy.faults.append(on("GET", "ocp-v4.0-art-dev", lambda one: one.say(Reply(401, {}, b"{}"))))
    answer = site.ask("4.16.140")
    assert answer.toolkit is not None
    assert answer.kernel is None
    assert isinstance(answer.missing, NotAllowedError)
    assert "no credentials used" in str(answer.missing)


def test_a_variant_that_nobody_could_be_asked_for(site: Site) -> None:
    """The lock knows one kernel of the toolkit; that is not to say that the toolkit has no other."""
    site.know(known("4.16.141", KERNEL))
    site.proxy.faults.append(on("GET", "ocp-v4.0-art-dev", lambda one: one.say(Reply(401, {}, b"{}"))))
    answer = site.ask("4.16.141", variant="rt")
    assert (answer.kernel, isinstance(answer.missing, NotAllowedError)) == (None, True)
    assert any("operating system not read" in line for line in answer.how) == bool(answer.os_image)


def test_the_lock_answers_first_and_alone(site: Site) -> None:
    row = known("4.16.6", kernel=KERNEL)
    site.know(row)
    answer = site.ask("4.16")
    assert (str(answer.kernel), answer.release, answer.toolkit) == (KERNEL, "4.16.6", CONTENT.at(row.toolkit))
    assert "4.16 is 4.16.6" in answer.how[0]
    assert site.proxy.requests == []
    with pytest.raises(NotFoundError, match="the lock does not know"):
        site.ask("4.16.6", arch=AARCH64, via="lock")


def test_a_registry_that_contradicts_the_lock(site: Site) -> None:
    site.openshift.standard("4.16.150")
    site.know(known("4.16.150"))
    with pytest.raises(InvalidError, match="toolkit is not what the lock says") as failed:
        site.ask("4.16.150", via="payload")
    assert str(failed.value).count("sha256:") == 2


def test_a_tag_that_is_another_release(site: Site) -> None:
    images = {"driver-toolkit": site.openshift.toolkit(), "rhel-coreos": site.openshift.system()}
    site.openshift.release("4.16.160", images, says="4.16.161")
    with pytest.raises(RunFailedError, match=r"is not OpenShift 4\.16\.160"):
        site.ask("4.16.160")


def test_an_image_that_is_no_release(site: Site) -> None:
    toolkit = site.openshift.toolkit()
    with pytest.raises(NotFoundError, match="is not an OpenShift release"):
        site.resolver.release_image(toolkit, Choice(arch=X86_64))


def _tagged(tags: object) -> bytes:
    return json.dumps({"metadata": {"name": "4.16.170"}, "spec": {"tags": tags}}).encode()


def _toolkit_at(name: str) -> bytes:
    return _tagged([{"name": "driver-toolkit", "from": {"kind": "DockerImage", "name": name}}])


BROKEN = [
    b"", b"{", b"[]", b"null", b'{"metadata": {"name": "x"}}', b"[" * 100_000, _tagged(3), _tagged(["a"]),
    _tagged([{"name": "driver-toolkit"}]), _toolkit_at("../../etc/passwd"), _toolkit_at("quay.io/a/b:latest"),
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_image_references_that_are_none(site: Site, text: bytes) -> None:
    site.openshift.release("4.16.170", {}, references=text)
    with pytest.raises(RunFailedError, match="image-references"):
        site.ask("4.16.170")
    assert sum("ocp-v4.0" in one.path for one in site.proxy.requests) == 0


def test_a_layer_that_unpacks_without_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtkpipe.releases.payload._LAYER", 4 * 2**20)
    bomb = layer(file("release-manifests/aaa", bytes(16 * 2**20)), file("release-manifests/image-references", b"{}"))
    shift = site.openshift
    push_image(shift.client, shift.releases, [bomb], tag="4.16.180-x86_64")
    with pytest.raises(RunFailedError, match="unpacks to more than"):
        site.ask("4.16.180")


def test_a_layer_with_a_path_that_leads_out(site: Site) -> None:
    shift = site.openshift
    push_image(
        shift.client, shift.releases, [layer(file("../release-manifests/image-references"))], tag="4.16.181-x86_64"
    )
    with pytest.raises(RunFailedError, match="leads out of the image"):
        site.ask("4.16.181")


def test_a_registry_that_lies(site: Site) -> None:
    site.openshift.standard("4.16.190")

    def damaged(one: Exchange) -> bool:
        got = one.fetch()
        got.body = got.body[:-1] + bytes([got.body[-1] ^ 1])
        return one.say(got)

    site.proxy.faults.append(on("GET", "ocp-release/blobs", damaged))
    with pytest.raises(RunFailedError):
        site.ask("4.16.190")


# Mirrors and credentials


def test_oc_mirror_has_releases_where_its_digests_are(site: Site) -> None:
    site.openshift.standard("4.16.200")
    access = site.proxy.access(mirrors=parse_mirrors(site.openshift.mirrors(tags=False)))
    resolver = resolver_for(site.folder, lambda: Registry(access, QUICK))
    answer = resolver.release(Wanted.parse("4.16.200"), Choice(arch=X86_64))
    assert str(answer.kernel) == KERNEL


def test_a_mirror_without_the_content(site: Site) -> None:
    site.openshift.release("4.16.210", {"driver-toolkit": CONTENT.at("sha256:" + "e" * 64)})
    answer = site.ask("4.16.210")
    assert isinstance(answer.missing, NotFoundError)
    assert f"{site.proxy.host}/openshift-release-dev/ocp-v4.0-art-dev" in str(answer.missing)
    assert "never asked" in str(answer.missing)


def test_password_and_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    process.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
         "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"],
        timeout=60,
    )  # fmt: skip
    ca = certificate.read_text()
    auth = tmp_path / "auth.json"
    with running_registry(tmp_path / "r", htpasswd=HTPASSWD, tls=(certificate, key), ca=ca) as real:
        auth.write_text(json.dumps({"auths": {real.host: {"username": "ci", "password": "secret"}}}))
        access = RegistryAccess(ca=ca, auth_file=auth)
        shift = OpenShift(Registry(access), real.host, real.host)
        shift.standard("4.16.220")
        mirrors = parse_mirrors(shift.mirrors())
        good = resolver_for(tmp_path / "lock", lambda: Registry(replace(access, mirrors=mirrors), QUICK))
        assert str(good.release(Wanted.parse("4.16.220"), Choice(arch=X86_64)).kernel) == KERNEL
        auth.write_text(json.dumps({"auths": {real.host: {"username": "ci", "password": "hunter2"}}}))
        missing = tmp_path / "none.json"
        for used, said in ((auth, f"entry `{real.host}` of {auth}"), (missing, f"{missing} does not exist")):
            asking = replace(access, mirrors=mirrors, auth_file=used)
            resolver = resolver_for(tmp_path / "lock", lambda asking=asking: Registry(asking, QUICK))
            with pytest.raises(NotAllowedError) as failed:
                resolver.release(Wanted.parse("4.16.220"), Choice(arch=X86_64))
            assert said in str(failed.value)
            assert "hunter2" not in str(failed.value)


def test_nobody_answers(tmp_path: Path) -> None:
    access = RegistryAccess(insecure=("127.0.0.1:9",))
    releases = replace(RELEASES, registry="127.0.0.1:9")
    resolver = resolver_for(tmp_path, lambda: Registry(access, QUICK), releases=releases)
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        resolver.release(Wanted.parse("4.16.1"), Choice(arch=X86_64))


def test_buildah_pulls_from_the_mirrors_too(site: Site, tmp_path: Path) -> None:
    toolkit = site.openshift.toolkit()
    access = site.proxy.access(mirrors=parse_mirrors(site.openshift.mirrors()))
    assert Buildah(tmp_path / "storage", access).pull(toolkit).startswith("sha256:")
    assert site.proxy.count("GET", "ocp-v4.0-art-dev") > 0
