"""Triggers for a repository's `.tekton/`: what is printed. What starts it, and that it runs: tests/e2e."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.fixtures.cli import Cli, Said
from tests.fixtures.schedules import MATRIX, SPEC, create, modules

OWN = ("hello", "--repo", "github.com/Org/one", "--engine", "pipelines-as-code", "--on")
REST = MATRIX[2:]


@pytest.fixture
def desk(cli: Cli) -> Cli:
    modules(cli, "one", "two")
    return cli


def run(said: Said) -> dict[str, Any]:
    assert said.code == 0, said.err
    found: dict[str, Any] = yaml.safe_load(said.out)
    assert (found["kind"], found["metadata"]["generateName"]) == ("PipelineRun", "hello-")
    return found


def planner(made: dict[str, Any]) -> dict[str, Any]:
    (task,) = made["spec"]["pipelineSpec"]["tasks"]
    spec: dict[str, Any] = task["taskSpec"]
    return spec


def expression(made: dict[str, Any]) -> str:
    return str(made["metadata"]["annotations"]["pipelinesascode.tekton.dev/on-cel-expression"])


def test_files_go_along_with_the_pod(desk: Cli) -> None:
    spec = planner(run(create(desk, "trigger", *OWN, "push")))
    assert spec["metadata"]["annotations"] == {"dtkpipe.io/file-0": SPEC.format(name="one", ref="''")}
    (volume,) = (one for one in spec["volumes"] if one["name"] == "schedule")
    field = {"fieldPath": "metadata.annotations['dtkpipe.io/file-0']"}
    assert volume["downwardAPI"]["items"] == [{"path": "modules/one-0.yaml", "fieldRef": field}]
    (step,) = spec["steps"]
    assert "--modules=/etc/dtkpipe/schedule/modules/*.yaml" in step["args"]


def test_branches_are_those_that_modules_name(desk: Cli) -> None:
    nasty = "a\"'$(reboot)`"
    (desk.here / "modules/one.yaml").write_text(SPEC.format(name="one", ref=repr(nasty).replace("\\'", "''")))
    said = expression(run(create(desk, "trigger", *OWN, "push", "--path", "src/*.c")))
    assert r'"refs/heads/a\"' in said
    assert "default_branch" not in said
    assert r'f.matches("^(src/.*\\.c)$")' in said


@pytest.mark.parametrize("ref", ["", "stable"])
def test_a_repository_may_have_the_spec_itself(desk: Cli, ref: str) -> None:
    pattern = f"github.com/org/one//dtkpipe.yaml{f'?ref={ref}' if ref else ''}"
    made = run(create(desk, "trigger", *OWN, "push", after=("--modules", pattern, *REST)))
    assert f"--modules={pattern}" in planner(made)["steps"][0]["args"]
    assert ("default_branch" in expression(made), '"refs/heads/stable"' in expression(made)) == (not ref, bool(ref))


def test_a_catalogue_is_read_by_the_planner(desk: Cli) -> None:
    made = run(create(desk, "trigger", *OWN, "catalog", after=("--modules", "mods/*", *REST)))
    assert "--modules=https://github.com/Org/one//mods/*" in planner(made)["steps"][0]["args"]
    assert "annotations" not in planner(made)["metadata"]
    assert '"^(mods/.*)$"' in expression(made)


@pytest.mark.parametrize(
    ("words", "after", "code", "said"),
    [
        (("push", "--secret", "hook"), MATRIX, 2, "--secret is not for --engine pipelines-as-code"),
        (("push", "-n", "here"), MATRIX, 2, "--namespace is not for"),
        (("push", "--dry-run=server"), MATRIX, 2, "--dry-run is not for"),
        (("push",), ("--modules", "github.com/org/all//x/*", *REST), 2, "is not here"),
        (("push",), ("--modules", "modules/two.yaml", *REST), 9, "no module is built"),
        (("push",), (*MATRIX, "--push-to", "quay.io/{{ x }}"), 2, "{{"),
    ],
)
def test_bad_input_is_told(desk: Cli, words: tuple[str, ...], after: tuple[str, ...], code: int, said: str) -> None:
    answer = create(desk, "trigger", *OWN, *words, after=after)
    assert (answer.code, said in answer.err) == (code, True), answer.err


def test_what_nobody_rings_is_not_for_a_repository(desk: Cli) -> None:
    answer = create(desk, "trigger", "hello", "--engine", "pipelines-as-code", "--on", "release")
    assert (answer.code, "does not know of --on release" in answer.err) == (8, True), answer.err


def test_files_that_would_be_changed_or_do_not_fit_are_refused(desk: Cli) -> None:
    spec = desk.here / "modules/one.yaml"
    spec.write_text(SPEC.format(name="one", ref="''") + "build: {make: ['A={{ revision }}']}\n")
    answer = create(desk, "trigger", *OWN, "push")
    assert (answer.code, "modules/one-0.yaml holds `{{`" in answer.err) == (2, True), answer.err
    spec.write_text(SPEC.format(name="one", ref="''") + "#" * 200_000)
    answer = create(desk, "trigger", *OWN, "push")
    assert (answer.code, "too large for a PipelineRun" in answer.err) == (8, True), answer.err
