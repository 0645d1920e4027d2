"""Fingerprints of failures, their records, and groups of red cells."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import DtkpipeError, InvalidError
from dtkpipe.matrix.causes import grouped, headline
from dtkpipe.matrix.failure import Failure, read, record
from dtkpipe.matrix.fingerprint import Fingerprint, fingerprint
from dtkpipe.matrix.plan import Planned
from dtkpipe.values.arch import X86_64
from dtkpipe.values.cell import Cell, State, Target
from dtkpipe.values.kernel import Kernel
from tests.fixtures.registry import LoopbackRegistry

FAILURE = Failure(
    module="widget", kernel="6.1.0-56-amd64", arch="x86_64", step="build", kind="compile", cause="it broke",
    lines=("does not compile", "widget.c:1: error: it broke"), run="widget-1", by="me@here", tool="1",
    when=1_790_000_000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("code", "lines", "said"),
    [
        (
            10,
            ["`widget` does not compile for kernel 6.12.9-amd64",
             "/src/driver/widget.c:12:5: error: implicit declaration of function ‘from_timer’ [-Werror=implicit]"],
            "compile: implicit declaration of function 'from_timer'",
        ),
        (10, ["it broke", "x.c:3:7: error: implicit declaration of function ‘strlcpy’; did you mean ‘strscpy’? [-W]"],
         "compile: implicit declaration of function 'strlcpy'"),
        (10, ["it broke", "x.c:3: fatal error: linux/foo.h: No such file or directory"],
         "compile: linux/foo.h: No such file or directory"),
        (10, ["it broke", 'ERROR: modpost: "kallsyms_lookup_name" [/src/widget.ko] undefined!'],
         "symbol: kallsyms_lookup_name is undefined"),
        (10, ["refused: symbol-missing: widget needs `foo`, which nobody exports", "more"],
         "verdict: symbol-missing: MODULE needs 'foo', which nobody exports"),
        (10, ["refused: load-failed: insmod widget.ko: No such device (ENODEV)"],
         "verdict: load-failed: insmod MODULE.ko: No such device (ENODEV)"),
        (10, ["refused: load-failed: widget did not load: Input/output error"],
         "verdict: load-failed: MODULE did not load: Input/output error"),
        (10, ["refused: vermagic-mismatch: /opt/lib/modules/6.1.0-56-amd64/widget.ko is for 6.1.0-50-cloud-amd64"],
         "verdict: vermagic-mismatch: MODULE.ko is for KERNEL"),
        (10, ["refused: kernel-log: [   12.345678] BUG: unable to handle page fault at 00000000deadbeef"],
         "verdict: kernel-log: BUG: unable to handle page fault at HEX"),
        (10, ["refused: boot-failed: the target kernel did not boot (120 s)"],
         "infrastructure: boot-failed: the target kernel did not boot (120 s)"),
        (10, ["listed but not built: widget"], "other: listed but not built: MODULE"),
        (10, ["`widget` cannot be built for kernel 6.1.0-56-amd64", "sh: bison: not found"],
         "other: sh: bison: not found"),
        (6, ["dtkpipe.yaml asks for the recipe dkms, and there is no dkms.conf"],
         "other: dtkpipe.yaml asks for the recipe dkms, and there is no dkms.conf"),
        (7, ["127.0.0.1:5000 does not answer"], "infrastructure: 127.0.0.1:5000 does not answer"),
        (10, ["it broke", "cc1: error: write: No space left on device"],
         "infrastructure: cc1: error: write: No space left on device"),
        (12, ["did not end within 3600 s"], "timeout: did not end within 3600 s"),
        (-9, [], "infrastructure: was killed (SIGKILL)"),
    ],
)  # fmt: skip
def test_the_cause_without_what_differs(code: int, lines: list[str], said: str) -> None:
    assert str(fingerprint(code, lines, ["widget"])) == said


def test_the_same_error_elsewhere_is_the_same_cause() -> None:
    def cause(kernel: str, module: str, line: int) -> Fingerprint:
        said = [f"`{module}` does not compile for kernel {kernel}", f"/src/{module}.c:{line}: error: ‘x’ undeclared"]
        return fingerprint(10, said, [module])

    assert cause("6.1.0-56-amd64", "one", 3) == cause("6.12.9+deb13-amd64", "two-more", 99)
    assert cause("6.1.0-56-amd64", "one", 3).id == "47e84a02"


@given(st.integers(-64, 255), st.lists(st.text(max_size=300), max_size=5), st.lists(st.text(max_size=20), max_size=3))
def test_every_failure_has_a_cause_that_fits_into_a_line(code: int, lines: list[str], names: list[str]) -> None:
    found = fingerprint(code, lines, [name for name in names if name])
    assert len(found.text) <= 200
    assert "\n" not in found.text


def test_a_record_is_read_back_from_the_registry(registry: LoopbackRegistry) -> None:
    at = registry.repo("causes/widget").tagged("failed-1")
    record(registry.client, at, FAILURE, b"x" * 100_000 + b"the end")
    assert read(registry.client, at) == FAILURE
    manifest = registry.client.manifest(at)
    assert registry.client.read_blob(at, manifest.layers[1]).endswith(b"the end")
    assert manifest.layers[1].size == 65536
    registry.client.push_artifact(at.tagged(""), "application/vnd.example", {"failure.json": b"[]"}, tag="failed-2")
    with pytest.raises(InvalidError, match="cannot be read"):
        read(registry.client, at.tagged("failed-2"))


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["schema", "lines", "when", "kind"]), inner, max_size=3),
                    max_leaves=8))  # fmt: skip
def test_what_is_no_record_is_refused(data: object) -> None:
    import json

    with pytest.raises(DtkpipeError):
        Failure.from_json(json.dumps(data))


def cell(module: str, kernel: str, state: State, image: str = "") -> Planned:
    target = Target(kernel=Kernel(kernel), arch=X86_64, release="4.16.0", serves="4.16.0")
    return Planned(cell=Cell(module=module, target=target), state=state, reason="", image=image)


def test_red_cells_have_a_cause_a_first_bad_kernel_and_a_last_green_one() -> None:
    cells = [
        cell("a", "5.14.0-427.el9.x86_64", State.CURRENT), cell("a", "5.14.0-500.el9.x86_64", State.CURRENT),
        cell("a", "5.14.0-503.el9.x86_64", State.FAILED_BEFORE, "a1"),
        cell("a", "5.14.0-570.el9.x86_64", State.FAILED_BEFORE, "a2"),
        cell("a", "5.14.0-600.el9.x86_64", State.CURRENT),
        cell("b", "5.14.0-427.el9.x86_64", State.FAILED_BEFORE, "b1"),
        cell("b", "5.14.0-503.el9.x86_64", State.FAILED_BEFORE, "gone"),
    ]  # fmt: skip
    failures = {"a1": FAILURE, "a2": FAILURE, "b1": replace(FAILURE, cause="another")}
    first, second, third = grouped(cells, failures)
    assert [one.image for one in first.cells] == ["a1", "a2"]
    assert first.last_green == cells[1]
    assert (second.first_bad, second.last_green) == (cells[5], None)
    assert (third.cells, str(third.fingerprint)) == ((cells[6],), "other: the record of the failure cannot be read")
    assert headline((first, second, third)) == "4 red cells, 3 causes, first bad kernel 5.14.0-427.el9.x86_64"
    assert headline(()) == "no red cells"
    assert grouped(cells[:2], {}) == ()
