"""Builds with kaniko: what becomes of a pipeline, and how its three containers hand over."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dtkpipe.app.compile import Wanted, compile_pipeline
from dtkpipe.app.pipelines import load
from dtkpipe.builders import with_builder
from dtkpipe.engines.rendered import Form
from dtkpipe.errors import (
    NotFoundError,
    RunFailedError,
    UnreachableError,
    UnsupportedError,
)
from dtkpipe.model import Pipeline, Program, ResultPath, container
from dtkpipe.model.check import check, problems
from dtkpipe.model.images import KANIKO, RUNNER
from dtkpipe.steps.build.kaniko import Handover
from dtkpipe.steps.contract import repeated
from dtkpipe.tools import process


def test_only_the_build_changes_and_the_name() -> None:
    plain = load("prebuild")
    made = with_builder(plain, "kaniko")
    check(made)
    assert made.name == "prebuild-kaniko"
    assert made.params == plain.params
    build, before = made.task("build"), plain.task("build")
    assert [one.image for one in build.programs] == [RUNNER, KANIKO, RUNNER]
    assert (build.inputs, build.results, build.needs, build.timeout) == (
        before.inputs, before.results, before.needs, before.timeout,
    )  # fmt: skip
    others = [task for task in made.all_tasks if task.name != "build"]
    assert others == [task for task in plain.all_tasks if task.name != "build"]
    assert with_builder(plain, "buildah") is plain
    assert with_builder(load("resign"), "kaniko").name == "resign"  # builds nothing


def test_a_builder_that_there_is_not() -> None:
    with pytest.raises(NotFoundError, match="there is no builder `kanico`") as error:
        with_builder(load("prebuild"), "kanico")
    assert error.value.hint == "did you mean `kaniko`?"


@pytest.mark.parametrize("param", ["hermetic", "registry-mirrors"])
def test_what_kaniko_cannot_do_is_refused(param: str) -> None:
    value = "true" if param == "hermetic" else "kind: ImageTagMirrorSet"
    params = {"repo": "https://git.example/kmod", "push-to": "registry.example/kmod", "release": "4.14", param: value}
    made = with_builder(load("prebuild"), "kaniko")
    with pytest.raises(UnsupportedError, match="kaniko"):
        compile_pipeline(made, Wanted(engine="tekton", form=Form.RUN, params=params))
    compile_pipeline(load("prebuild"), Wanted(engine="tekton", form=Form.RUN, params=params))


def test_what_is_wrong_with_programs_that_prepare() -> None:
    first = Program(name="wait", image="registry.example/a:1", argv=("a", ResultPath("OUT")))
    twice = Program(name="b", image="registry.example/b", argv=("b",))
    task = container(
        "one", image="registry.example/c:1", argv=["c", ResultPath("OUT")], results={"OUT": "a result"},
        prepare=[first, twice, twice],
    )  # fmt: skip
    found = [str(one) for one in problems(Pipeline("p", "p", [task]))]
    assert any("container wait" in one and "none of init, main, wait" in one for one in found)
    assert any("results are given by the task's last program" in one for one in found)
    assert any("can be another one tomorrow" in one for one in found)
    assert any("there are two of container `b`" in one for one in found)


def test_a_failure_is_handed_over_as_it_was(tmp_path: Path) -> None:
    handover = Handover(tmp_path)
    for error in (
        UnreachableError("nobody there", "asked twice", hint="ask again"),
        RunFailedError("`x` excludes kernel 5"),
    ):
        handover.leave(error)
        with pytest.raises(type(error)) as raised:
            handover.source()
        assert str(raised.value) == str(error)


def ran(folder: Path, flags: str, kaniko: str) -> subprocess.CompletedProcess[str]:
    """Run the script of kaniko's container over a program in kaniko's place."""
    Handover(folder).install(folder / "cache")
    program = folder / "run"
    (folder / "executor").write_text(f"#!/bin/sh\n{kaniko}\n")
    (folder / "executor").chmod(0o755)
    program.write_text(program.read_text().replace("/kaniko/executor", str(folder / "executor")))
    if flags:
        (folder / "flags").write_text(flags)
    return subprocess.run([program], capture_output=True, text=True)


def test_kaniko_gets_its_flags_word_by_word_and_its_end_is_kept(tmp_path: Path) -> None:
    flags = ["--build-arg=WORDS=a b; exit 1", "--build-arg=HOME=$HOME `id` \"'\\", "--destination=r/x:1"]
    done = ran(tmp_path, "".join(f"{flag}\n" for flag in flags), 'printf "<%s>\\n" "$@"; echo worse >&2; exit 3')
    assert done.returncode == 0
    assert done.stdout.splitlines() == [*(f"<{flag}>" for flag in flags), "worse"]
    assert (tmp_path / "log").read_text() == done.stdout
    assert (tmp_path / "status").read_text() == "3\n"


def test_kaniko_does_nothing_where_nothing_was_laid_out(tmp_path: Path) -> None:
    done = ran(tmp_path, "", "echo never")
    assert (done.returncode, done.stdout) == (0, "")


def test_only_what_was_not_reached_is_repeated() -> None:
    said: list[str] = []
    pauses: list[float] = []

    def attempt(number: int) -> int:
        if number < 2:
            raise UnreachableError("registry r does not answer", "connection refused")
        return number

    assert repeated(attempt, {"DTKPIPE_RETRIES": "2"}, said.append, pauses.append) == 2
    assert pauses == [10.0, 20.0]
    assert said[:3] == ["registry r does not answer", "connection refused", "not reachable: again in 10 s (1 of 2)"]
    for retries in ("1", "", "x"):
        with pytest.raises(UnreachableError):
            repeated(attempt, {"DTKPIPE_RETRIES": retries}, said.append, pauses.append)

    def refuse(number: int) -> int:
        said.append(f"attempt {number}")
        raise RunFailedError("does not compile")

    with pytest.raises(RunFailedError):
        repeated(refuse, {"DTKPIPE_RETRIES": "5"}, said.append, pauses.append)
    assert said[-1] == "attempt 0"


def test_output_goes_to_the_log_and_to_people(tmp_path: Path) -> None:
    log, copy = tmp_path / "log", tmp_path / "copy"
    with copy.open("wb") as echo:
        done = process.run(["sh", "-c", "echo out; echo err >&2; exit 4"], log=log, echo=echo, ok=(4,))
    assert log.read_text() == copy.read_text() == done.output == "out\nerr\n"


def test_the_source_is_handed_over(tmp_path: Path) -> None:
    facts = {"root": "/w/source", "folder": "/w/source/driver", "commit": "abc", "title": "x abc", "own": True}
    (tmp_path / "source.json").write_text(json.dumps(facts))
    fetched, own = Handover(tmp_path).source()
    assert (fetched.folder, fetched.commit, own) == (Path("/w/source/driver"), "abc", True)
