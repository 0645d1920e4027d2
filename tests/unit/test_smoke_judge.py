"""What is loaded is told from what was built, and every way in which they differ has its word."""

import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import UnreachableError
from dtkpipe.proof.module import KernelModule
from dtkpipe.steps.smoke_test.facts import Facts, from_inspection, from_root, paths, understand
from dtkpipe.steps.smoke_test.judge import Built, CheckRun, checks, judge, same_value
from dtkpipe.values.module import Check, Module, ModuleSpec

BUILD_ID = "3bcd2eff910a86780a267945952d3eb4d6bd0050"
FILE = KernelModule(
    file="hello.ko", name="hello", machine="EM_X86_64", srcversion="ABC123", build_id=BUILD_ID, imports={}, exports={},
    content=b"\0license=GPL\0",
)  # fmt: skip
HELLO = Built.from_module(FILE)
SPEC = ModuleSpec(name="hello", modules=(Module(name="hello", parameters=("name=all", "debug=1")),))
NOTE = struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes.fromhex(BUILD_ID)
NODE: Mapping[str, bytes] = {
    "/proc/sys/kernel/osrelease": b"6.1.0-1-cloud-amd64\n",
    "/proc/sys/kernel/tainted": b"12288\n",
    "/proc/modules": b"hello_x 16384 0 - Live 0x0000000000000000\nhello 16384 0 - Live 0x0000000000000000 (OE)\n",
    "/sys/module/hello/srcversion": b"ABC123\n",
    "/sys/module/hello/taint": b"OE\n",
    "/sys/module/hello/uevent": b"",
    "/sys/module/hello/notes/.note.gnu.build-id": NOTE,
    "/sys/module/hello/parameters/name": b"all\n",
    "/sys/module/hello/parameters/debug": b"Y\n",
}
LOADED = "12,7,300,-;dtkpipe: loads hello, tainted 4096\n"
OOPS = "4,8,400,-;BUG: kernel NULL pointer dereference, address: 0000000000000000\n"


def facts(changes: Mapping[str, bytes] | None = None, log: str = LOADED) -> Facts:
    return understand({**NODE, **(changes or {})}, ["hello"], log)


def word(module: Built = HELLO, changes: Mapping[str, bytes] | None = None, log: str = LOADED) -> str:
    finding = judge([module], SPEC, facts(changes, log))
    return f"{finding.word}: {finding.reason}" if finding.reason else finding.word


def test_the_module_that_was_built_is_healthy() -> None:
    assert word() == "healthy"
    assert facts().release == "6.1.0-1-cloud-amd64"


def test_this_machine_is_read_like_a_node(tmp_path: Path) -> None:
    for path, data in NODE.items():
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    found = understand(from_root(tmp_path)(paths(["hello"], SPEC)), ["hello"], LOADED)
    assert found == facts()


def test_another_build_of_the_module_is_found_by_either_of_its_marks() -> None:
    other = replace(HELLO, srcversion="DEF456")
    assert word(other) == "wrong-build: hello has srcversion ABC123, built was DEF456"
    other = Built.from_module(replace(FILE, build_id="00" * 20))
    assert word(other) == f"wrong-build: hello has build id {BUILD_ID}, built was {'00' * 20}"
    stripped = {"/sys/module/hello/notes/.note.gnu.build-id": b""}
    assert word(changes=stripped) == f"wrong-build: hello has build id none, built was {BUILD_ID}"


def test_the_kernels_own_module_of_that_name_is_told_by_its_taint() -> None:
    own = {"/sys/module/hello/taint": b"\n", "/sys/module/hello/srcversion": b"FFF\n"}
    assert word(changes=own) == "in-tree: hello is the kernel's own: it does not count as out of tree"
    # A file that bears no mark at all is only told from the kernel's own.
    bare = Built(name="hello")
    assert word(bare, own).startswith("in-tree")
    assert word(bare) == "healthy"
    assert word(Built.from_module(replace(FILE, content=b"\0intree=Y\0")), own).startswith("wrong-build")


def test_what_the_daemonset_says_of_a_module_tells_it_too() -> None:
    said = Built.from_act(f"load hello hello ABC123 {HELLO.build_id_sum}")
    assert said is not None
    assert (said.srcversion, said.build_id_sum) == (HELLO.srcversion, HELLO.build_id_sum)
    assert word(said) == "healthy"
    assert word(replace(said, build_id_sum="00")) == f"wrong-build: hello has build id {BUILD_ID}, built was another"
    assert Built.from_act("load hello hello - -") == Built(name="hello")
    assert Built.from_act("kernel 6.1.0") is None


def test_a_module_that_is_part_of_the_kernel_is_no_module() -> None:
    assert word(changes={"/proc/modules": b""}) == "in-tree: hello is part of the kernel image"


