"""The loader of drivers, in each shell that images have, against a kernel that is files; real ones: tests/e2e."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from dtkpipe.resources import shipped

ENTER = Path(__file__).parents[1] / "fixtures/loader/enter"
SHELLS = {"dash": "/usr/bin/dash", "bash": "/usr/bin/bash", "busybox": "/usr/bin/busybox ash"}
FIRST = ("kernel 6.1", "own /opt", "host /")


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@dataclass
class Box:
    """A node's container."""

    root: Path
    shell: str

    def loaded(self, name: str, srcversion: str, taint: str = "OE", state: str = "Live") -> None:
        """Have a module loaded."""
        with self.file("proc/modules").open("a") as modules:
            modules.write(f"{name} 16384 0 - {state} 0x0000000000000000 (OE)\n")
        self.file(f"sys/module/{name}/srcversion").write_text(f"{srcversion}\n")
        self.file(f"sys/module/{name}/taint").write_text(f"{taint}\n")

    def file(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def run(self, *acts: str, until: str = "ready", stuck: bool = False) -> str:
        """Run it until it says `until`, then end it as a kubelet does; return what it said and `exit CODE`.

        With `stuck`, what it waits in does not hear a TERM.
        """
        argv = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
        with subprocess.Popen(
            [*argv, ENTER, self.root, self.shell, *FIRST, *acts],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as loader:  # fmt: skip
            assert loader.stdout
            said = []
            (watch := threading.Timer(60, loader.kill)).start()
            for line in loader.stdout:
                said.append(line.rstrip("\n"))
                if line.strip() == until:
                    self._end(loader.pid, stuck=stuck)
            watch.cancel()
            code = loader.wait()
        return "\n".join([*said, f"exit {code}"])

    def _end(self, unshare: int, *, stuck: bool) -> None:
        """Send the loader TERM: it is the first process of its own world, and the only child of `unshare`."""
        (shell,) = _children(unshare)
        while stuck and not (waits_in := _children(shell)):
            pass  # it is about to be forked
        if stuck:
            os.kill(waits_in[0], signal.SIGSTOP)
        os.kill(shell, signal.SIGTERM)

    @property
    def modules(self) -> list[str]:
        return [line.split()[0] for line in self.file("proc/modules").read_text().splitlines()]

    @property
    def cause(self) -> list[str]:
        return self.file("dev/termination-log").read_text().splitlines()

    @property
    def is_ready(self) -> bool:
        return bool(self.file("run/dtkpipe/ready").read_text())


@pytest.fixture(params=SHELLS)
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Box:
    made = Box(tmp_path, SHELLS[request.param])
    for folder in ("usr", "dev/pts", "run/dtkpipe", "sys/module", "var/lib/firmware", "tmp"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tmp_path / name).symlink_to(f"usr/{name}")
    (tmp_path / "dev/ptmx").symlink_to("pts/ptmx")
    for name in ("proc/modules", "dev/kmsg", "dev/null", "dev/termination-log"):
        made.file(name).touch()
    made.file("proc/sys/kernel/osrelease").write_text("6.1\n")
    made.file("dtkpipe/load").write_text((shipped("catalog/driver") / "load").read_text())
    return made


def test_all_is_loaded_in_order_and_goes_the_other_way_round(box: Box) -> None:
    box.file("sys/module/firmware_class/parameters/path").write_text("\n")
    box.file("opt/lib/firmware/demo/one.bin").write_text("hello")
    said = box.run(
        "unload required", "need in_tree_one", "try in_tree_two", "firmware-folder /var/lib/firmware",
        "firmware demo/one.bin", "load a a of-a -", "parameter x=1 2", "parameter y=$(HOME) `z` \"'",
        "load b vendor-b of-b -",
    )  # fmt: skip
    assert said.splitlines() == [
        "loaded in_tree_one of the kernel's own", "loaded in_tree_two of the kernel's own",
        "firmware demo/one.bin is in /var/lib/firmware", "loading a with x=1 2 y=$(HOME) `z` \"'", "loaded a",
        "loading b", "loaded b", "ready", "told to end", "unloaded b", "unloaded a", "exit 0",
    ]  # fmt: skip
    assert box.file("calls").read_text().splitlines() == [
        "modprobe in_tree_one ", "modprobe in_tree_two ", "modprobe a x=1 2 y=$(HOME) `z` \"'", "modprobe vendor-b ",
        "rmmod b", "rmmod a",
    ]  # fmt: skip
    assert box.file("var/lib/firmware/demo/one.bin").read_text() == "hello"
    assert box.file("sys/module/firmware_class/parameters/path").read_text() == "/var/lib/firmware"
    assert not box.is_ready
    assert not box.cause


def test_it_ends_whatever_becomes_of_what_it_waits_in(box: Box) -> None:
    assert box.run("load a a of-a -", stuck=True).splitlines()[-2:] == ["unloaded a", "exit 0"]


def test_the_same_build_is_left_alone(box: Box) -> None:
    box.loaded("a", "of-a")
    said = box.run("unload never", "load a a of-a -")
    assert said.splitlines() == [
        "a is loaded already: the same build", "ready", "told to end",
        "the modules stay: they cannot be unloaded", "exit 0",
    ]  # fmt: skip
    assert box.modules == ["a"]


def test_another_build_makes_room_with_what_uses_it(box: Box) -> None:
    box.loaded("a", "older")
    box.loaded("b", "of-b")
    said = box.run("unload required", "load a a of-a -", "load b b of-b -").splitlines()
    assert said[:2] == ["unloaded b to make room for the new build", "unloaded a to make room for the new build"]
    assert said[2:6] == ["loading a", "loaded a", "loading b", "loaded b"]


def test_what_cannot_be_compared_is_loaded_anew_where_it_can_be_unloaded(box: Box) -> None:
    box.loaded("a", "of-a")
    said = box.run("unload required", "load a a - -").splitlines()
    assert said[:3] == ["unloaded a to make room for the new build", "loading a", "loaded a"]
    box.loaded("a", "of-a")
    assert box.run("unload never", "load a a - -").splitlines()[0] == "a is loaded already: the same build"


@pytest.mark.parametrize(
    ("name", "more", "cause"),
    [
        ("busy", ("unload required",), "another build of busy is loaded and cannot be unloaded"),
        ("a", ("unload never",), "another build of a is loaded, and it cannot be unloaded"),
    ],
)
def test_another_build_that_stays_is_named(box: Box, name: str, more: tuple[str, ...], cause: str) -> None:
    box.loaded(name, "older")
    assert box.run(*more, f"load {name} {name} of-{name} -").endswith("exit 1")
    assert box.cause[0] == cause
    assert (box.modules, box.is_ready) == ([name], False)


def test_modules_of_the_kernels_own_go_when_they_are_named_and_come_back_when_it_fails(box: Box) -> None:
    box.loaded("in_tree_a", "theirs", taint="")
    refused = box.run("unload required", "load in_tree_a in_tree_a of-in_tree_a -")
    assert box.cause[0] == "in_tree_a is loaded, and is the kernel's own module"
    assert refused.endswith("exit 1")
    box.file("dev/termination-log").write_text("")
    said = box.run("unload required", "remove in_tree_a", "remove not_there", "load a a of-a -", "load bad bad - -")
    assert box.cause == [
        "the kernel does not take bad", "  modprobe: ERROR: could not insert 'bad': No such device",
        "  kernel: bad: probe failed",
    ]  # fmt: skip
    assert said.splitlines()[-3:] == ["unloaded a again", "put back in_tree_a of the kernel's own", "exit 1"]
    assert box.modules == ["in_tree_a"]


@pytest.mark.parametrize(
    ("acts", "cause"),
    [
        (("load breaks breaks - -",), "breaks broke the kernel while it was loading: modprobe ended by signal 11"),
        (("load a a other -",), "a is loaded, but is another build than the image's"),
        (("need bad_in_tree", "load a a of-a -"), "bad_in_tree of the kernel's own, which the driver needs, cannot be"),
        (("firmware-folder /fw", "firmware x"), "the kernel of this node looks for firmware in /elsewhere, not in /fw"),
        (("firmware-folder /elsewhere", "firmware x"), "firmware x cannot be copied to /elsewhere"),
        (("kernel 6.2",), "this node runs kernel 6.1, the image is for 6.2"),
    ],
)
def test_causes(box: Box, acts: tuple[str, ...], cause: str) -> None:
    box.file("sys/module/firmware_class/parameters/path").write_text("/elsewhere\n")
    assert box.run("unload required", *acts).endswith("exit 1")
    assert box.cause[0].startswith(cause)
    assert (box.modules, box.is_ready) == ([], False)


def test_a_module_that_never_got_any_further(box: Box) -> None:
    box.loaded("a", "of-a", state="Loading")
    assert box.run("unload required", "load a a of-a -").endswith("exit 1")
    assert box.cause[0] == "a is Loading since an earlier attempt, and does not get any further"


def test_it_hears_while_a_module_loads(box: Box) -> None:
    said = box.run("unload required", "load a a of-a -", "load hangs hangs - -", until="loading hangs")
    assert said.splitlines()[-4:] == ["loading hangs", "told to end", "unloaded a", "exit 0"]


def test_what_cannot_be_unloaded_at_the_end_is_said(box: Box) -> None:
    said = box.run("unload required", "load busy busy of-busy -")
    assert said.splitlines()[-3:] == ["busy cannot be unloaded", "  rmmod: ERROR: Module busy is in use", "exit 1"]
