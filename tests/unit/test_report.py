"""The report step: every word of every engine ends in the right outcome and exit code."""

from pathlib import Path

import pytest

from dtkpipe.errors import RunCancelledError, UsageError
from dtkpipe.steps import report
from dtkpipe.steps.contract import Room, StepRefusedError
from dtkpipe.values.run import CANCELLED, FAILED, PENDING, SKIPPED, SUCCEEDED, state


def said(*statuses: str) -> tuple[str, list[str]]:
    lines: list[str] = []
    room = Room(work=Path(), cache=Path(), environ={}, say=lines.append)
    return report.run(report.Args(run_name="kmod-x7k2p", statuses=statuses), room).outcome, lines


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Succeeded", SUCCEEDED), ("succeeded", SUCCEEDED), ("Failed", FAILED), ("Error", FAILED), ("failed", FAILED),
        ("None", PENDING), ("Omitted", PENDING), ("Skipped", SKIPPED), ("skipped", SKIPPED), ("cancelled", CANCELLED),
        ("{{tasks.build.status}}", FAILED), ("", FAILED), ("Succeeded ", FAILED),
    ],
)  # fmt: skip
def test_words_of_the_engines(word: str, expected: str) -> None:
    assert state(word) == expected


def test_all_succeeded() -> None:
    outcome, lines = said("resolve=Succeeded", "build=Succeeded", "deploy=Skipped")
    assert outcome == "succeeded"
    assert lines == [
        "resolve  succeeded", "build    succeeded", "deploy   skipped", "run kmod-x7k2p succeeded",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["Failed", "Error", "failed", "Unheard-of", ""])
@pytest.mark.parametrize("rest", ["None", "Omitted", "Skipped", "skipped", "Succeeded"])
def test_one_failed_task_fails_the_run(word: str, rest: str) -> None:
    with pytest.raises(StepRefusedError, match="run kmod-x7k2p failed: build") as caught:
        said("resolve=Succeeded", f"build={word}", f"sign={rest}")
    assert caught.value.exit_code == 10
    assert caught.value.results == report.Results(outcome="failed")
    assert caught.value.hint == "dtkpipe logs kmod-x7k2p --failed"


@pytest.mark.parametrize("word", ["None", "Omitted", "cancelled", "running"])
def test_a_run_that_was_stopped_did_not_succeed(word: str) -> None:
    with pytest.raises(RunCancelledError, match="stopped before its end") as caught:
        said("resolve=Succeeded", f"build={word}")
    assert caught.value.exit_code == 11


def test_a_status_without_a_task_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="not task=status"):
        said("Succeeded")
    with pytest.raises(UsageError, match="not task=status"):
        said("=Succeeded")
