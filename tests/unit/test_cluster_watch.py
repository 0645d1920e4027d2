"""The cluster client where connections break, versions are forgotten and answers are none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.clients.cluster import PODS, Cluster
from dtkpipe.errors import NotAllowedError, NotFoundError, UnreachableError
from tests.fixtures.api import DROP, Answer, FakeApi, event, fake_api, listed, refusal, thing

FORBIDDEN = refusal(403, "Forbidden", 'pods is forbidden: User "x" cannot watch resource "pods"')
GONE = refusal(410, "Expired", "too old resource version: 1 (9)")


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as found:
        yield found


@pytest.fixture
def cluster(api: FakeApi, tmp_path: Path) -> Cluster:
    return Cluster(api.kubeconfig(tmp_path / "kubeconfig"))


def seen(cluster: Cluster, number: int, **how: Any) -> list[tuple[str, str, str]]:
    """Return kind, name and version of the first events of a watch."""
    events = cluster.watch(PODS, "here", **how)
    found = [
        (kind, one["metadata"]["name"], one["metadata"]["resourceVersion"]) for kind, one in islice(events, number)
    ]
    events.close()  # type: ignore[attr-defined]
    return found


def test_a_connection_that_drops_is_taken_up_where_it_was(api: FakeApi, cluster: Cluster) -> None:
    api.give(
        listed(5, thing("a", 3)),
        Answer(lines=[event("MODIFIED", thing("a", 6)), event("BOOKMARK", thing("", 8)), DROP]),
        Answer(lines=[event("ADDED", thing("b", 9))]),
    )
    assert seen(cluster, 3) == [("ADDED", "a", "3"), ("MODIFIED", "a", "6"), ("ADDED", "b", "9")]
    assert [one.query.get("resourceVersion") for one in api.asked] == [None, "5", "8"]


def test_what_had_gone_before_the_watch_began_is_told(api: FakeApi, cluster: Cluster) -> None:
    api.give(listed(5), Answer(lines=[event("ADDED", thing("a", 6))]))
    assert seen(cluster, 2, name="a") == [("DELETED", "a", ""), ("ADDED", "a", "6")]


@pytest.mark.parametrize("gone", [GONE, Answer(lines=[event("ERROR", GONE.body)])], ids=["answer", "event"])
def test_a_version_that_is_forgotten_is_read_anew(api: FakeApi, cluster: Cluster, gone: Answer) -> None:
    """What changed meanwhile is told as its last state, and what went as gone; what stayed is not told again."""
    api.give(
        listed(5, thing("stays", 1), thing("changes", 2), thing("goes", 3)), gone,
        listed(20, thing("stays", 1), thing("changes", 15), thing("comes", 16)),
        Answer(lines=[event("DELETED", thing("comes", 21))]),
    )  # fmt: skip
    assert seen(cluster, 7)[3:] == [
        ("DELETED", "goes", "3"), ("MODIFIED", "changes", "15"), ("ADDED", "comes", "16"), ("DELETED", "comes", "21"),
    ]  # fmt: skip
    assert api.asked[3].query["resourceVersion"] == "20"


@pytest.mark.parametrize("garbage", [b"<html>", b"[1]", b'{"type":"ADDED"}', b"[" * 100_000])
def test_an_answer_that_is_none_ends_in_another_try(api: FakeApi, cluster: Cluster, garbage: bytes) -> None:
    api.give(listed(5), Answer(lines=[garbage]), Answer(500, b"<html>"), Answer(lines=[event("ADDED", thing("a", 6))]))
    assert seen(cluster, 1) == [("ADDED", "a", "6")]


def test_silence_ends_when_patience_does(api: FakeApi, cluster: Cluster) -> None:
    api.give(listed(5, thing("a", 1)), refusal(503, "ServiceUnavailable", "etcd is away"))
    with pytest.raises(UnreachableError, match="etcd is away"):
        seen(cluster, 2, patience=0.3)


def test_it_ends_in_time(api: FakeApi, cluster: Cluster) -> None:
    api.give(listed(5, thing("a", 1)), Answer(lines=[]))
    assert seen(cluster, 9, until=time.monotonic() + 0.5) == [("ADDED", "a", "1")]


def test_who_may_not_watch_hears_so_at_once(api: FakeApi, cluster: Cluster) -> None:
    api.give(FORBIDDEN)
    with pytest.raises(NotAllowedError) as caught:
        seen(cluster, 1)
    assert "kubectl auth can-i watch pods -n here" in caught.value.hint


def test_a_server_that_starts_may_refuse_for_a_moment(api: FakeApi, cluster: Cluster) -> None:
    """Its caches of roles are empty: what was allowed before is not, and then is again."""
    api.give(listed(5), FORBIDDEN, refusal(401, "Unauthorized", "x"), Answer(lines=[event("ADDED", thing("a", 6))]))
    assert seen(cluster, 1) == [("ADDED", "a", "6")]
    api.give(listed(5), FORBIDDEN)
    with pytest.raises(NotAllowedError):
        seen(cluster, 2, patience=0.3)


def test_a_list_has_all_its_pages(api: FakeApi, cluster: Cluster) -> None:
    api.give(listed(5, thing("a", 1), more="x"), listed(5, thing("b", 1)))
    assert [one["metadata"]["name"] for one in cluster.list(PODS)] == ["a", "b"]
    assert [one.query.get("continue") for one in api.asked] == [None, "x"]
    assert cluster.list(PODS)[0]["kind"] == "Pod"


def test_a_list_whose_first_page_is_forgotten_begins_anew(api: FakeApi, cluster: Cluster) -> None:
    api.give(listed(5, thing("a", 1), more="x"), GONE, listed(9, thing("a", 1), more="y"), listed(9, thing("b", 1)))
    assert [one["metadata"]["name"] for one in cluster.list(PODS)] == ["a", "b"]


def test_a_server_that_is_busy_says_when_to_come_again(api: FakeApi, cluster: Cluster) -> None:
    busy = refusal(429, "TooManyRequests", "later")
    api.give(Answer(429, busy.body, headers={"Retry-After": "0"}), Answer(200, thing("a", 1)))
    assert cluster.read(PODS, "a")["metadata"]["name"] == "a"
    api.answers.clear()
    api.give(busy)
    with pytest.raises(UnreachableError, match="too often"):
        cluster.read(PODS, "a")


def test_a_read_whose_connection_broke_is_sent_again(api: FakeApi, cluster: Cluster) -> None:
    api.give(Answer(0), Answer(200, thing("a", 1)))
    assert cluster.read(PODS, "a")["metadata"]["name"] == "a"
    api.answers.clear()
    api.give(Answer(0))
    for broken in (lambda: cluster.read(PODS, "a"), lambda: cluster.patch(PODS, "a", "", {})):
        with pytest.raises(UnreachableError):
            broken()
    assert [one.method for one in api.asked] == ["GET", "GET", "GET", "GET", "PATCH"]


def test_who_waits_reads_again(api: FakeApi, cluster: Cluster) -> None:
    api.give(Answer(502, b"<html>"), Answer(200, thing("a", 1)))
    cluster.be_patient()
    assert cluster.read(PODS, "a")["metadata"]["name"] == "a"
    api.answers.clear()
    api.give(Answer(502, b"<html>"))
    with pytest.raises(UnreachableError):
        cluster.patch(PODS, "a", "", {})
    assert [one.method for one in api.asked] == ["GET", "GET", "PATCH"]


def test_logs_go_on_where_they_broke(api: FakeApi, cluster: Cluster) -> None:
    first = [b"2026-01-01T00:00:01.5Z one", b"2026-01-01T00:00:01.25Z late", b"2026-01-01T00:00:02Z two", DROP]
    again = [b"2026-01-01T00:00:02.000000000Z two", b"2026-01-01T00:00:02.1Z three"]
    api.give(Answer(lines=first), Answer(503, b"starts"), Answer(lines=again))
    assert list(cluster.logs("here", "p", "main", follow=True, tail=5)) == ["one", "late", "two", "three"]
    assert (api.asked[0].query["tailLines"], api.asked[1].query.get("tailLines")) == ("5", None)
    assert api.asked[2].query["sinceTime"] == "2026-01-01T00:00:02Z"


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"[]", b"", b"[" * 100_000])
def test_an_answer_that_is_none(api: FakeApi, cluster: Cluster, body: bytes) -> None:
    api.give(Answer(200, body))
    with pytest.raises(UnreachableError, match="an answer that is none"):
        cluster.read(PODS, "a")


def test_nothing_listens(tmp_path: Path) -> None:
    with fake_api() as api:
        kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")
    with pytest.raises(UnreachableError, match="cannot be reached") as caught:
        Cluster(kubeconfig).read(PODS, "a")
    assert ("Connection refused" in str(caught.value), "s3cr3t" in str(caught.value)) == (True, False)


def test_what_is_written_says_who_writes(api: FakeApi, cluster: Cluster) -> None:
    """A field that the API server does not know is refused by it only when that is asked for."""
    api.give(Answer(200, thing("a", 1)))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a/../b"}}
    cluster.create(PODS, pod)
    cluster.apply(pod)
    cluster.patch(PODS, "a", "", {"metadata": {"labels": {"x": None}}}, subresource="status")
    created, applied, patched = api.asked
    assert (created.path, created.query["fieldValidation"]) == ("/api/v1/namespaces/here/pods", "Strict")
    assert applied.path == "/api/v1/namespaces/here/pods/a%2F..%2Fb"
    assert applied.query == {"fieldManager": "dtkpipe", "force": "true", "fieldValidation": "Strict"}
    assert applied.headers["content-type"] == "application/apply-patch+yaml"
    assert (patched.path.rpartition("/")[2], patched.body) == ("status", {"metadata": {"labels": {"x": None}}})
    assert {one.headers["authorization"] for one in api.asked} == {"Bearer s3cr3t"}


def test_what_is_not_there_is_no_error_where_that_was_the_question(api: FakeApi, cluster: Cluster) -> None:
    api.give(refusal(404, "NotFound", 'pods "a" not found', name="a", kind="pods"))
    assert cluster.find(PODS, "a") is None
    assert cluster.delete(PODS, "a") is False
    with pytest.raises(NotFoundError):
        cluster.read(PODS, "a")