def test_a_module_whose_name_only_begins_the_same_does_not_count() -> None:
    absent = understand({"/proc/modules": NODE["/proc/modules"]}, ["hell"])
    assert judge([replace(HELLO, name="hell")], None, absent).reason == "hell is not in /proc/modules"


def test_a_module_that_is_still_loading_is_not_healthy() -> None:
    loading = {"/proc/modules": b"hello 16384 0 - Loading 0x0000000000000000 (OE)\n"}
    assert word(changes=loading) == "not-loaded: hello is Loading, not Live"


def test_parameters_are_as_asked() -> None:
    assert word(changes={"/sys/module/hello/parameters/name": b"me\n"}) == (
        "wrong-parameters: hello has name=me, asked was name=all"
    )
    # Not every parameter can be read.
    hidden = {path: data for path, data in NODE.items() if "/parameters/" not in path}
    assert judge([HELLO], SPEC, understand(hidden, ["hello"], LOADED)).word == "healthy"


@pytest.mark.parametrize(
    ("asked", "shown", "same"),
    [
        ("1", "Y", True), ("on", "Y", True), ("0", "N", True), ("1", "N", False), ("0x10", "16", True),
        ("010", "8", True), ("-1", "-1", True), ("16", "17", False), ("1,2", "1,2", True), ("1,2", "1,2,0,0", True),
        ("1,2", "1", False), ('"a b"', "a b", True), ("", "(null)", False), ("y,n", "Y,N", True),
    ],
)  # fmt: skip
def test_the_kernel_writes_values_in_its_own_way(asked: str, shown: str, same: bool) -> None:
    assert same_value(asked, shown) is same


@given(st.text(), st.text())
def test_any_two_values_can_be_compared(asked: str, shown: str) -> None:
    assert same_value(asked, asked)
    assert same_value(asked, shown) in (True, False)


def test_an_oops_counts_only_since_the_module_was_loaded() -> None:
    assert word(log=OOPS + LOADED) == "healthy"
    assert word(log=LOADED + OOPS) == "kernel-log: BUG: kernel NULL pointer dereference, address: 0000000000000000"
    assert word(log=OOPS + "12,7,300,-;dtkpipe: loads hello, tainted \n") == "healthy", "an image without cat"
    # Where the log's beginning is lost, all that is left came later.
    assert word(log=OOPS).startswith("kernel-log")
    # What a program wrote is no sign of anything, and nobody's start.
    assert word(log=LOADED + OOPS.replace("4,8", "12,8")) == "healthy"
    assert word(log=LOADED + OOPS + LOADED.replace("12,7", "4,9")).startswith("kernel-log")


def test_a_log_that_was_not_read_is_not_called_clean() -> None:
    finding = judge([HELLO], SPEC, understand(NODE, ["hello"]))
    assert (finding.word, finding.details) == ("healthy", ("the kernel's log was not read, and is not judged",))


def test_a_taint_since_the_load_is_a_sign_too() -> None:
    assert word(changes={"/proc/sys/kernel/tainted": b"12416\n"}) == "kernel-log: the kernel is tainted by: oops or BUG"
    before = LOADED.replace("4096", "128")
    assert word(changes={"/proc/sys/kernel/tainted": b"12416\n"}, log=before) == "healthy"


def test_the_first_check_that_fails_is_the_reason() -> None:
    check = Check(run=("test", "-e", "/dev/hello"), timeout=5)
    good = CheckRun(check=check, status=0)
    assert checks([good]) is None
    for status, how in ((1, "exit code 1"), (127, "there is no such command"), (None, "not done within 5 s")):
        found = checks([good, CheckRun(check=check, status=status)])
        assert found is not None
        assert found.reason == f"`test -e /dev/hello` failed: {how}"
    said = checks([CheckRun(check=check, status=1, output="first\nno device\n")])
    assert said is not None
    assert said.reason.endswith("exit code 1: no device")


def test_what_a_hostile_module_says_does_not_reach_a_terminal_as_it_is() -> None:
    hostile = LOADED + "3,8,400,-;BUG: \\x1b[2J gone\n"
    assert "\x1b" not in judge([HELLO], SPEC, facts(log=hostile)).plain().reason


def test_what_the_pod_printed_is_taken_apart_by_its_mark_alone() -> None:
    printed = b"Live\nmark? 0\n\nMARK 0\n\nMARK 1\n" + NOTE + b"\nMARK 0\n6,1,2,-;text\nMARK 0\n"
    contents, log = from_inspection("MARK", ["/a", "/b", "/c"], printed)
    assert contents == {"/a": b"Live\nmark? 0\n", "/c": NOTE}
    assert log == "6,1,2,-;text\n"
    assert from_inspection("MARK", ["/a", "/b", "/c"], printed[:-5])[1] is None
    with pytest.raises(UnreachableError, match="did not tell all"):
        from_inspection("MARK", ["/a", "/b", "/c"], printed[:20])
