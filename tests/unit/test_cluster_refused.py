"""What a cluster, or a kubeconfig, says against us, in the user's words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from dtkpipe.clients.cluster import PODS, Cluster, resource_of
from dtkpipe.clients.cluster.connection import _expired
from dtkpipe.clients.cluster.refusals import Asked, refused
from dtkpipe.errors import (
    ConflictError,
    DtkpipeError,
    ExistsError,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    UnreachableError,
)
from tests.fixtures.api import FakeApi, fake_api, refusal
from tests.fixtures.cli import Cli
from tests.fixtures.keys import DAY, certificate, ec_key

ASKED = Asked(verb="create", words="workflows.argoproj.io", namespace="team", name="a")


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as found:
        yield found


def said(code: int, reason: str, message: str, **details: object) -> DtkpipeError:
    body = json.dumps(refusal(code, reason, message, **details).body).encode()
    return refused(code, body, ASKED, "https://api")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (said(401, "Unauthorized", "Unauthorized"), NotAllowedError, "the cluster does not know you"),
        (
            said(403, "Forbidden", 'workflows.argoproj.io is forbidden: User "u" cannot create resource'),
            NotAllowedError,
            "you are not allowed to create workflows.argoproj.io/a in namespace team",
        ),
        (
            said(403, "Forbidden", 'pods "a" is forbidden: exceeded quota: q, requested: w=1, limited: w=0'),
            NotAllowedError,
            "the quota of namespace team is used up",
        ),
        (
            said(403, "Forbidden", "being terminated", causes=[{"reason": "NamespaceTerminating"}]),
            NotAllowedError,
            "namespace team is being deleted",
        ),
        (
            said(403, "Forbidden", 'pods "a" is forbidden: violates PodSecurity "restricted:latest": privileged'),
            NotAllowedError,
            "Pod Security of namespace team forbids",
        ),
        (
            said(400, "BadRequest", 'admission webhook "v.tekton.dev" denied the request: validation failed: x'),
            InvalidError,
            "the admission webhook v.tekton.dev refuses",
        ),
        (
            said(500, "InternalError", 'failed calling webhook "w.x": Post "https://y": connection refused'),
            UnreachableError,
            "the admission webhook w.x does not answer",
        ),
        (said(409, "AlreadyExists", 'workflows "a" already exists'), ExistsError, "there is one of that name already"),
        (said(409, "Conflict", "the object has been modified"), ConflictError, "somebody changed it"),
        (said(404, "NotFound", 'namespaces "team" not found', kind="namespaces", name="team"), NotFoundError,
         "there is no namespace `team`"),
        (said(404, "NotFound", 'workflows "a" not found', kind="workflows", name="a"), NotFoundError, "there is none"),
        (refused(404, b"404 page not found", ASKED, "h"), NotFoundError, "does not know workflows.argoproj.io"),
        (
            said(422, "Invalid", "x", causes=[{"field": "spec.a", "message": "Required value"}]),
            InvalidError,
            "spec.a: Required value",
        ),
        (said(503, "ServiceUnavailable", "etcd"), UnreachableError, "the cluster fails"),
        (refused(502, b"<html>\x1b[31m", ASKED, "h"), UnreachableError, "answered 502"),
    ],
)  # fmt: skip
def test_every_refusal_has_its_words(error: DtkpipeError, kind: type[DtkpipeError], words: str) -> None:
    assert (type(error), words in str(error)) == (kind, True), str(error)
    assert "\x1b" not in str(error)


def submit(cli: Cli, *words: str | Path) -> tuple[int, str]:
    done = cli("submit", "--engine", "argo", "--release", "debian-12", "--repo", "https://example.org/kmod",
               "--ref", "1" * 40, "--push-to", "registry.example.org/kmod", *words)  # fmt: skip
    assert "Traceback" not in done.err
    return done.code, done.err


def test_a_kubeconfig_that_is_not_there(cli: Cli) -> None:
    code, err = submit(cli, "--kubeconfig", "none.yaml")
    assert (code, "there is no kubeconfig: none.yaml" in err, "hint: --kubeconfig FILE" in err) == (6, True, True)


@pytest.mark.parametrize("text", ["", "[", "a: b", "contexts: 7\ncurrent-context: x", "\x00", "contexts: [{name: x}]"])
def test_a_kubeconfig_that_is_none(cli: Cli, text: str) -> None:
    (cli.here / "kubeconfig").write_text(text)
    code, err = submit(cli, "--kubeconfig", "kubeconfig")
    assert (code in (5, 6), "error: " in err) == (True, True), err


def test_a_context_that_is_not_there(cli: Cli, api: FakeApi) -> None:
    api.kubeconfig(cli.here / "kubeconfig")
    code, err = submit(cli, "--kubeconfig", "kubeconfig", "--context", "three")
    assert (code, "there is no context `three`" in err, "contexts: one, two" in err) == (5, True, True)
    api.give(refusal(401, "Unauthorized", "Unauthorized"))
    code, err = submit(cli, "--kubeconfig", "kubeconfig", "--context", "two")
    assert (code, "the cluster does not know you" in err, "context: two" in err) == (4, True, True)
    assert "s3cr3t" not in err


def test_a_cluster_that_is_away(cli: Cli) -> None:
    with fake_api() as api:
        api.kubeconfig(cli.here / "kubeconfig")
    code, err = submit(cli, "--kubeconfig", "kubeconfig")
    assert (code, "cannot be reached" in err) == (7, True)
    done = cli("submit", "--repo", ".", "--release", "debian-12", env={"KUBECONFIG": "kubeconfig"})
    assert (done.code, "--engine local for this machine" in done.err) == (7, True), done.err


def test_a_certificate_that_ran_out(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    for end, said in ((-DAY, 1), (DAY, 0)):
        file.write_bytes(certificate(ec_key(), start=-9 * DAY, end=end).public_bytes(Encoding.PEM))
        found = _expired(str(file))
        assert (len(found), "your certificate expired on 20" in "".join(found)) == (said, bool(said))
    file.write_text("none")
    assert _expired(str(file)) == _expired(None) == []


def test_the_pod_or_kubeconfig_says_the_namespace(api: FakeApi, tmp_path: Path) -> None:
    cluster = Cluster(api.kubeconfig(tmp_path / "kubeconfig"))
    assert (cluster.namespace, cluster.context, cluster.host) == ("here", "one", api.url)


def test_objects_of_kinds_that_are_not_known() -> None:
    assert resource_of({"apiVersion": "v1", "kind": "Pod"}) is PODS
    with pytest.raises(InvalidError, match=r"no kind \(no apiVersion\)"):
        resource_of({})
