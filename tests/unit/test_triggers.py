"""Triggers up to where the cluster is asked: what rings, the objects, signatures, refusals."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any, get_args

import pytest

from dtkpipe.app import bell
from dtkpipe.app.matrix.outcome import ExitCode
from dtkpipe.app.triggers import BELLS
from dtkpipe.cli import trigger_pods
from dtkpipe.engines.rights import WATCHER
from dtkpipe.engines.triggers import RECEIVERS
from dtkpipe.errors import RunUnknownError, UnreachableError, UsageError
from dtkpipe.values.forge import Repository, place_of, push
from tests.fixtures.cli import Cli
from tests.fixtures.schedules import MATRIX, SPEC, create, modules

PUSH = ("hello", "--on", "push", "--repo", "github.com/org/one")


@pytest.fixture
def desk(cli: Cli) -> Cli:
    modules(cli, "one", "two")
    return cli


def rendered(cli: Cli, engine: str, *words: str) -> list[dict[str, Any]]:
    secret = ("--secret", "hook") if engine == "tekton" else ()
    said = create(cli, "trigger", *PUSH, "--engine", engine, *secret, *words, "--dry-run=client", "-o", "json")
    assert said.code == 0, said.err
    found: list[dict[str, Any]] = json.loads(said.out)
    return found


def of(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (one for one in objects if one["kind"] == kind)
    return found


def selector(objects: list[dict[str, Any]]) -> str:
    """What rings, as the engine has it."""
    if objects[-1]["kind"] == "WorkflowEventBinding":
        return str(objects[-1]["spec"]["event"]["selector"])
    return str(of(objects, "Trigger")["spec"]["interceptors"][1]["params"][0]["value"])


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_only_modules_of_the_repository_are_planned(desk: Cli, engine: str) -> None:
    objects = rendered(desk, engine)
    assert list(of(objects, "ConfigMap")["data"]) == ["modules.one-0.yaml"]
    assert of(objects, "CronJob")["spec"]["suspend"] is True
    assert '"org/one"' in selector(objects)
    assert {one["metadata"]["labels"].get("dtkpipe.io/trigger", "push") for one in objects} == {"push"}


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_all_bells_of_a_receiver_have_one_watcher(desk: Cli, engine: str) -> None:
    watcher = of(rendered(desk, engine), "Deployment")
    pod = watcher["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == ["trigger", "listen", engine, "--namespace", "here"]
    assert "dtkpipe.io/schedule" not in json.dumps(watcher), "it is no trigger's own"
    assert (pod["serviceAccountName"], "secret" in json.dumps(pod)) == (WATCHER, False)
    objects = {one["kind"]: one for one in rendered(desk, engine)}
    bell = (
        objects["WorkflowEventBinding"]["spec"]["submit"] if engine == "argo"
        else objects["Trigger"]["spec"]["template"]["spec"]["resourcetemplates"][0]
    )  # fmt: skip
    labels = {key: value.strip('"') for key, value in bell["metadata"]["labels"].items()}
    assert labels == {"dtkpipe.io/bell": "hello", "dtkpipe.io/receiver": engine}
    assert watcher["spec"]["selector"]["matchLabels"]["dtkpipe.io/receiver"] == engine


def test_every_receiver_has_bells_and_somebody_who_listens() -> None:
    assert set(get_args(trigger_pods.Receiver)) == set(BELLS) == set(RECEIVERS)


def test_nothing_of_a_call_goes_into_what_it_makes(desk: Cli) -> None:
    trigger = of(rendered(desk, "tekton"), "Trigger")
    assert trigger["spec"]["bindings"] == []
    (bell,) = trigger["spec"]["template"]["spec"]["resourcetemplates"]
    assert "$(" not in json.dumps(bell)
    assert (bell["kind"], bell["metadata"]["name"], bell["spec"]) == ("Lease", "hello-bell", {}), "nothing in it runs"
    binding = rendered(desk, "argo")[-1]
    assert "arguments" not in binding["spec"]["submit"]
    assert binding["spec"]["submit"]["metadata"]["name"] == '"hello-bell"'


def test_no_secret_is_in_the_objects(desk: Cli) -> None:
    trigger = of(rendered(desk, "tekton"), "Trigger")
    by_name = {"secretName": "hook", "secretKey": "token"}
    assert trigger["spec"]["interceptors"][0]["params"][0] == {"name": "secretRef", "value": by_name}


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_branches_are_those_that_modules_name(desk: Cli, engine: str) -> None:
    nasty = "a\"'$(reboot)`"
    (desk.here / "modules/one.yaml").write_text(SPEC.format(name="one", ref=json.dumps(nasty)))
    said = selector(rendered(desk, engine))
    assert json.dumps([f"refs/heads/{nasty}", f"refs/tags/{nasty}"]) in said
    assert "default_branch" not in said
    (desk.here / "modules/one.yaml").write_text(SPEC.format(name="one", ref="''"))
    assert "default_branch" in selector(rendered(desk, engine))


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_paths_are_patterns_of_whole_names(desk: Cli, engine: str) -> None:
    said = selector(rendered(desk, engine, "--path", "drivers/*.c", "--path", "Kbuild"))
    assert json.dumps(r"^(drivers/.*\.c|Kbuild)$") in said


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_a_catalogue_is_read_by_the_planner(desk: Cli, engine: str) -> None:
    secret = ("--secret", "hook") if engine == "tekton" else ()
    words = ("all", "--on", "catalog", "--repo", "github.com/org/catalogue", "--engine", engine, *secret)
    said = create(desk, "trigger", *words, "--dry-run=client", "-o", "json", after=("--modules", "mods/*", *MATRIX[2:]))
    assert said.code == 0, said.err
    objects = json.loads(said.out)
    assert of(objects, "ConfigMap")["data"] == {}
    answer = json.dumps(objects)
    assert '"--modules=https://github.com/org/catalogue//mods/*"' in answer
    assert json.dumps("^(mods/.*)$") in selector(objects)


@pytest.mark.parametrize(
    ("words", "after", "code", "said"),
    [
        ((*PUSH, "--engine", "tekton"), MATRIX, 2, "--secret NAME"),
        ((*PUSH, "--engine", "argo", "--secret", "s"), MATRIX, 2, "--secret is not for Argo's server"),
        ((*PUSH, "--engine", "argon"), MATRIX, 2, "there is no engine"),
        (("x", "--on", "pish", "--repo", "github.com/org/one", "--engine", "argo"), MATRIX, 2, "push"),
        (("x", "--on", "push", "--engine", "argo"), MATRIX, 2, "nothing says which repository rings"),
        ((*PUSH, "--engine", "argo", "--cron", "0 3 * * *"), MATRIX, 2, "--cron is not for --on push"),
        ((*PUSH, "--engine", "argo", "--debounce", "5"), MATRIX, 2, "--debounce is not for --on push"),
        (("x", "--on", "push", "--repo", "github.com/org/three", "--engine", "argo"), MATRIX, 9, "no module is built"),
        (("x", "--on", "push", "--repo", "git.example.org/a/b", "--engine", "argo"), MATRIX, 2, "--forge github"),
        (("x", "--on", "push", "--repo", "nonsense", "--engine", "argo"), MATRIX, 2, "no repository that calls"),
        (("N/A", *PUSH[1:], "--engine", "argo"), MATRIX, 2, "cannot be the name"),
        (("x", "--on", "catalog", *PUSH[3:], "--engine", "argo"), ("--modules", "../x", *MATRIX[2:]), 2, "not in the"),
        (("x", "--on", "catalog", *PUSH[3:], "--engine", "argo", "--path", "x"), MATRIX, 2, "--path is not for"),
        ((*PUSH, "--engine", "argo"), ("--modules", "github.com/org/all//x/*", *MATRIX[2:]), 2, "is not here"),
        ((*PUSH, "--engine", "argo"), (*MATRIX, "--namespace", "x"), 2, "before the --"),
        ((*PUSH, "--engine", "argo"), MATRIX, 7, "cannot be reached"),
    ],
)
def test_bad_input_is_told(desk: Cli, words: tuple[str, ...], after: tuple[str, ...], code: int, said: str) -> None:
    answer = create(desk, "trigger", *words, after=after)
    assert (answer.code, said in answer.err) == (code, True), answer.err


@pytest.mark.parametrize(
    "url",
    ["github.com/Org/a", "https://github.com/org/a.git", "git@github.com:org/A.git", "ssh://git@GitHub.com/org/a/"],
)
def test_a_repository_is_the_same_however_it_is_written(url: str) -> None:
    assert place_of(url) == ("github.com", "org/a")


def test_the_forge_is_known_by_its_host() -> None:
    assert Repository.parse("gitlab.example.org/a/b/c") == Repository("gitlab", "gitlab.example.org", "a/b/c")
    assert Repository.parse("git.example.org/a/b", "github").forge == "github"
    with pytest.raises(UsageError):
        Repository.parse("github.com/a/b", "gitea")


def test_pushes_are_signed() -> None:
    call = push(Repository.parse("github.com/a/b"), "refs/heads/main", "main", "s3cret")
    expected = hmac.new(b"s3cret", call.body, hashlib.sha256).hexdigest()
    assert call.headers["X-Hub-Signature-256"] == f"sha256={expected}"
    assert push(Repository.parse("gitlab.com/a/b"), "refs/heads/main", "main", "s").headers["X-Gitlab-Token"] == "s"


def test_what_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bell, "_PAUSES", (0, 0, 0))
    hidden = ExitCode(10, unknown=True)
    ends = [UnreachableError("gone"), ExitCode(RunUnknownError.exit_code, unknown=True), hidden, ExitCode(10)]

    def plan() -> ExitCode:
        end = ends.pop(0)
        if isinstance(end, UnreachableError):
            raise end
        return end

    said: list[str] = []
    assert bell.again(plan, said.append) == 10
    assert (ends, said.count("something does not answer: again in 0 s")) == ([], 3)
    assert bell.again(lambda: ExitCode(10), said.append) == 10, "red cells are no reason"
