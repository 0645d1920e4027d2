"""Triggers that Argo Events receives: the objects, and what its Sensor makes of recorded calls, in Lua as there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from lupa.lua51 import LuaError, LuaRuntime

from tests.fixtures.cli import Cli
from tests.fixtures.schedules import MATRIX, SPEC, create, modules
from tests.fixtures.webhooks import Call, push

OWN = ("--engine", "argo-events", "--secret", "hook")


@pytest.fixture
def desk(cli: Cli) -> Cli:
    modules(cli, "one", "two")
    return cli


def rendered(cli: Cli, *words: str) -> dict[str, dict[str, Any]]:
    """The objects, by kind; of the two templates the bell's."""
    on = ("hello", "--on", "push", "--repo", "github.com/org/one", *OWN)
    said = create(cli, "trigger", *on, *words, "--dry-run=client", "-o", "json")
    assert said.code == 0, said.err
    return {one["kind"]: one for one in json.loads(said.out)}


def rings(sensor: Mapping[str, Any], call: Call) -> bool:
    """What its filter says. Canonical headers and lists of their values, as Go's server has them."""
    headers = {name.title(): [value] for name, value in call.headers.items()}
    lua = LuaRuntime()
    lua.globals().event = lua.table_from({"headers": headers, "body": call.body}, recursive=True)
    try:
        return lua.execute(sensor["spec"]["dependencies"][0]["filters"]["script"]) is True
    except LuaError:  # with which Argo Events drops the call
        return False


def files(*changed: str, **more: Any) -> dict[str, Any]:
    return {"commits": [{"added": [], "modified": list(changed), "removed": []}], **more}


GITHUB = {
    "a push": (push("github", "Org/One"), True),
    "a tag": (push("github", "org/one", ref="refs/tags/main"), False),
    "another branch": (push("github", "org/one", branch="topic"), False),
    "a branch that is the default": (push("github", "org/one", branch="topic", default="topic"), True),
    "a fork": (push("github", "mallory/one"), False),
    "a deleted branch": (push("github", "org/one", deleted=True), False),
    "another event": (Call("github", push("github", "org/one").body, {"X-GitHub-Event": "ping"}), False),
    "no event": (Call("github", push("github", "org/one").body, {}), False),
    "nothing of a push": (Call("github", {"ref": "refs/heads/main"}, {"X-GitHub-Event": "push"}), False),
    "a name for Lua": (push("github", "org/one", branch='main" or true or "'), False),
    "another forge": (push("gitlab", "org/one"), False),
}


@pytest.mark.parametrize("case", GITHUB)
def test_what_rings(desk: Cli, case: str) -> None:
    call, expected = GITHUB[case]
    assert rings(rendered(desk)["Sensor"], call) is expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (push("github", "org/one", **files("drivers/a.c")), True),
        (push("github", "org/one", **files("drivers/a/b.c", "README.md")), True),
        (push("github", "org/one", **files("Kbuild")), True),
        (push("github", "org/one", **files("drivers/axc", "Kbuild2", "old/drivers/a.c")), False),
        (push("github", "org/one", commits=[]), True),
        (push("github", "org/one", commits=[{"removed": ["Kbuild"]}]), True),
    ],
)
def test_files_are_patterns_of_whole_names(desk: Cli, call: Call, expected: bool) -> None:
    sensor = rendered(desk, "--path", "drivers/*.c", "--path", "Kbuild")["Sensor"]
    assert rings(sensor, call) is expected


@pytest.mark.parametrize("ref", ["stable", "a\"'$(reboot)`", "ü%d.x"])
def test_a_branch_is_nothing_but_text(desk: Cli, ref: str) -> None:
    (desk.here / "modules/one.yaml").write_text(SPEC.format(name="one", ref=json.dumps(ref)))
    sensor = rendered(desk)["Sensor"]
    assert [rings(sensor, push("github", "org/one", branch=one)) for one in (ref, "main")] == [True, False]
    assert rings(sensor, push("github", "org/one", ref=f"refs/tags/{ref}"))


def test_gitlab_is_refused_as_nobody_would_check_its_token(desk: Cli) -> None:
    spec = "apiVersion: dtkpipe/v1\nname: lab\nsource: {repo: 'https://gitlab.com/group/lab'}\n"
    (desk.here / "modules/lab.yaml").write_text(spec)
    said = create(desk, "trigger", "lab", "--on", "push", "--repo", "gitlab.com/group/lab", *OWN, "--dry-run=client")
    assert (said.code, "does not check who calls" in said.err, "--engine argo" in said.err) == (8, True, True)


def test_nothing_of_a_call_goes_into_what_it_makes(desk: Cli) -> None:
    made = rendered(desk)
    (trigger,) = made["Sensor"]["spec"]["triggers"]
    assert "parameters" not in json.dumps(trigger)
    assert trigger["template"]["k8s"]["source"]["resource"]["metadata"]["name"] == "hello-bell"
    heard = made["EventSource"]["spec"]["github"]["push"]
    assert heard["webhookSecret"] == {"name": "hook", "key": "token"}
    assert "apiToken" not in heard, "it makes no webhooks itself"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("x", "--on", "push", "--repo", "github.com/org/one", "--engine", "argo-events"), 2, "--secret NAME"),
        (("x", "--on", "release", "--engine", "argo-events"), 8, "--engine argo"),
        (("x" * 48, "--on", "push", "--repo", "github.com/org/one", *OWN), 2, "too long a name"),
        (("x", "--on", "push", "--repo", "github.com/org/one", *OWN), 7, "cannot be reached"),
    ],
)
def test_bad_input_is_told(desk: Cli, words: tuple[str, ...], code: int, said: str) -> None:
    answer = create(desk, "trigger", *words, after=MATRIX)
    assert (answer.code, said in answer.err) == (code, True), answer.err
