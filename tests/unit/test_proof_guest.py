"""What the guest tells is heard, what others write is not, and the log is judged."""

from __future__ import annotations

import base64
import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.proof import klog
from dtkpipe.proof.boot import ENDED, EXITED, OVERTIME, Boot, HeadAndTail
from dtkpipe.proof.guest import Listener, Loaded, Report
from dtkpipe.proof.initramfs import Initramfs
from dtkpipe.proof.judge import judge
from dtkpipe.proof.module import parse_module
from dtkpipe.proof.plan import CHECK, CONTROL, LOAD, LOOK, MARK, UNLOAD, Plan, Step
from tests.fixtures.elf import module_bytes

NONCE = "0123456789abcdef"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def tell(*words: str) -> bytes:
    return b"".join(f"{NONCE} {number} {word}\n".encode() for number, word in enumerate(words, start=1))


STORY = tell(
    "ready 6.1.0 " + b64("none [integrity]") + " 1 0",
    "begin 0",
    "done 0 0 ",
    "begin 1",
    f"loaded demo {b64('demo 16384 0 - Live 0x0 (OE)')} {b64('ABC')} {b64('')} {b64('OE')}",
    f"done 1 1 {b64('insmod: no')}",
    f"log 512 {b64('<6>[ 1.0] hello')} {b64('crypto-rmd160')}",
    "end",
)


@given(st.lists(st.integers(0, len(STORY)), max_size=12))
def test_however_the_bytes_come_the_story_is_the_same(cuts: list[int]) -> None:
    listener = Listener(NONCE)
    places = [0, *sorted(cuts), len(STORY)]
    for start, end in itertools.pairwise(places):
        listener.hear(STORY[start:end])
    report = listener.report
    assert report.kernel == "6.1.0"
    assert report.secure_boot
    assert report.statuses == {0: 0, 1: 1}
    assert report.outputs[1] == "insmod: no"
    assert report.loaded["demo"] == Loaded(state="Live", size=16384, srcversion="ABC", taint="OE")
    assert report.taints == (0, 512)
    assert report.wanted == ("crypto-rmd160",)
    assert report.ended
    assert report.noise == 0


@given(st.binary(max_size=400))
def test_nobody_else_is_heard(noise: bytes) -> None:
    listener = Listener(NONCE)
    assert not listener.hear(noise + b"\n")
    assert not listener.hear(f"{NONCE} 2 end\n".encode())
    assert listener.report.kernel == ""
    assert not listener.report.ended


def test_a_foreign_line_without_an_end_does_not_hide_ours() -> None:
    listener = Listener(NONCE)
    listener.hear(b"noise without an end" + tell("ready 6.1.0  0 0"))
    assert listener.report.kernel == "6.1.0"
    assert listener.report.noise == 1


def test_a_damaged_line_of_ours_is_counted_and_the_next_is_heard() -> None:
    listener = Listener(NONCE)
    listener.hear(tell("done x y z", "done 3", "end"))
    assert listener.report.ended
    assert listener.report.noise == 2


def test_a_flood_costs_little_memory() -> None:
    listener = Listener(NONCE)
    for _ in range(100):
        listener.hear(b"y" * (1 << 16))
    assert len(listener._line) <= 2 << 20
    listener.hear(b"\n" + tell("end"))
    assert listener.report.ended


@given(st.lists(st.binary(max_size=50), max_size=30))
def test_of_a_stream_the_beginning_and_the_end_are_kept(chunks: list[bytes]) -> None:
    kept, whole = HeadAndTail(head=20, tail=30), b"".join(chunks)
    for chunk in chunks:
        kept.add(chunk)
    text = kept.text()
    if len(whole) <= 50:
        assert text == whole.decode(errors="replace")
    else:
        assert f"{len(whole) - 50} bytes left out" in text


