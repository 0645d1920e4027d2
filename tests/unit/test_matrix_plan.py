"""The plan of a matrix: which cells there are, what is stale, and the reason that is given."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from dtkpipe.errors import NotFoundError, NothingSelectedError, UsageError
from dtkpipe.matrix.modules import choose
from dtkpipe.matrix.plan import Known, Plan, plan
from dtkpipe.matrix.targets import Places, Selection, select
from dtkpipe.releases.lock import Lock
from dtkpipe.values.arch import AARCH64, X86_64, Arch
from dtkpipe.values.cell import State
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.key import KeyTag
from dtkpipe.values.version import Version
from tests.fixtures.matrix import NEW, OLD, ROWS, Shelf, row, toolkit, write_lock

TODAY = date(2026, 11, 24)
REPO = ImageRef.parse("registry.example.org/modules/widget")
DEBIAN = Kernel("6.1.0-56-amd64")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf.at(tmp_path)


def places(folder: Path, channels: dict[str, list[str]] | None = None) -> Places:
    def channel(name: str, _arch: Arch) -> list[Version]:
        if name not in (channels or {}):
            raise NotFoundError(f"the update graph has no channel `{name}`")
        return [Version.parse(text) for text in (channels or {})[name]]

    def newest(name: str, variant: str, arch: Arch) -> tuple[Kernel, str]:
        if variant != "std" or arch != X86_64:
            raise NotFoundError(f"{name} has no kernel variant `{variant}` for {arch}")
        return DEBIAN, f"{name}-tag"

    return Places(lock=Lock(folder), channel=channel, newest=newest)


def chosen(folder: Path, text: str, **more: object) -> dict[str, str]:
    """Kernel -> the releases that it serves."""
    given: dict[str, object] = {"arches": [X86_64], "variants": ["std"], "channels": None, "only": ()} | more
    found = select(
        Selection.parse(text, ["debian-12"]), given["arches"], given["variants"],  # type: ignore[arg-type]
        places(folder, given["channels"]), given["only"],  # type: ignore[arg-type]
    )  # fmt: skip
    return {target.name: target.serves for target in found.targets}


@pytest.mark.parametrize(
    ("text", "kernels"),
    [
        ("4.16", {f"{OLD}.x86_64": "4.16.0-2"}),
        ("4.16..4.18", {f"{OLD}.x86_64": "4.16.0-2, 4.17.0", f"{NEW}.x86_64": "4.17.1"}),
        ("4.17.0", {f"{OLD}.x86_64": "4.17.0"}),
        ("4.16.1,4.17.1", {f"{OLD}.x86_64": "4.16.1", f"{NEW}.x86_64": "4.17.1"}),
        (">=4.16.2, <4.17.1", {f"{OLD}.x86_64": "4.16.2, 4.17.0"}),
        ("4.18.0-rc.1", {f"{NEW}.x86_64": "4.18.0-rc.1"}),
        ("latest", {f"{NEW}.x86_64": "4.17.1"}),
        ("4.17.1, debian-12", {f"{NEW}.x86_64": "4.17.1", str(DEBIAN): "debian-12"}),
    ],
)
def test_releases_are_rolled_up_onto_kernels(shelf: Shelf, text: str, kernels: dict[str, str]) -> None:
    assert chosen(shelf.root / "lock", text) == kernels


def test_a_channel_narrows_ranges_but_not_what_was_named(shelf: Shelf) -> None:
    channels = {"stable-4.16": ["4.16.0", "4.16.2", "4.15.9"], "stable-4.17": ["4.17.0"]}
    lock = shelf.root / "lock"
    assert chosen(lock, "4.16..4.17,stable", channels=channels) == {f"{OLD}.x86_64": "4.16.0, 4.16.2, 4.17.0"}
    assert chosen(lock, "stable", channels=channels) == {f"{OLD}.x86_64": "4.16.0, 4.16.2, 4.17.0"}
    assert chosen(lock, "stable-4.17", channels=channels) == {f"{OLD}.x86_64": "4.17.0"}
    assert f"{NEW}.x86_64" in chosen(lock, "4.16,stable,4.17.1", channels=channels)


def test_kernels_narrow_what_is_chosen(shelf: Shelf) -> None:
    lock, old, new = shelf.root / "lock", Kernel(f"{OLD}.x86_64"), Kernel(f"{NEW}.x86_64")
    assert chosen(lock, "4.16..4.17", only=[new]) == {str(new): "4.17.1"}
    assert chosen(lock, "4.16, debian-12", only=[DEBIAN]) == {str(DEBIAN): "debian-12"}
    unknown = Kernel("5.14.0-999.el9.x86_64")
    found = select(Selection.parse("4.16", []), [X86_64], ["std"], places(lock), [old, new, unknown])
    assert [target.kernel for target in found.targets] == [old]
    said = "\n".join(found.notices)
    assert f"kernel {new}: it is of OpenShift 4.17.1, 4.18.0-rc.1, or of a variant, that is not chosen" in said
    assert f"kernel {unknown}: no release is known to have it; nearest: " in said
    with pytest.raises(NothingSelectedError, match=f"do not have kernel {re.escape(str(new))}"):
        chosen(lock, "4.16", only=[new])
    with pytest.raises(NothingSelectedError, match="none of these kernels"):
        chosen(lock, "4.16", only=[new, unknown])


def test_a_new_release_is_looked_for_where_it_would_be_listed() -> None:
    def growing(text: str) -> list[tuple[str, str]]:
        return [(channel, str(wanted)) for channel, wanted in Selection.parse(text, ["debian-12"]).growing]

    assert growing("4.16..4.18") == [("stable", "4.16..4.18")]
    assert growing("4.16,fast-4.17,4.15.3,candidate") == [("candidate", "4.16"), ("fast", "fast-4.17")]
    assert growing("latest") == [("stable", "latest")]
    assert growing("4.16.1,debian-12") == []


def test_what_is_not_known_is_left_out_and_said(tmp_path: Path) -> None:
    rows = [*ROWS, row("4.16.3", OLD, kernels={}), row("4.16.4", OLD, os_kernel=Kernel(f"{NEW}.x86_64")),
            row("4.16.5", OLD, withdrawn="it was broken"), row("4.15.0", OLD, toolkit="")]  # fmt: skip
    lock = write_lock(tmp_path / "lock", rows)
    found = select(Selection.parse("4.15..4.16", []), [X86_64], ["std", "rt"], places(lock))
    assert [target.serves for target in found.targets] == ["4.15.0, 4.16.0-2"]
    assert [target.release for target in found.targets] == ["4.16.0"], "the oldest one whose toolkit is known"
    said = "\n".join(found.notices)
    assert "OpenShift 4.16.3: no std kernel of theirs is known for x86_64" in said
    assert "OpenShift 4.16.4: their toolkit is not for the kernel of their operating system" in said
    assert "no rt kernel" in said
    assert "4.16.5" not in said


def test_one_kernel_of_two_architectures_is_two_targets(shelf: Shelf) -> None:
    assert chosen(shelf.root / "lock", "4.16", arches=[X86_64, AARCH64]).keys() == {f"{OLD}.x86_64", f"{OLD}.aarch64"}
    found = chosen(shelf.root / "lock", "4.16", arches=[AARCH64], variants=["std", "64k"])
    assert found.keys() == {f"{OLD}.aarch64", f"{OLD}.aarch64+64k"}


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", UsageError, "names no release"),
        (" , ,", UsageError, "names no release"),
        ("4.16,stable,fast", UsageError, "stable and fast are two channels"),
        ("4.16.99", NotFoundError, "the lock does not know OpenShift 4.16.99"),
        ("4.99", NothingSelectedError, "no kernel of std on x86_64 is known"),
        ("debain-12", NotFoundError, "there is no release `debain-12`"),
        ("4.16,$(reboot)", NotFoundError, "there is no release `$(reboot)`"),
    ],
)
def test_a_selection_that_selects_nothing_is_an_error(
    shelf: Shelf, text: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        chosen(shelf.root / "lock", text)
    assert said in str(caught.value)


def test_one_broken_spec_among_good_ones_is_told_and_stops_nobody(shelf: Shelf) -> None:
    for number in range(50):
        shelf.module(f"m{number}")
    (shelf.root / "modules/bad.yaml").write_text("name: bad\nbuild: {recipy: kbuild}\n")
    (shelf.root / "modules/binary.yml").write_bytes(b"\xff\xfe\x00")
    (shelf.root / "modules/nowhere.yaml").write_text("name: nowhere\n")
    (shelf.root / "modules/again.yaml").write_text("name: m7\nsource: {repo: ../sources/m7}\n")
    (shelf.root / "modules/README.md").write_text("no spec")
    (shelf.root / "modules/torn.yaml").write_text(
        "name: torn\nsource: {repo: ../sources/m1}\nkernels: {min: '6.1', max: '5.14'}\n"
    )
    (shelf.root / "modules/shell.yaml").write_text(
        "name: shell\nsource: {repo: example.org/org/m, ref: '$(reboot);{{workflow.name}} ~^:'}\n"
    )
    found = choose(["modules/*"], shelf.root)
    assert len(found.good) == 50
    assert {one.file.name: str(one.error.what).partition(": ")[2] for one in found.broken} == {
        "bad.yaml": "build.recipy: unknown key",
        "binary.yml": "",
        "nowhere.yaml": "source.repo: is required",
        "m7.yaml": "`m7` is in again.yaml already",
        "torn.yaml": "kernels: no kernel is both 6.1 or newer and 5.14 or older",
        "shell.yaml": "",
    }


def test_patterns_are_relative_to_here_or_absolute_and_may_name_one_file(shelf: Shelf) -> None:
    shelf.module("a")
    shelf.module("b")
    (shelf.root / "modules/odd").write_text((shelf.root / "modules/b.yaml").read_text())
    patterns = [str(shelf.root / "modules/a*"), "../modules/odd"]
    assert [one.name for one in choose(patterns, shelf.root / "lock").good] == ["a", "b"]
    for pattern in ("nowhere/*", "lock", "modules/c*"):
        with pytest.raises(NothingSelectedError, match="finds no module spec"):
            choose([pattern], shelf.root)


def state(shelf: Shelf, tags: list[KeyTag | str], releases: str = "4.16", **more: object) -> tuple[State, str]:
    """The state of `widget`'s only cell, and the reason."""
    (cell,) = planned(shelf, tags, releases, **more).cells
    return cell.state, cell.reason


