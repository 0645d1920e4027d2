"""The local engine runs graphs of real processes: order, results, retries, time limits, interrupts, secrets."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from dtkpipe.errors import UsageError
from dtkpipe.model import (
    InputRef,
    Joined,
    Param,
    ParamRef,
    Pipeline,
    ResultPath,
    RunName,
    Secret,
    SecretPath,
    container,
)
from dtkpipe.model.images import RUNNER
from dtkpipe.tasks import statuses
from dtkpipe.values.run import CANCELLED, FAILED, PENDING, SKIPPED, SUCCEEDED
from tests.fixtures.local import Bench, Recorder, chain, gives


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_results_go_from_task_to_task(bench: Bench) -> None:
    card = bench.run(chain(bench, "one", "two", "three"))
    assert card.state == SUCCEEDED
    assert bench.ran == ["one", "two", "three", "last"]
    assert card.result("three", "OUT") == "of-three"
    assert bench.order(chain(bench, "one")).folder.task("two").log.read_text() == "of-one\n"


def test_the_order_is_that_of_the_needs_and_not_of_the_list(bench: Bench) -> None:
    first = bench.task("first", gives("OUT", "x"), results=("OUT",))
    second = bench.task("second", Joined(("say:", InputRef("in"))), inputs={"in": first.OUT})
    assert bench.run(Pipeline("p", "p", tasks=(second, first))).state == SUCCEEDED
    assert bench.ran == ["first", "second"]


def test_independent_tasks_run_at_the_same_time(bench: Bench) -> None:
    here, there = bench.root / "here", bench.root / "there"
    tasks = (bench.task("a", f"meet:{here},{there}"), bench.task("b", f"meet:{there},{here}"))
    assert bench.run(Pipeline("p", "p", tasks=tasks)).state == SUCCEEDED


def test_params_and_the_name_of_the_run_arrive_as_they_are(bench: Bench) -> None:
    hostile = "a b'\"$(touch x)\n{{y}} --flag ünï"
    task = bench.task(
        "a", Joined(("say:", InputRef("given"))), Joined(("say:", RunName())),
        inputs={"given": ParamRef("p")}, params=(Param(name="p", description="p", default="d"),),
    )  # fmt: skip
    bench.run(Pipeline("p", "p", tasks=(task,)), params={"p": hostile})
    order = bench.order(Pipeline("p", "p", tasks=(task,)))
    assert order.folder.task("a").log.read_text() == f"{hostile}\nrun-1\n"
    bench.run(Pipeline("p", "p", tasks=(task,)))
    assert order.folder.task("a").log.read_text() == "d\nrun-1\n"


def test_a_task_works_in_an_empty_folder_of_its_own_that_is_gone_afterwards(bench: Bench) -> None:
    pipeline = Pipeline("p", "p", tasks=(bench.task("a", f"cwd:{bench.root / 'said'}"),))
    bench.run(pipeline)
    work = bench.order(pipeline).folder.task("a").work
    assert (bench.root / "said").read_text() == f"{work} {work} "
    assert not work.exists()
    bench.run(pipeline, force=True, keep=True)
    assert work.is_dir()


def test_only_what_may_go_away_is_tried_again(bench: Bench) -> None:
    tasks = (
        bench.task("away", f"fail-times:2,7,{bench.root / 'n'}", retries=2),
        bench.task("refused", "exit:10", retries=2),
    )
    card = bench.run(Pipeline("p", "p", tasks=tasks))
    assert {step.name: step.state for step in card.steps} == {"away": SUCCEEDED, "refused": FAILED}
    assert bench.ran.count("away") == 3
    assert bench.ran.count("refused") == 1


def test_retries_come_to_an_end(bench: Bench) -> None:
    card = bench.run(Pipeline("p", "p", tasks=(bench.task("away", "exit:7", retries=2),)))
    assert bench.ran.count("away") == 3
    assert (card.state, card.steps[0].exit_code) == (FAILED, 7)


def test_after_a_failure_nothing_starts_but_the_finally_tasks(bench: Bench) -> None:
    one = bench.task("one")
    two = bench.task("two", "say:error: it is broken", "say:  look here", "exit:10", after=(one,))
    three = bench.task("three", after=(two,))
    tasks = (one, two, three)
    last = bench.task("last", Joined(("say:", InputRef("how"))), inputs={"how": statuses(tasks)})
    pipeline = Pipeline("p", "p", tasks=tasks, finally_=(last,))
    card = bench.run(pipeline)
    assert bench.ran == ["one", "two", "last"]
    assert (card.state, card.cause) == (FAILED, "two: it is broken")
    assert [step.state for step in card.steps] == [SUCCEEDED, FAILED, PENDING, SUCCEEDED]
    folder = bench.order(pipeline).folder
    assert folder.task("last").log.read_text().strip() == '["one=Succeeded","two=Failed","three=None"]'
    assert folder.task("two").error() == ["it is broken", "  look here"]


def test_the_results_of_a_task_that_refuses_are_kept(bench: Bench) -> None:
    card = bench.run(
        Pipeline("p", "p", tasks=(bench.task("a", gives("VERDICT", "refused: x"), "exit:10", results=("VERDICT",)),))
    )
    assert card.result("a", "VERDICT") == "refused: x"


def test_a_task_that_takes_too_long_is_ended_with_its_children(bench: Bench) -> None:
    pid = bench.root / "pid"
    card = bench.run(Pipeline("p", "p", tasks=(bench.task("slow", f"child:{pid}", timeout=1, retries=3),)))
    assert (card.steps[0].state, card.steps[0].exit_code) == (FAILED, 12)
    assert card.cause == "slow: did not end within 1 s"
    assert bench.ran == ["slow"]
    assert not is_alive(int(pid.read_text()))


def test_an_interrupt_stops_the_tasks_and_cleans_up(bench: Bench) -> None:
    pid = bench.root / "pid"
    watcher = Recorder()
    pipeline = Pipeline("p", "p", tasks=(bench.task("slow", f"child:{pid}"),), finally_=(bench.task("last"),))
    threading.Thread(target=interrupt_when, args=(pid,)).start()
    card = bench.run(pipeline, watcher)
    assert card.state == CANCELLED
    assert bench.ran == ["slow", "last"]
    assert ("slow", CANCELLED) in watcher.states
    assert not is_alive(int(pid.read_text()))


def test_results_have_a_limit_and_are_text(bench: Bench) -> None:
    tasks = (
        bench.task("big", Joined(("big:", ResultPath("OUT"), "=4097")), results=("OUT",)),
        bench.task("odd", Joined(("bytes:", ResultPath("OUT"))), results=("OUT",)),
    )
    card = bench.run(Pipeline("p", "p", tasks=tasks))
    assert [step.cause for step in card.steps] == [
        "its results are larger than 4096 bytes",
        "result `OUT` is not a text file",
    ]


def test_a_result_that_was_not_written_fails_who_needs_it(bench: Bench) -> None:
    one = bench.task("one", results=("OUT",))
    two = bench.task("two", Joined(("say:", InputRef("in"))), inputs={"in": one.OUT})
    card = bench.run(Pipeline("p", "p", tasks=(one, two)))
    assert card.cause == "two: task `one` wrote no result `OUT`"


def test_secrets_are_the_users_own_files(bench: Bench) -> None:
    key = bench.root / "key.pem"
    key.write_text("pssst")
    secret = Secret(name="signing", param="signing", files=("key", "passphrase"))
    task = bench.task(
        "a", Joined(("say:", SecretPath("signing", "key"))), Joined(("say:", SecretPath("signing", "passphrase"))),
        "env:AUTH", "env:OTHER", secrets=(secret,), params=(Param(name="signing", description="s", default="s"),),
        env={"AUTH": SecretPath("signing", "key"), "OTHER": SecretPath("signing", "passphrase")},
    )  # fmt: skip
    pipeline = Pipeline("p", "p", tasks=(task,))
    bench.run(pipeline, secrets={"signing": {"key": key}})
    given, missing, auth, other = bench.order(pipeline).folder.task("a").log.read_text().splitlines()
    assert (given, auth, other) == (str(key), f"AUTH={key}", "OTHER=(unset)")
    assert not Path(missing).exists()
    kept = [path for path in (bench.root / "runs").rglob("*") if path.is_file() and "pssst" in path.read_text()]
    assert kept == []


def test_a_secret_that_is_needed_must_be_given(bench: Bench) -> None:
    secret = Secret(name="token", param="token", files=("t",), optional=False)
    task = bench.task("a", secrets=(secret,), params=(Param(name="token", description="t", default="t"),))
    assert bench.run(Pipeline("p", "p", tasks=(task,))).cause == "a: secret `token` is not given"


def test_tasks_can_be_left_out(bench: Bench) -> None:
    one = bench.task("one")
    two = bench.task("two", after=(one,))
    three = bench.task("three", after=(two,))
    pipeline = Pipeline("p", "p", tasks=(one, two, three), finally_=(bench.task("last"),))
    card = bench.run(pipeline, skip={"two", "last"})
    assert [step.state for step in card.steps] == [SUCCEEDED, SKIPPED, SKIPPED, SKIPPED]
    assert card.state == SUCCEEDED
    assert bench.ran == ["one"]


def test_a_flood_of_output_does_not_fill_the_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtkpipe.engines.local.worker.LOG_LIMIT", 10_000)
    task = container("yes", image=RUNNER, argv=("sh", "-c", "yes | head -n 100000; echo end"))
    pipeline = Pipeline("p", "p", tasks=(task,))
    assert bench.run(pipeline).state == SUCCEEDED
    text = bench.order(pipeline).folder.task("yes").log.read_text()
    assert len(text) < 20_000
    assert text.endswith("[dtkpipe: the rest of this output is not kept]\n")


def test_what_a_task_leaves_running_does_not_hold_up_the_run(bench: Bench) -> None:
    pid = bench.root / "pid"
    task = container("a", image=RUNNER, argv=("sh", "-c", 'sleep 300 & echo $! > "$1"', "sh", str(pid)))
    assert bench.run(Pipeline("p", "p", tasks=(task,))).state == SUCCEEDED
    assert not is_alive(int(pid.read_text()))


def test_a_program_that_is_not_there_fails_its_task(bench: Bench) -> None:
    card = bench.run(Pipeline("p", "p", tasks=(container("a", image=RUNNER, argv=("no-such-program",)),)))
    assert card.cause == "a: `no-such-program` is not installed"
    assert card.steps[0].exit_code == 8


def test_a_task_that_somebody_kills_says_so_and_not_what_it_said_last(bench: Bench) -> None:
    task = container("a", image=RUNNER, argv=("sh", "-c", "echo all is well; kill -KILL $$"))
    card = bench.run(Pipeline("p", "p", tasks=(task,)))
    assert card.cause == "a: was killed (SIGKILL)"
    assert bench.order(Pipeline("p", "p", tasks=(task,))).folder.task("a").error() == [
        "was killed (SIGKILL)", "all is well",
    ]  # fmt: skip


def test_from_step_must_be_a_task(bench: Bench) -> None:
    with pytest.raises(UsageError, match="no task `thre`"):
        bench.run(chain(bench, "one", "three"), from_step="thre")


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def interrupt_when(file: Path) -> None:
    """Press Ctrl-C when `file` has been written."""
    event = threading.Event()
    while not (file.exists() and file.read_text()):
        event.wait(0.01)
    os.kill(os.getpid(), signal.SIGINT)