def test_the_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    root = Initramfs()
    root.file("bin/tool", b"#!/bin/sh\n", executable=True)
    root.file("proof/steps/000/args/000", "two\nlines")
    root.link("bin/sh", "tool")
    root.folder("empty")
    archive = root.archive()
    assert archive == root.archive()
    subprocess.run(["cpio", "-idm", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "proof/steps/000/args/000").read_text() == "two\nlines"
    assert (tmp_path / "bin/sh").read_text() == "#!/bin/sh\n"
    assert (tmp_path / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize(
    "line",
    [
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "WARNING: CPU: 0 PID: 71 at warns.c:6 warns_init+0x5/0x1000 [warns]",
        "Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000",
        "Internal error: Oops: 0000000096000044 [#1] SMP",
        "WARNING: possible circular locking dependency detected",
        "UBSAN: array-index-out-of-bounds in x.c:3:1",
        "general protection fault, probably for non-canonical address",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
        "refcount_t: underflow; use-after-free.",
        "sysfs: cannot create duplicate filename '/devices/x'",
        "BUG: KASAN: slab-out-of-bounds in x",
        "kernel BUG at lib/list_debug.c:30!",
    ],
)
def test_signs_of_a_defect_are_seen(line: str) -> None:
    assert klog.defects(klog.parse(f"<6>[    1.0] fine\n<4>[    1.2] {line}\n<4>[    1.2] more"))[0] == line
    # The same from a program in the guest proves nothing.
    assert klog.defects(klog.parse(f"<12>[    1.2] {line}")) == []


@pytest.mark.parametrize(
    "line", ["good: loading out-of-tree module taints kernel.", "demo: WARNING: voltage low", "demo: no BUG: here", ""]
)
def test_a_drivers_own_words_are_no_defect(line: str) -> None:
    assert klog.defects(klog.parse(f"<3>[    1.2] {line}")) == []


MODULE = parse_module(module_bytes(name="demo", srcversion="ABC"), "demo.ko")
PLAN = Plan(
    steps=(
        Step(do=CONTROL, module="demo", what="unsigned"), Step(do=MARK), Step(do=LOAD, module="demo"),
        Step(do=LOOK, module="demo"), Step(do=CHECK, args=("true",), limit="2"), Step(do=UNLOAD, module="demo"),
    ),
    files={}, order=("demo",), in_tree=(), notes=(),
)  # fmt: skip


def boot(stopped: str = ENDED, console: str = "", **changes) -> Boot:
    report = Report(
        kernel="6.1.0", begun=5, statuses=dict.fromkeys(range(6), 0) | {0: 1},
        outputs=dict.fromkeys(range(6), "") | {0: "insmod: can't insert: Required key not available"},
        loaded={"demo": Loaded(state="Live", srcversion="ABC", build_id="00112233")},
        log="<12>[ 1.0] the mark\n<6>[ 1.1] hello", ended=True,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(report, name, value)
    return Boot(
        report=report, mark="the mark", stopped=stopped, console=console, seconds=1, accelerated=False, machine=""
    )


def upto(number: int, status: int, said: str = "") -> dict:
    good = boot().report
    return {
        "begun": number,
        "statuses": {one: got for one, got in good.statuses.items() if one < number} | {number: status},
        "outputs": good.outputs | {number: said},
    }


def during(number: int) -> dict:
    return upto(number, 0) | {"statuses": {one: 1 if one == 0 else 0 for one in range(number)}}


MARKED = "<12>[ 1.0] the mark\n"


@pytest.mark.parametrize(
    ("code", "made"),
    [
        ("", boot()),
        ("boot-failed", boot(OVERTIME, kernel="")),
        ("boot-failed", boot(EXITED, "Kernel panic - not syncing: no root", kernel="")),
        ("unsigned-accepted", boot(statuses={0: 0})),
        ("unsigned-accepted", boot(outputs={0: "insmod: can't insert: Invalid argument"})),
        ("load-timeout", boot(OVERTIME, **during(2))),
        ("load-timeout", boot(OVERTIME, **during(3))),
        ("check-failed", boot(OVERTIME, **during(4))),
        ("unload-failed", boot(OVERTIME, **during(5))),
        ("load-failed", boot(EXITED, **during(2))),
        ("kernel-panic", boot(EXITED, "[  1.0] Kernel panic - not syncing: x", **during(2))),
        ("kernel-log", boot(OVERTIME, "[  1.0] BUG: kernel NULL pointer", **during(2))),
        ("load-failed", boot(**upto(2, 1, "insmod: can't insert 'x': No such device"))),
        ("kernel-log", boot(log=f"{MARKED}<1>[ 1.1] BUG: kernel NULL pointer", **upto(2, 139))),
        ("load-failed", boot(**upto(2, 139))),
        ("kernel-log", boot(log="<6>[ 1.1] hello")),
        ("kernel-log", boot(log="")),
        ("", boot(log=f"<6>[ 0.9] tsc: Refined TSC clocksource calibration\n{MARKED}<6>[ 1.1] hello")),
        ("kernel-log", boot(log="<6>[ 1.1] hello\n" * 100 + MARKED)),
        ("kernel-log", boot(log=f"{MARKED}<4>[ 1.1] WARNING: CPU: 0 PID: 1 at x")),
        ("kernel-log", boot(taints=(0, 512))),
        ("", boot(taints=(512, 512 + 4096))),
        ("identity-mismatch", boot(loaded={})),
        ("identity-mismatch", boot(loaded={"demo": Loaded(state="Loading", srcversion="ABC")})),
        ("identity-mismatch", boot(loaded={"demo": Loaded(state="Live", srcversion="XYZ")})),
        ("identity-mismatch", boot(loaded={"demo": Loaded(state="Live", srcversion="ABC", build_id="ff")})),
        ("check-failed", boot(**upto(4, 1, "no"))),
        ("check-failed", boot(**upto(4, 137))),
        ("unload-failed", boot(**upto(5, 1, "rmmod: can't unload module 'demo': Device or resource busy"))),
        ("check-failed", boot(statuses={0: 1, 1: 0, 2: 0, 3: 0})),
        ("unload-failed", boot(statuses={0: 1, 1: 0, 2: 0, 3: 0, 4: 0})),
    ],
)
def test_the_first_thing_that_went_wrong_is_the_code(code: str, made: Boot) -> None:
    refusal = judge(made, PLAN, {"demo": MODULE})
    assert (refusal.code if refusal else "") == code
    assert refusal is None or refusal.reason


@pytest.mark.parametrize(
    ("said", "log", "details"),
    [
        ("No such device", "<4>[ 1.1] demo: loading out-of-tree module taints kernel.\n<3>[ 1.2] demo: no card",
         ("kernel: demo: no card", "its init function found no device to drive",
          "kernel: demo: loading out-of-tree module taints kernel.")),
        ("No such device", "<6>[ 1.1] demo: 1.0", ("its init function found no device to drive", "kernel: demo: 1.0")),
        ("Input/output error", "<6>[ 1.1] demo", ("its init function, or the kernel, refused", "kernel: demo")),
    ],
)  # fmt: skip
def test_why_a_module_did_not_load_is_first_its_own_word(said: str, log: str, details: tuple[str, ...]) -> None:
    refusal = judge(boot(log=log, **upto(2, 1, f"insmod: can't insert 'x': {said}")), PLAN, {"demo": MODULE})
    assert refusal is not None
    assert (refusal.code, refusal.reason) == ("load-failed", f"demo did not load: {said}")
    assert refusal.details == details
