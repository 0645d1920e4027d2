"""`dtkpipe step`: the command line that is derived from a step's Args and Results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dtkpipe.cli.step import names, run_step
from dtkpipe.errors import DtkpipeError, NotFoundError, RunFailedError, UsageError
from dtkpipe.steps import report
from dtkpipe.steps.contract import Room, StepRefusedError
from dtkpipe.values.run import CAUSE, CAUSE_LIMIT, tell_cause, told_cause
from tests.fixtures.cli import Cli

STATUSES = '["build=Succeeded"]'


@pytest.mark.parametrize("name", names())
def test_help_is_derived(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_step([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: dtkpipe step {name} ")
    assert "Flags:" in said


def test_results_go_to_files_or_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "outcome"
    run_step(["report", "--run-name=r", f"--statuses={STATUSES}", f"--result-outcome={file}"])
    assert file.read_text() == "succeeded"
    assert capsys.readouterr().out == ""
    run_step(["report", "--run-name=r", f"--statuses={STATUSES}"])
    assert capsys.readouterr().out == "OUTCOME=succeeded\n"
    run_step(["report", "--run-name", "r", "--statuses", STATUSES, "-o", "json"])
    assert json.loads(capsys.readouterr().out) == {"OUTCOME": "succeeded"}


def test_results_are_written_when_the_step_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "outcome"
    with pytest.raises(StepRefusedError):
        run_step(["report", "--run-name=r", '--statuses=["build=Failed"]', f"--result-outcome={file}", "-ojson"])
    assert file.read_text() == "failed"
    assert json.loads(capsys.readouterr().out) == {"OUTCOME": "failed"}


def test_a_whole_answer_takes_the_place_of_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: report.Args, room: Room) -> report.Results:
        room.document({"deep": [1, 2]})
        return report.Results(outcome="x")

    monkeypatch.setattr(report, "run", run)
    run_step(["report", "--run-name=r", "-o=json"])
    assert json.loads(capsys.readouterr().out) == {"deep": [1, 2]}
    run_step(["report", "--run-name=r"])
    assert capsys.readouterr().out == "OUTCOME=x\n"


def test_the_room_is_the_folder_that_is_given_or_one_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rooms: list[tuple[Path, list[Path]]] = []

    def run(args: report.Args, room: Room) -> report.Results:
        rooms.append((room.work, list(room.work.iterdir())))
        return report.Results()

    monkeypatch.setattr(report, "run", run)
    run_step(["report", "--run-name=r"])
    monkeypatch.setenv("DTKPIPE_WORK", str(tmp_path))
    run_step(["report", "--run-name=r"])
    assert not rooms[0][0].exists()
    assert rooms[0][1] == []
    assert rooms[1][0] == tmp_path


@pytest.mark.parametrize(
    ("words", "kind", "what", "hint"),
    [
        (["biuld"], NotFoundError, "there is no step `biuld`", "did you mean `build`?"),
        (["contract"], NotFoundError, "there is no step `contract`", ""),
        (["build", "--tolkit=x"], UsageError, "unknown flag `--tolkit`", "did you mean `--toolkit`?"),
        (["build", "--result-imge-url=x"], UsageError, "unknown flag `--result-imge-url`",
         "did you mean `--result-image-url`?"),
        (["build", "word"], UsageError, "unexpected word `word`", "flags are written --name=value"),
        (["report"], UsageError, "--run-name is required", ""),
        (["report", "--run-name=r", "-o", "xml"], UsageError, "-o takes table or json, not `xml`", ""),
        (["report", "--run-name=r", "--statuses=x"], UsageError, "--statuses takes a JSON list of strings", ""),
    ],
)  # fmt: skip
def test_mistakes(words: list[str], kind: type[DtkpipeError], what: str, hint: str) -> None:
    with pytest.raises(kind) as caught:
        run_step(words)
    assert (caught.value.what, caught.value.hint) == (what, hint)


def test_a_value_may_be_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "--x=$(y)\n{{z}} 'ü'"
    run_step(["report", f"--run-name={name}", f"--statuses={STATUSES}"])
    assert f"run {name} succeeded" in capsys.readouterr().err


def test_the_process_ends_with_the_steps_exit_code(cli: Cli) -> None:
    said = cli("step", "report", "--run-name=r", '--statuses=["build=Failed"]')
    assert (said.code, said.out) == (10, "OUTCOME=failed\n")
    assert "\nerror: run r failed: build\n" in said.err


def test_only_the_module_of_the_step_is_imported(cli: Cli) -> None:
    import subprocess

    code = (
        "import sys; from dtkpipe.cli.main import main; main(['step', 'report', '--run-name=r']); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=cli.environ(), capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("dtkpipe.steps.")}
    assert loaded == {"dtkpipe.steps.contract", "dtkpipe.steps.report"}


@pytest.mark.parametrize(
    ("statuses", "cause"),
    [
        ('["build=Failed"]', "run r failed: build\nhint: dtkpipe logs r --failed"),
        ('["build"]', "`build` is not task=status: expected e.g. build=Succeeded"),
        ("no list", "--statuses takes a JSON list of strings: got: no list"),
    ],
)
def test_why_it_failed_is_a_result(statuses: str, cause: str, tmp_path: Path) -> None:
    file = tmp_path / "cause"
    with pytest.raises(DtkpipeError):
        run_step(["report", "--run-name=r", f"--statuses={statuses}", f"--result-cause={file}"])
    assert file.read_text() == cause


def test_a_bug_is_a_cause_and_its_text_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(args: report.Args, room: Room) -> report.Results:
        raise KeyError("password 1234")

    monkeypatch.setattr(report, "run", run)
    file = tmp_path / "cause"
    with pytest.raises(KeyError):
        run_step(["report", "--run-name=r", f"--result-cause={file}"])
    assert file.read_text() == "a bug in dtkpipe: KeyError\nhint: report it with the log of this task"


def test_a_step_that_is_stopped_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(args: report.Args, room: Room) -> report.Results:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "run", run)
    file = tmp_path / "cause"
    with pytest.raises(KeyboardInterrupt):
        run_step(["report", "--run-name=r", f"--result-cause={file}"])
    assert file.read_text() == "interrupted"


def test_a_step_that_succeeds_leaves_no_cause(tmp_path: Path) -> None:
    run_step(["report", "--run-name=r", f"--statuses={STATUSES}", f"--result-cause={tmp_path / 'cause'}"])
    assert not (tmp_path / "cause").exists()


@pytest.mark.parametrize(
    ("what", "hint"), [("é" * 600, ""), ("é" * 600, "ü" * 600), ("short", "ü" * 600), ("a\nb", "")]
)
def test_a_cause_is_short(what: str, hint: str) -> None:
    text = tell_cause(RunFailedError(what, hint=hint))
    assert len(text.encode()) <= CAUSE_LIMIT
    cause, told_hint, rest = told_cause({CAUSE: text, "OTHER": "x"})
    assert (cause[:2], told_hint[:2]) == (" ".join(what.split())[:2], hint[:2])
    assert rest == {"OTHER": "x"}


def test_a_detail_that_says_the_same_is_not_said_again() -> None:
    assert tell_cause(RunFailedError("refused: x needs `f`", "x needs `f`", "x needs `g`")) == "refused: x needs `f`"
    assert (
        tell_cause(RunFailedError("x does not compile", "x.c:1:1: error: no"))
        == "x does not compile: x.c:1:1: error: no"
    )
