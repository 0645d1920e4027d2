"""submit, list, describe, logs and delete as processes, on pipelines of tiny tasks; the real one is in tests/steps."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtkpipe.values.run import RunCard
from tests.fixtures.cli import Cli
from tests.unit.test_local_engine import is_alive

PIPELINE = """\
from dtkpipe.model import InputRef, Joined, Pipeline, ResultPath, container, param
from dtkpipe.model.images import RUNNER
from dtkpipe.tasks import report, statuses
from dtkpipe.model import RunName

what, value = param("what", "What the second task does", "true")
one = container(
    "one", image=RUNNER, argv=("sh", "-c", 'echo from one; printf %s of-one > "$1"', "sh", ResultPath("TAGS")),
    results={"TAGS": "t"},
)
two = container(
    "two", image=RUNNER, argv=("sh", "-c", 'echo got "$2"; eval "$3"', "sh", "--", InputRef("in"), InputRef("what")),
    inputs={"in": one.TAGS, "what": value}, params=(what,),
)
mine = Pipeline("mine", "Two tasks", tasks=(one, two),
                finally_=(report(run_name=RunName(), statuses=statuses((one, two))),))
"""


@pytest.fixture
def mine(cli: Cli) -> Cli:
    (cli.here / "mine.py").write_text(PIPELINE)
    return cli


def submit(cli: Cli, what: str = "true", *more: str) -> list[str]:
    return ["submit", "--pipeline", "mine.py", "-p", f"what={what}", *more]


def test_a_run_ends_with_its_outcome(mine: Cli) -> None:
    said = mine(*submit(mine))
    assert said.code == 0
    lines = [re.sub(r"\d\d:\d\d:\d\d", "TIME", re.sub(r"\d+\.\d s", "N s", line)) for line in said.err.splitlines()]
    assert re.fullmatch(r"run mine-[0-9a-f]{8}", lines[0])
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["TIME", "one", "succeeded"], ["TIME", "two", "succeeded"], ["TIME", "report", "succeeded"]
    ]  # fmt: skip
    assert lines[-2:] == ["done in N s", f"next: dtkpipe describe {lines[0].removeprefix('run ')}"]


def test_the_same_again_is_reused_and_said(mine: Cli) -> None:
    first = mine(*submit(mine, "true", "-o", "name"))
    again = mine(*submit(mine, "true", "-o", "name"))
    assert (first.code, again.code, again.out) == (0, 0, first.out)
    assert again.err.count("reused") == 4
    assert "reused: all of it was there already" in again.err
    assert "reused" not in mine(*submit(mine, "true", "--force")).err
    other = mine(*submit(mine, "echo", "-o", "name"))
    assert other.out != first.out


def test_the_answer_in_every_form(mine: Cli) -> None:
    card = RunCard.from_json(mine(*submit(mine, "true", "-o", "json")).out)
    assert (card.state, card.engine, card.pipeline, card.result("one", "TAGS")) == (
        "succeeded",
        "local",
        "mine",
        "of-one",
    )
    assert mine(*submit(mine, "true", "-o", "name")).out == f"run/{card.name}\n"
    assert f"name: {card.name}\n" in mine(*submit(mine, "true", "-o", "yaml")).out
    assert json.loads(mine("describe", "@latest", "-o", "json").out)["name"] == card.name


def test_a_failed_run_says_why_and_where_to_look(mine: Cli) -> None:
    said = mine(*submit(mine, "echo 'error: bad thing'; echo '  detail'; exit 3"))
    assert said.code == 10
    [card] = json.loads(mine("list", "-o", "json").out)
    name, log = card["name"], card["steps"][1]["log"]
    assert said.err.endswith(
        f"\nerror: two: bad thing\n  detail\n  log: {log}\n\nhint: dtkpipe logs {name} --task two\n"
    )
    assert card["cause"] == "two: bad thing"


@pytest.mark.parametrize(("code", "expected"), [(4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (10, 10), (3, 10), (1, 10)])
def test_the_exit_code_is_the_kind_of_the_cause(mine: Cli, code: int, expected: int) -> None:
    assert mine(*submit(mine, f"exit {code}")).code == expected


def test_quiet_and_verbose(mine: Cli) -> None:
    quiet = mine(*submit(mine, "true", "-q"))
    assert not re.search(r"\d\d:\d\d:\d\d", quiet.err)
    assert "[one] from one\n" in mine(*submit(mine, "echo more", "-v")).err


def test_on_github_logs_are_groups_and_failures_annotations(mine: Cli, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    said = mine(*submit(mine, "echo '::set-env name=X::y'; exit 1"), env=env)
    assert "::group::two failed\n" in said.err
    # What a task prints is no command to the runner.
    fence = re.search(
        r"::stop-commands::(\w{32})\ngot of-one\n::set-env name=X::y\n::(\w{32})::\n::endgroup::", said.err
    )
    assert fence
    assert fence[1] == fence[2]
    assert "::error title=two::::set-env name=X%3A%3Ay" in said.err or "::error title=two::" in said.err
    assert "two" in summary.read_text()


def test_a_dry_run_runs_nothing(mine: Cli) -> None:
    said = mine(*submit(mine, "true", "--dry-run"))
    assert said.code == 0
    assert re.fullmatch(r"mine-[0-9a-f]{8}: one -> two -> report\n", said.out)
    assert not (mine.home / "state/runs").exists()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["-p", "waht=x"], 2, "pipeline `mine` has no parameter `waht`"),
        (["-p", "what"], 2, "-p takes NAME=VALUE, not `what`"),
        (["--from-step=three"], 2, "there is no task `three` to start from"),
        (["--release=debian-12"], 2, "pipeline `mine` has no parameter `release`"),
        (["--secret=x"], 2, "--secret takes NAME=FOLDER, not `x`"),
        (["--secret=x=/does/not/exist"], 5, "secret `x`: there is no folder /does/not/exist"),
        (["--auth-file=/does/not/exist"], 5, "there is no file /does/not/exist"),
    ],
)
def test_mistakes_in_a_pipeline_of_the_users_own(mine: Cli, words: list[str], code: int, text: str) -> None:
    said = mine("submit", "--pipeline", "mine.py", *words)
    assert (said.code, said.out) == (code, "")
    assert said.err.splitlines()[-1 if code == 5 else 0].startswith(f"error: {text}") or f"error: {text}" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--repo=."], 2, "nothing says what to build for"),
        (["--release=debain-12", "--repo=unknown.invalid/a"], 5, "there is no release `debain-12`"),
        (["--kernel=5 14", "--repo=unknown.invalid/a"], 6, "`5 14` is not a kernel release"),
        (["--release=debian-12", "--arch=sparc", "--repo=unknown.invalid/a"], 5, "unknown architecture `sparc`"),
        (["--release=debian-12", "--repo=./nowhere"], 5, "there is no folder "),
        (["--release=debian-12", "--repo=https://user:pass@host/x"], 6, "the URL of the source holds credentials"),
        (["--release=debian-12", "--repo=.", "--ref=v1"], 6, "a folder has no branches"),
        (["--release=debian-12"], 2, "pipeline `prebuild` needs `repo`"),
        (["--release=debian-12", "--repo=.", "-p", "sign-secret=x"], 2, "`sign-secret` names a Secret of a cluster"),
        (
            ["--release=debian-12", "--repo=.", "--pipeline=prebuild", "--load-on-this-host"],
            2,
            "--load-on-this-host: pipeline `prebuild` has no `deploy`",
        ),
        (["--release=debian-12", "--repo=.", "--pipeline=prebiuld"], 5, "there is no pipeline `prebiuld`"),
        (["--release=debian-12", "--repo=.", "--sign-key=mine.py"], 2, "--sign-key is given without --sign-cert"),
        (["--release=debian-12", "--repo=.", "--sign-cert=nowhere"], 2, "--sign-cert: `nowhere` cannot be read"),
        (["--release=debian-12", "--repo=.", "--spec=nowhere"], 2, "--spec: `nowhere` cannot be read"),
    ],
)
def test_mistakes_are_found_before_anything_is_started(mine: Cli, words: list[str], code: int, text: str) -> None:
    said = mine("submit", *words)
    assert (said.code, said.out) == (code, "")
    assert f"error: {text}" in said.err
    assert not (mine.home / "state/runs").exists()
    assert "pass@" not in said.err


def test_the_nearest_option_is_named(mine: Cli) -> None:
    said = mine("submit", "--relase", "debian-12")
    assert (said.code, said.err) == (2, "error: no such option: --relase\n\nhint: did you mean `--release`?\n")


def test_list_describe_logs_and_delete(mine: Cli) -> None:
    assert mine("list").err == "there are no runs yet\n\nhint: dtkpipe submit --help\n"
    assert json.loads(mine("list", "-o", "json").out) == []
    name = mine(*submit(mine, "exit 1", "-o", "name")).out.strip().removeprefix("run/")
    head, row = mine("list").out.splitlines()
    assert head.split() == ["NAME", "ENGINE", "STATE", "KERNEL", "VERDICT", "TIME", "AGE", "CAUSE"]
    assert row.split()[:3] == [name, "local", "failed"]
    shown = mine("describe", name)
    assert shown.out.splitlines()[0].split()[:2] == [name, "failed"]
    assert " ✔ one " in shown.out
    assert " ✖ two " in shown.out
    assert shown.err == f"\nhint: dtkpipe logs {name} --failed\n"
    assert mine("describe", name, "-o", "markdown").out.startswith("| ")
    assert mine("describe", name, "-o", "junit").out.startswith("<?xml")
    logs = mine("logs", name, "--task", "one", "--task", "two")
    assert logs.out == "[one] from one\n[two] got of-one\n"
    assert logs.err == f"run {name} failed: two: got of-one\n"
    assert mine("logs", name, "--failed", "--no-prefix").out.startswith("got of-one\n")
    assert mine("logs", name, "-t", "tow").code == 5
    assert mine("logs", name, "-t", "one", "--failed").code == 9
    assert mine("delete", name).out == f"run/{name} deleted\n"
    assert mine("delete", name).code == 5


def test_wait_exits_as_the_run_did(mine: Cli) -> None:
    name = mine(*submit(mine, "exit 1", "-o", "name")).out.strip().removeprefix("run/")
    said = mine("wait", name, "-o", "name")
    assert (said.code, said.out) == (10, f"run/{name}\n")
    assert said.err.startswith(f"error: run {name} failed: two: ")


def test_cancel_ends_a_run_that_goes_on_elsewhere(mine: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with started(mine, *submit(mine, f"cat {gate}")) as run:
        name = wait_for_run(mine, "two")
        late = mine("wait", name, "--timeout", "1")
        assert (late.code, late.out) == (12, "")
        assert mine("delete", name).code == 8
        assert mine("cancel", name).out == f"run/{name} cancelled\n"
        assert mine("wait", name).code == 11
        run.communicate(timeout=60)
    assert mine("cancel", name).out == f"run/{name} has ended: cancelled\n"
    said = mine("retry", name)
    assert said.code == 8
    assert "give the same `dtkpipe submit` again" in said.err


def test_a_run_of_this_machine_has_no_nodes(mine: Cli) -> None:
    name = mine(*submit(mine, "exit 1", "-o", "name")).out.strip().removeprefix("run/")
    for words in (["--node", "n"], ["--attempt", "1"], ["--previous"]):
        assert mine("logs", name, *words).code == 8
    for words in (["--node", "n", "--failed"], ["--attempt", "1", "--previous"], ["-f", "-p"]):
        assert mine("logs", name, *words).code == 2


def test_logs_follow_a_run_to_its_end(mine: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with started(mine, *submit(mine, f"cat {gate}; echo the end")) as run:
        name = wait_for_run(mine, "two")
        follow = started(mine, "logs", name, "-f", "--tail", "5")
        with follow as following:
            assert following.stdout
            assert following.stdout.readline() == "[one] from one\n"
            gate.write_text("news\n")
            rest = following.stdout.read()
        run.communicate(timeout=60)
    assert rest.splitlines()[:3] == ["[two] got of-one", "[two] news", "[two] the end"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_130_and_a_clean_house(mine: Cli, tmp_path: Path, number: int) -> None:
    pid = tmp_path / "pid"
    with started(mine, *submit(mine, f"sleep 300 & echo $! > {pid}; wait")) as run:
        name = wait_for_run(mine, "two")
        while not (pid.exists() and pid.read_text().strip()):
            select.select([], [], [], 0.01)
        run.send_signal(number)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert f"cancelled: run {name}; the same command goes on where it was" in err
    gone = time.monotonic() + 30  # the kernel needs a moment on a busy machine
    while is_alive(int(pid.read_text())):
        assert time.monotonic() < gone
        select.select([], [], [], 0.01)
    card = json.loads(mine("describe", name, "-o", "json").out)
    assert (card["state"], [step["state"] for step in card["steps"]][:2]) == ("cancelled", ["succeeded", "cancelled"])


def test_a_running_run_is_not_deleted_and_waited_for(mine: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    words = submit(mine, f"cat {gate}")
    with started(mine, *words) as first:
        name = wait_for_run(mine, "two")
        assert mine("delete", name).code == 8
        with started(mine, *words) as second:
            assert second.stderr
            said = [second.stderr.readline() for _ in range(2)]
            gate.write_text("go\n")
            first.communicate(timeout=60)
            _, rest = second.communicate(timeout=60)
    assert said[1] == f"run {name} is running already: waiting for it\n"
    assert "reused: all of it was there already" in rest
    assert (first.returncode, second.returncode) == (0, 0)


SGR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("plain", [False, True])
def test_a_live_tree_on_a_terminal(mine: Cli, plain: bool) -> None:
    code, screen = on_a_terminal(mine, submit(mine, "echo working; sleep 0.5"), {"NO_COLOR": "1"} if plain else {})
    assert code == 0
    assert bool(SGR.search(screen)) is not plain
    text = SGR.sub("", screen)
    assert re.search(r"● two +0\.\d s +working", text)
    last = text[text.rindex("mine-") :] if "next:" not in text else text[: text.rindex("next:")]
    assert "✔ one" in last
    assert "✔ report" in last


def test_a_terminal_without_utf8_gets_letters(mine: Cli) -> None:
    _, screen = on_a_terminal(
        mine, submit(mine, "true"), {"PYTHONIOENCODING": "ascii:backslashreplace", "NO_COLOR": "1"}
    )
    assert "✔" not in screen
    assert re.search(r"S one", screen)


def test_a_dumb_terminal_gets_lines(mine: Cli) -> None:
    _, screen = on_a_terminal(mine, submit(mine), {"TERM": "dumb"})
    assert "\x1b" not in screen
    assert re.search(r"\d\d:\d\d:\d\d +one +succeeded", screen)


def on_a_terminal(cli: Cli, words: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Run a command with stderr on a pseudo terminal; return its exit code and what the terminal got."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        cli.argv(*words), cwd=cli.here, env=cli.environ({"TERM": "xterm-256color", **env}), stdin=theirs,
        stdout=subprocess.DEVNULL, stderr=theirs,
    ) as running:  # fmt: skip
        os.close(theirs)
        screen = b""
        with contextlib.suppress(OSError):  # the other side was closed
            while chunk := os.read(ours, 65536):
                screen += chunk
    os.close(ours)
    return running.returncode, screen.decode()


@contextlib.contextmanager
def started(cli: Cli, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in the background; it is killed if the test fails."""
    with subprocess.Popen(
        cli.argv(*words), cwd=cli.here, env=cli.environ({"PYTHONUNBUFFERED": "1"}), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            yield running
        except BaseException:
            running.kill()
            raise


def wait_for_run(cli: Cli, task: str) -> str:
    """Return the name of the only run as soon as `task` runs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for file in (cli.home / "state/runs").glob("*/run.json"):
            card = RunCard.from_json(file.read_text())
            if any(step.name == task and step.state == "running" for step in card.steps):
                return card.name
        select.select([], [], [], 0.02)
    raise AssertionError(f"task {task} does not run")