def planned(shelf: Shelf, tags: list[KeyTag | str], releases: str = "4.16", **more: object) -> Plan:
    (module,) = choose(["modules/widget.yaml"], shelf.root).good
    from dtkpipe.source.fetch import resolve_commit

    known = Known(
        module=module, repo=REPO, commit=resolve_commit(module.source), tags=[str(tag) for tag in tags],
        problem=more.get("problem"),  # type: ignore[arg-type]
    )  # fmt: skip
    found = select(Selection.parse(releases, ["debian-12"]), [X86_64], ["std"], places(shelf.root / "lock"))
    return plan([known], found.targets, str(more.get("signer", "unsigned")), TODAY)


FAILED_AT = 1_790_000_000


def test_each_state_has_its_reason(shelf: Shelf) -> None:
    shelf.module("widget")
    now = shelf.key("widget", f"{OLD}.x86_64", toolkit("4.16.0"))
    elsewhere = KeyTag(shelf.key("widget", f"{NEW}.x86_64", toolkit("4.17.1")), "unsigned")
    assert state(shelf, []) == (State.MISSING, f"no image in {REPO}")
    assert state(shelf, ["latest", f"{OLD}.x86_64", "key-nonsense"]) == (State.MISSING, f"no image in {REPO}")
    assert state(shelf, [elsewhere])[0] is State.NEW_KERNEL
    assert state(shelf, [KeyTag(now, "unsigned"), elsewhere]) == (State.CURRENT, "published")
    assert state(shelf, [KeyTag(now, "unsigned"), KeyTag(now, "unsigned", FAILED_AT)])[0] is State.CURRENT
    assert state(shelf, [KeyTag(now, "unsigned", FAILED_AT)]) == (
        State.FAILED_BEFORE, "failed on 2026-09-21 14:13 UTC"
    )  # fmt: skip
    assert state(shelf, [KeyTag(now, "a" * 12)]) == (State.RESIGN, f"signed by {'a' * 12}, to be signed by unsigned")
    assert state(shelf, [KeyTag(now, "unsigned")], signer="a" * 12)[0] is State.RESIGN
    assert state(shelf, [KeyTag(now, "a" * 12, FAILED_AT)]) == (
        State.MISSING, f"failed when signed by {'a' * 12}, to be signed by unsigned"
    )  # fmt: skip


