"""`dtkpipe matrix submit`: every cell comes to an end, none is built twice, whatever happens to the planner.

Cells are small processes here (tests/fixtures/tiny.py); planner, runs, locks and registry are the real ones.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.matrix.failure import read
from dtkpipe.matrix.plan import Planned
from dtkpipe.matrix.turns import in_turns
from dtkpipe.values.arch import X86_64
from dtkpipe.values.cell import Cell, State, Target
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from tests.fixtures.cli import Cli, Said
from tests.fixtures.faults import Answer, on, proxied
from tests.fixtures.matrix import NEW, OLD, Shelf
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.tiny import journal, write_tiny


class Desk:
    """A folder with modules, and the command line in it."""

    def __init__(self, cli: Cli, place: ImageRef) -> None:
        self.cli, self.place = cli, place
        self.shelf = Shelf.at(cli.here)
        write_tiny(cli.here)

    def module(self, name: str, behave: str = "") -> None:
        self.shelf.module(name)
        (self.cli.here / "sources" / name / "behave").write_text(behave)

    def words(self, command: str, *more: str) -> tuple[str, ...]:
        return (
            "matrix", command, "--modules", "modules/*", "--releases", "4.16..4.17", "--arch", "x86_64", "--lock",
            "lock", "--push-to", str(self.place), "--insecure-registry", self.place.registry, "-o", "json", *more,
        )  # fmt: skip

    def submit(self, *more: str) -> Said:
        return self.cli(*self.words("submit", "--pipeline", "tiny.py", *more))

    def start(self, *more: str) -> Planner:
        return Planner(self, self.words("submit", "--pipeline", "tiny.py", *more))

    @property
    def begun(self) -> list[str]:
        return journal(self.cli.here)

    def until(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.02)


def results(text: str) -> dict[str, str]:
    return {f"{one['module']} {one['kernel']}": one["result"] for one in json.loads(text)["cells"]}


class Planner:
    """A planner in the background."""

    count = 0

    def __init__(self, desk: Desk, words: tuple[str, ...]) -> None:
        Planner.count += 1
        self.out, self.err = (desk.cli.here / f"{name}-{Planner.count}" for name in ("out", "err"))
        with self.out.open("wb") as out, self.err.open("wb") as err:
            # Whoever runs the tests in the background has had SIGINT ignored for all of them.
            argv = ["env", "--default-signal=INT", *desk.cli.argv(*words)]
            self.process = subprocess.Popen(argv, cwd=desk.cli.here, env=desk.cli.environ(), stdout=out, stderr=err)

    def ended(self) -> Said:
        code = self.process.wait(120)
        return Said(code, self.out.read_text(), self.err.read_text())


@pytest.fixture
def desk(cli: Cli, registry: LoopbackRegistry, tmp_path: Path) -> Desk:
    return Desk(cli, registry.repo(tmp_path.name.replace("_", "-")))


def test_one_bad_cell_stops_no_other_and_is_not_tried_again_unless_asked(
    desk: Desk, registry: LoopbackRegistry
) -> None:
    desk.module("good")
    desk.module("bad", "fail 10 bad.c:7:1: error: ‘gone’ undeclared")
    first = desk.submit()
    assert first.code == 10, first.err
    cells = json.loads(first.out)["cells"]
    assert json.loads(first.out)["summary"] == {"built": 2, "failed": 2}
    (bad,) = {one["cause"] for one in cells if one["module"] == "bad"}
    assert bad == "compile: 'gone' undeclared"
    assert "failed       bad for" in first.err

    (cell, _) = (one for one in json.loads(desk.cli(*desk.words("plan")).out)["cells"] if one["module"] == "bad")
    assert cell["state"] == "failed-before"
    failure = read(registry.client, ImageRef.parse(cell["image"]))
    assert failure.lines == ("bad.c:7:1: error: ‘gone’ undeclared",)
    assert (failure.module, failure.step, failure.kind) == ("bad", "resolve", "compile")
    assert "@" in failure.by
    assert failure.run

    again = desk.submit()
    assert (again.code, len(desk.begun)) == (10, 4)
    assert set(results(again.out).values()) == {"reused", "failed"}
    assert "compile: 'gone' undeclared" in again.out

    (desk.cli.here / "sources/bad/Makefile").write_text("# a new commit\n")
    (desk.cli.here / "sources/bad/behave").write_text("")
    assert set(results(desk.submit().out).values()) == {"built", "reused"}
    assert desk.cli(*desk.words("plan")).code == 0


def test_failures_are_tried_again_when_asked(desk: Desk) -> None:
    desk.module("bad", "fail 10 no luck")
    desk.submit()
    assert desk.submit("--retry-failed").code == 10
    assert Counter(desk.begun) == {f"bad {OLD}.x86_64": 2, f"bad {NEW}.x86_64": 2}


def test_what_the_machine_did_is_not_recorded(desk: Desk) -> None:
    desk.module("unlucky", "fail 7 registry.example.org does not answer")
    first = desk.submit()
    assert first.code == 10
    assert "infrastructure: registry.example.org does not answer" in first.out
    assert {cell["state"] for cell in json.loads(desk.cli(*desk.words("plan")).out)["cells"]} == {"missing"}


def test_a_cell_that_never_ends_is_ended(desk: Desk) -> None:
    desk.module("endless", "sleep 300")
    said = desk.submit("--cell-timeout", "2")
    assert said.code == 10
    assert set(results(said.out).values()) == {"failed"}
    assert "timeout: did not end within 2 s" in said.out
    desk.until(lambda: not _running(desk.cli.here))


def test_two_planners_at_once_build_nothing_twice(desk: Desk) -> None:
    for name in ("one", "two", "bad"):
        desk.module(name, "sleep 0.3" if name != "bad" else "sleep 0.3\nfail 10 no luck")
    planners = [desk.start() for _ in range(2)]
    said = [planner.ended() for planner in planners]
    assert Counter(desk.begun).most_common(1)[0][1] == 1, desk.begun
    assert len(desk.begun) == 6
    for one in said:
        assert one.code == 10, one.err
        found = results(one.out)
        assert {result for cell, result in found.items() if cell.startswith("bad")} == {"failed"}
        assert {result for cell, result in found.items() if not cell.startswith("bad")} <= {"built", "reused"}
    built = Counter(result for one in said for result in results(one.out).values())
    assert built["built"] == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_planner_leaves_nothing_behind_and_is_gone_on_with(desk: Desk, number: int) -> None:
    desk.module("fast")
    desk.module("slow", "sleep 300")
    planner = desk.start("--jobs", "4")
    desk.until(lambda: len(desk.begun) == 4)
    desk.until(lambda: "2/4" in planner.err.read_text())
    planner.process.send_signal(number)
    said = planner.ended()
    if number != signal.SIGKILL:
        assert said.code == 130, said.err
        assert Counter(results(said.out).values()) == {"built": 2, "cancelled": 2}
        assert "the same command goes on where it was" in said.err
    desk.until(lambda: not _running(desk.cli.here))
    (desk.cli.here / "sources/slow/behave").write_text("")
    again = desk.submit()
    assert again.code == 0, again.err
    assert Counter(results(again.out).values()) == {"reused": 2, "built": 2}
    assert Counter(desk.begun)[f"fast {OLD}.x86_64"] == 1


def _running(folder: Path) -> list[str]:
    """The processes that work for a planner in `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if f"{folder}/tiny_program.py" in command:
                found.append(command)
    return found


def test_a_failure_that_cannot_be_recorded_is_told(desk: Desk, registry: LoopbackRegistry) -> None:
    desk.module("bad", "fail 10 no luck")
    with proxied(registry.host) as proxy:
        desk.place = ImageRef(proxy.host, desk.place.repository)
        proxy.faults.append(on("PUT", "/manifests/failed-", lambda one: one.say(Answer(403, {}, b"{}"))))
        said = desk.submit()
    assert said.code == 10
    assert "no luck; it could not be recorded" in said.out


def test_nothing_to_do_is_no_failure(desk: Desk) -> None:
    desk.module("good")
    assert desk.submit().code == 0
    again = desk.submit()
    assert (again.code, set(results(again.out).values())) == (0, {"reused"})
    assert len(desk.begun) == 2


def test_quarantined_cells_are_left_alone(desk: Desk) -> None:
    desk.shelf.module("shy", more="exclusions: [{kernel: '>=5', reason: it bites, until: 2999-01-01}]\n")
    said = desk.submit()
    assert (said.code, set(results(said.out).values())) == (0, {"quarantined"})
    assert "until 2999-01-01: it bites" in said.out
    assert desk.begun == []


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--namespace", "x"), 2, "--namespace is for cells on a cluster"),
        (("--engine", "lcoal"), 2, "did you mean `local`?"),
        (("--jobs", "0"), 2, "jobs"),
        (("--pipeline", "nothing.py"), 10, "there is no pipeline file"),
    ],
)
def test_bad_input_is_told(desk: Desk, more: tuple[str, ...], code: int, said: str) -> None:
    desk.module("good")
    answer = desk.submit(*more)
    assert answer.code == code, answer.err
    assert said in answer.out + answer.err
    assert "Traceback" not in answer.err


def test_modules_take_turns_the_newest_kernel_first() -> None:
    def cell(module: str, number: int) -> Planned:
        target = Target(kernel=Kernel(f"6.1.{number}"), arch=X86_64, release="", serves="")
        return Planned(cell=Cell(module=module, target=target), state=State.MISSING, reason="")

    cells = [*(cell("many", number) for number in range(9, 13)), cell("few", 1), cell("some", 1), cell("some", 2)]
    assert [f"{one.module} {one.target.kernel}" for one in in_turns(cells)] == [
        "many 6.1.12", "few 6.1.1", "some 6.1.2", "many 6.1.11", "some 6.1.1", "many 6.1.10", "many 6.1.9",
    ]  # fmt: skip
