"""What succeeded before is reused, and a run that was killed at any moment goes on where it was."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dtkpipe.engines.local.folder import RunFolder, write
from dtkpipe.model import InputRef, Joined, Param, ParamRef, Pipeline
from dtkpipe.values.run import CANCELLED, RUNNING, SUCCEEDED, RunCard
from tests.fixtures.local import Bench, Recorder, chain, gives
from tests.unit.test_local_engine import is_alive


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_same_again_runs_nothing(bench: Bench) -> None:
    bench.run(chain(bench, "one", "two"))
    watcher = Recorder()
    card = bench.run(chain(bench, "one", "two"), watcher)
    assert bench.ran == ["one", "two", "last"]
    assert watcher.states == [("one", "reused"), ("two", "reused"), ("last", "reused")]
    assert (card.state, card.result("two", "OUT")) == (SUCCEEDED, "of-two")


def test_another_version_of_the_tool_reuses_nothing(bench: Bench) -> None:
    bench.run(chain(bench, "one"))
    bench.run(chain(bench, "one"), version="2")
    assert bench.ran == ["one", "last"] * 2


def test_a_changed_input_runs_its_task_and_what_is_behind(bench: Bench) -> None:
    params = (Param(name="p", description="p", default="1"),)
    one = bench.task("one", gives("OUT", "x"), results=("OUT",))
    two = bench.task(
        "two", Joined(("say:", InputRef("p"))), gives("OUT", "y"), results=("OUT",), inputs={"p": ParamRef("p")},
        params=params, after=(one,),
    )  # fmt: skip
    three = bench.task("three", Joined(("say:", InputRef("in"))), inputs={"in": two.OUT})
    pipeline = Pipeline("p", "p", tasks=(one, two, three))
    bench.run(pipeline)
    bench.run(pipeline, params={"p": "2"})
    # `two` gave what it gave before, so there is nothing new for `three`.
    assert bench.ran == ["one", "two", "three", "two"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"from_step": "two"}, ["two", "three", "last"]),
        ({"force": True}, ["one", "two", "three", "last"]),
        ({"always": {"one"}}, ["one"]),
    ],
)
def test_what_shall_run_again_runs_again(bench: Bench, more: dict[str, object], expected: list[str]) -> None:
    bench.run(chain(bench, "one", "two", "three"))
    bench.run(chain(bench, "one", "two", "three"), **more)
    assert bench.ran[4:] == expected


def test_what_follows_the_tasks_runs_again_when_a_run_was_killed_before_it(bench: Bench) -> None:
    bench.run(chain(bench, "one"))
    folder = RunFolder(bench.root / "runs/run-1")
    last = folder.task("last").record()
    bench.run(chain(bench, "one"), force=True, skip={"last"})
    assert last
    assert folder.task("last").record() is None
    bench.run(chain(bench, "one"))
    assert bench.ran == ["one", "last", "one", "last"]


def images(bench: Bench) -> Pipeline:
    """A build, a sign and a publish as far as reuse is concerned."""
    both = ("IMAGE_URL", "IMAGE_DIGEST")
    build = bench.task("build", gives(both[0], "r/staging"), gives(both[1], "sha256:b"), results=both)
    publish = bench.task(
        "publish", Joined(("say:", InputRef("image"))), gives(both[0], "r/final"), gives(both[1], "sha256:p"),
        results=both, inputs={"image": build.by_digest()},
    )  # fmt: skip
    return Pipeline("p", "p", tasks=(build, publish), finally_=(bench.task("clean"),))


def only(*there: str) -> Callable[[str, str], bool]:
    return lambda url, digest: url in there


def test_a_candidate_that_was_cleaned_up_is_not_missed(bench: Bench) -> None:
    bench.run(images(bench))
    bench.run(images(bench), alive=only("r/final"))
    assert bench.ran == ["build", "publish", "clean"]


def test_a_published_image_that_is_gone_is_made_again_from_the_start(bench: Bench) -> None:
    bench.run(images(bench))
    bench.run(images(bench), alive=only())
    assert bench.ran == ["build", "publish", "clean"] * 2


def test_a_published_image_that_is_gone_is_made_again_from_its_candidate(bench: Bench) -> None:
    bench.run(images(bench))
    bench.run(images(bench), alive=only("r/staging"))
    assert bench.ran == ["build", "publish", "clean", "publish", "clean"]


def test_a_failed_run_goes_on_where_it_failed(bench: Bench) -> None:
    counter = bench.root / "n"
    one = bench.task("one", gives("OUT", "x"), results=("OUT",))
    two = bench.task("two", Joined(("say:", InputRef("in"))), f"fail-times:1,10,{counter}", inputs={"in": one.OUT})
    pipeline = Pipeline("p", "p", tasks=(one, two))
    bench.run(pipeline)
    assert bench.run(pipeline).state == SUCCEEDED
    assert bench.ran == ["one", "two", "two"]


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"key": 1}'])
def test_a_broken_record_counts_as_none(bench: Bench, broken: str) -> None:
    bench.run(chain(bench, "one"))
    (bench.root / "runs/run-1/tasks/one/record.json").write_text(broken)
    assert bench.run(chain(bench, "one")).state == SUCCEEDED
    assert bench.ran == ["one", "last", "one", "last"]


def start(bench: Bench, *names: str, seconds: float) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fixtures.local", str(bench.root), ",".join(names), str(seconds)],
        cwd=root, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_killed_at_any_moment_the_same_run_again_ends_right(bench: Bench) -> None:
    names = ("one", "two", "three", "four")
    chance = random.Random(7)
    for _ in range(12):
        with start(bench, *names, seconds=0.15) as killed:
            try:
                killed.wait(chance.uniform(0.05, 1.2))
            except subprocess.TimeoutExpired:
                killed.send_signal(signal.SIGKILL)
            killed.communicate()
    with start(bench, *names, seconds=0.15) as again:
        assert again.communicate(timeout=60)[0] == "succeeded\n"
    folder = RunFolder(bench.root / "runs/run-1")
    assert [step.results.get("OUT") for step in folder.load().steps] == [
        "of-one",
        "of-two",
        "of-three",
        "of-four",
        None,
    ]
    assert set(bench.ran) == {*names, "last"}


def test_a_kill_takes_the_tasks_with_it_and_the_card_says_so(bench: Bench) -> None:
    folder = RunFolder(bench.root / "runs/run-1")
    with start(bench, "one", seconds=300) as killed:
        wait_for(lambda: bench.ran == ["one"])
        assert folder.load().state == RUNNING
        task = children_of(killed.pid)
        assert task
        killed.kill()
        killed.communicate()
    wait_for(lambda: not any(is_alive(pid) for pid in task))
    card = folder.load()
    assert (card.state, card.steps[0].state) == (CANCELLED, CANCELLED)
    assert "submit it again" in card.cause


def test_two_at_once_do_the_work_once(bench: Bench) -> None:
    with start(bench, "one", "two", seconds=0.5) as first, start(bench, "one", "two", seconds=0.5) as second:
        assert first.communicate(timeout=60)[0] == "succeeded\n"
        assert second.communicate(timeout=60)[0] == "succeeded\n"
    assert bench.ran == ["one", "two", "last"]


def test_a_run_card_survives_everything_but_a_half_written_file(bench: Bench) -> None:
    card = bench.run(chain(bench, "one"))
    folder = RunFolder(bench.root / "runs/run-1")
    assert folder.load() == card
    assert RunCard.from_json(card.to_json()) == card
    write(folder.path / "run.json", card.to_json())
    assert [path.name for path in folder.path.iterdir() if path.name.startswith(".")] == []


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen")