def test_another_toolkit_of_the_same_kernel_is_as_good(shelf: Shelf) -> None:
    shelf.module("widget")
    for release in ("4.16.0", "4.16.2"):
        assert state(shelf, [KeyTag(shelf.key("widget", f"{OLD}.x86_64", toolkit(release)), "unsigned")])[0] is (
            State.CURRENT
        )
    other = shelf.key("widget", f"{OLD}.x86_64", "sha256:" + "e" * 64)
    assert state(shelf, [KeyTag(other, "unsigned")])[0] is State.TOOLKIT_CHANGED


def test_what_changed_is_told_the_most_telling_first(shelf: Shelf) -> None:
    shelf.module("widget")
    before = KeyTag(shelf.key("widget", f"{OLD}.x86_64", toolkit("4.16.0")), "unsigned")
    shelf.module("widget", more="unload: never\n")
    assert state(shelf, [before])[0] is State.SPEC_CHANGED
    shelf.module("widget", more="exclusions: [{kernel: '>=6', reason: r, until: 2027-01-01}]\n")
    assert state(shelf, [before])[0] is State.CURRENT
    shelf.module("widget", source="return 1;")
    after = shelf.key("widget", f"{OLD}.x86_64", toolkit("4.16.0"))
    assert state(shelf, [before]) == (
        State.NEW_COMMIT, f"published from {before.key.commit}, now it is {after.commit}"
    )  # fmt: skip
    failed = KeyTag(before.key, "unsigned", FAILED_AT)
    assert state(shelf, [failed])[1].startswith(f"failed at {before.key.commit}")


