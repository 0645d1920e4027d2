"""Bells as the watcher of a receiver answers them: a planner for each, and the bell off after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.app import bell
from dtkpipe.app.clusters import Place
from dtkpipe.clients.cluster import LEASES, Cluster
from tests.fixtures.api import Answer, FakeApi, event, fake_api, refusal
from tests.fixtures.api import listed as items

LABELS = {"dtkpipe.io/bell": "mine", "dtkpipe.io/receiver": "tekton"}
GONE = refusal(404, "NotFound", "there is none")
MADE = Answer(201, {"metadata": {"name": "mine-x"}})
OFF = Answer(200, {})


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as found:
        yield found


@pytest.fixture
def place(api: FakeApi, tmp_path: Path) -> Place:
    return Place(Cluster(api.kubeconfig(tmp_path / "kubeconfig")), "here")


def rang(uid: str, version: int = 1) -> dict[str, Any]:
    """A bell that is on."""
    metadata = {"name": "mine-bell", "uid": uid, "labels": LABELS, "resourceVersion": str(version)}
    return {"apiVersion": LEASES.api, "kind": LEASES.kind, "metadata": metadata, "spec": {}}


def fires(trigger: bool = True) -> Answer:
    labels = {"dtkpipe.io/schedule": "mine", **({"dtkpipe.io/trigger": "push"} if trigger else {})}
    template = {"metadata": {"labels": {}}, "spec": {"containers": []}}
    return Answer(
        200,
        {
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "mine", "uid": "u", "labels": labels},
            "spec": {"jobTemplate": {"spec": {"template": template}}},
        },
    )  # fmt: skip


def planner(state: str) -> dict[str, Any]:
    conditions = [] if state == "running" else [{"type": state, "status": "True"}]
    metadata = {"name": "mine-1", "uid": "j", "creationTimestamp": "2020-01-01T00:00:00Z", "resourceVersion": "1"}
    return {"metadata": metadata, "status": {"conditions": conditions}}


def answered(place: Place, *, uid: str = "first") -> list[str]:
    """Answer a bell; what is said."""
    said: list[str] = []
    bell._answer(place, LEASES, rang(uid), said.append)
    return said


def asked(api: FakeApi) -> list[tuple[str, str]]:
    return [(one.method, one.path.partition("?")[0].rpartition("/")[2]) for one in api.asked]


def test_a_bell_has_its_planner_before_it_goes_off(api: FakeApi, place: Place) -> None:
    api.give(items(1), items(1), fires(), MADE, OFF)
    assert answered(place) == ["mine: started mine-x"]
    made, off = api.asked[-2:]
    assert (made.method, made.body["metadata"]["labels"]["dtkpipe.io/rung-by"]) == ("POST", "first")
    assert made.body["spec"]["template"]["metadata"]["labels"]["dtkpipe.io/rung-by"] == "first"
    assert (off.method, off.body["preconditions"]) == ("DELETE", {"uid": "first"})


def test_one_that_was_killed_in_between_has_started_it(api: FakeApi, place: Place) -> None:
    api.give(items(1, planner("running")), OFF)
    assert answered(place) == []
    assert asked(api) == [("GET", "jobs"), ("DELETE", "mine-bell")]


def test_the_planner_before_ends_first(api: FakeApi, place: Place) -> None:
    running, ended = planner("running"), planner("Complete")
    changed = {**ended, "metadata": {**ended["metadata"], "resourceVersion": "2"}}
    api.give(
        items(1), items(1, running), Answer(200, running),
        items(1, running), Answer(lines=[event("MODIFIED", changed)]),
        Answer(200, changed), fires(), MADE, OFF,
    )  # fmt: skip
    assert answered(place) == ["mine: started mine-x"]
    assert asked(api)[-2:] == [("POST", "jobs"), ("DELETE", "mine-bell")]


@pytest.mark.parametrize("found", [GONE, fires(trigger=False)])
def test_a_bell_without_a_trigger_goes_off(api: FakeApi, place: Place, found: Answer) -> None:
    api.give(items(1), items(1), found, OFF)
    (said,) = answered(place)
    assert said.startswith("mine: ")
    assert asked(api)[-1] == ("DELETE", "mine-bell")


def test_what_is_in_the_way_is_said_and_tried_again(
    api: FakeApi, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "_PAUSES", (0,))
    api.give(items(1), items(1), fires(), refusal(403, "Forbidden", "exceeded quota"))
    api.give(items(1), items(1), fires(), MADE, OFF)
    first, second = answered(place)
    assert first.startswith("mine: again in 0 s: the quota of namespace here is used up")
    assert second == "mine: started mine-x"


def test_the_next_bell_is_not_switched_off(api: FakeApi, place: Place) -> None:
    api.give(items(1), items(1), fires(), MADE, refusal(409, "Conflict", "the uid is another"))
    assert answered(place) == ["mine: started mine-x"]


def test_each_bell_is_answered_once(api: FakeApi, place: Place) -> None:
    first, second = rang("first"), rang("second", 4)
    changes = [event("MODIFIED", rang("first", 2)), event("DELETED", rang("first", 3)), event("ADDED", second)]
    api.give(items(1, first), Answer(lines=changes), GONE)
    bells = bell._bells(place, "tekton")
    assert [next(bells)["metadata"]["uid"] for _ in range(2)] == ["first", "second"]


def test_a_planner_waits_until_its_bell_is_off(api: FakeApi, place: Place) -> None:
    api.give(
        Answer(200, rang("first")), items(1, rang("first")), Answer(lines=[event("DELETED", rang("first", 2))]),
        Answer(200, rang("second", 3)),
    )  # fmt: skip
    bell.off(place, "mine", "tekton", "first")
    assert asked(api)[-1] == ("GET", "mine-bell"), "what is on now is not its own"