def test_a_quarantine_ends_on_its_day_and_that_is_told(shelf: Shelf) -> None:
    shelf.module("widget", more="exclusions: [{kernel: '>=5.14', reason: it oopses, until: 2026-11-25}]\n")
    (cell,) = planned(shelf, []).cells
    assert (cell.state, cell.reason, cell.until) == (State.QUARANTINED, "it oopses", date(2026, 11, 25))
    shelf.module("widget", more="exclusions: [{kernel: '>=5.14', reason: it oopses, until: 2026-11-24}]\n")
    found = planned(shelf, [])
    assert found.cells[0].state is State.MISSING
    assert found.notices == ("widget: an exclusion ended on 2026-11-24, 1 of the kernels count again: it oopses",)
    shelf.module("widget", more="exclusions: [{kernel: '>=6', reason: it oopses, until: 2020-01-01}]\n")
    assert planned(shelf, []).notices == ()


def test_what_cannot_be_known_is_neither_stale_nor_current(shelf: Shelf) -> None:
    shelf.module("widget")
    error = NotFoundError("there is no git repository at ../sources/widget")
    assert state(shelf, [], problem=error) == (State.UNKNOWN, error.what)
    write_lock(shelf.root / "lock", [row("4.19.0", OLD, toolkit="")])
    assert state(shelf, [], "4.19") == (State.UNKNOWN, "the toolkit of 4.19.0 is not known")
    assert not State.UNKNOWN.stale


def test_kernels_that_a_module_is_not_for_are_no_cells(shelf: Shelf) -> None:
    shelf.module("widget", more="kernels: {min: '5.14.0-500'}\n")
    found = planned(shelf, [], "4.16..4.17")
    assert [cell.target.kernel.release for cell in found.cells] == [f"{NEW}.x86_64"]
    assert found.notices == ("widget needs kernel 5.14.0-500 or newer: 1 of the kernels left out",)


def test_a_toolkit_that_is_not_made_yet_is_no_obstacle(shelf: Shelf) -> None:
    shelf.module("widget")
    assert state(shelf, [], "debian-12")[0] is State.MISSING
    made = KeyTag(shelf.key("widget", str(DEBIAN), "sha256:" + "e" * 64), "unsigned")
    assert state(shelf, [made], "debian-12") == (
        State.TOOLKIT_CHANGED, f"built with toolkit {'e' * 12}, now it is one that is not made yet"
    )  # fmt: skip
