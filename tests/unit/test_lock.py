"""The lock: what is committed is as written, only additions are possible, nonsense is named with its line."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dtkpipe.app.catalog import Selection, by_kernel, difference
from dtkpipe.errors import InvalidError, NotFoundError
from dtkpipe.releases.lock import Lock, parse, render
from dtkpipe.releases.resolver import Choice, resolver_for
from dtkpipe.releases.row import VARIANTS, ConflictError, Row
from dtkpipe.resources import shipped
from dtkpipe.values.arch import ARCHES, X86_64
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.version import Version, Wanted, spans
from tests.reference import PICTURES

FOLDER = shipped("catalog/releases")
DIGEST = "sha256:" + "a" * 64

digests = st.one_of(st.just(""), st.integers(0, 3).map(lambda number: f"sha256:{number:064x}"))
kernels = st.dictionaries(
    st.sampled_from(VARIANTS), st.integers(1, 3).map(lambda number: Kernel(f"5.14.0-{number}.1.el9_4.x86_64"))
)
rows = st.builds(
    Row,
    version=st.builds(Version, st.just(4), st.just(16), st.integers(0, 4)),
    arch=st.sampled_from(ARCHES), stream=st.sampled_from(["rhel-9", "rhel-10"]),
    payload=digests, toolkit=digests, os_image=digests, kernels=kernels,
    os_kernel=st.one_of(st.none(), st.just(Kernel("5.14.0-9.el9_4.x86_64"))),
    rhcos=st.sampled_from(["", "416.94.202409040013-0"]), source=st.sampled_from([("a",), ("b", "c")]),
    date=st.sampled_from(["2026-08-21", "2026-11-24"]),
)  # fmt: skip


# What is committed


def test_every_row_of_the_research_is_there() -> None:
    lock = Lock(FOLDER)
    assert sum(1 for row in lock if row.arch.name == "x86_64" and row.source != ("registry",)) == 348
    assert Counter(bool(row.toolkit) for row in lock)[True] >= 261


def test_what_is_committed_is_as_written() -> None:
    for line in Lock(FOLDER).lines:
        path = Lock(FOLDER).path(line)
        assert path.read_text() == render(line, parse(path.read_bytes(), path, line))


def test_the_files_are_yaml_too() -> None:
    for path in FOLDER.glob("*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), list)


def test_every_source_is_described() -> None:
    described = {one["id"] for one in yaml.safe_load((FOLDER / "sources.yaml").read_text())}
    assert {name for row in Lock(FOLDER) for name in row.source} | {"registry"} == described


def test_real_rows_agree_with_each_other() -> None:
    """The same toolkit is the same kernel, and the same image of the operating system is the same toolkit."""
    lock = list(Lock(FOLDER))
    for key, value in (("toolkit", "std"), ("os_image", "std"), ("os_image", "toolkit")):
        found: dict[str, set[str]] = {}
        for row in lock:
            said = row.toolkit if value == "toolkit" else str(row.kernels.get("std", ""))
            if getattr(row, key) and said:
                found.setdefault(getattr(row, key), set()).add(said)
        assert [names for names in found.values() if len(names) > 1] == []


def test_one_image_serves_many_releases() -> None:
    served = by_kernel(Lock(FOLDER), "5.14.0-284.59.1.el9_2.x86_64")
    assert list(served.values()) == ["4.14.19-21, 4.15.6-9"]


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.name)
def test_the_pictures_are_fresh(file: Path) -> None:
    assert file.read_text() == PICTURES[file]()


def test_spans() -> None:
    versions = ["4.15.0", "4.14.9", "4.14.7", "4.14.8", "4.16.0-rc.1", "4.16.0", "4.14.8"]
    assert spans([Version.parse(text) for text in versions]) == "4.14.7-9, 4.15.0, 4.16.0-rc.1, 4.16.0"


@pytest.mark.parametrize(
    ("minor", "lines"),
    [
        ("", [(4, 16), (4, 17), (4, 18), (5, 0)]),
        ("4.16", [(4, 16)]),
        ("4.17..5.0", [(4, 17), (4, 18), (5, 0)]),
        ("4.9", [(4, 9)]),
        (">=4.17.3 <4.18", [(4, 17)]),
    ],
)  # fmt: skip
def test_new_minor_versions_are_asked_for(minor: str, lines: list[tuple[int, int]]) -> None:
    assert Selection.parse(minor, "all").lines([(4, 16), (4, 17)]) == lines


# Rows


@given(rows)
def test_a_row_is_one_line_and_back(row: Row) -> None:
    line = row.to_json()
    assert "\n" not in line
    assert Row.parse(line) == row
    assert yaml.safe_load(line) == json.loads(line)


@given(rows)
def test_a_row_in_words_has_all_that_is_known_and_no_json(row: Row) -> None:
    known = [row.payload, row.toolkit, row.os_image, row.rhcos, *map(str, row.kernels.values()), *row.source, row.date]
    assert all(fact in row.knowledge for fact in known)
    assert not set('{}"[]') & set(row.knowledge)


def test_an_error_says_in_words_what_the_lock_knows() -> None:
    resolver = resolver_for(FOLDER, lambda: pytest.fail("no registry is needed"))
    with pytest.raises(NotFoundError) as caught:
        resolver.release(Wanted.parse("4.8.2"), Choice(arch=X86_64, via="lock"))
    known = "rhcos 48.84.202107202156-0, kernel rt 4.18.0-305.10.2.rt7.83.el8_4.x86_64 (from sriov-fec; 2026-08-21)"
    assert caught.value.details == (f"it knows: {known}",)


@given(rows, rows)
def test_merging_never_loses_or_changes(old: Row, new: Row) -> None:
    try:
        merged = old.merged(new)
    except ConflictError as error:
        assert len(error.details) == 2  # noqa: PT017 - conflicts are one of the two outcomes
        return
    for name in ("payload", "toolkit", "os_image", "rhcos", "os_kernel"):
        assert getattr(merged, name) == (getattr(old, name) or getattr(new, name))
    assert merged.kernels == {**new.kernels, **old.kernels}
    assert merged.merged(new) is merged
    assert merged.merged(old) is merged


@given(rows)
def test_an_empty_answer_changes_nothing(row: Row) -> None:
    empty = Row(version=row.version, arch=row.arch, stream=row.stream, source=("registry",), date="2027-01-01")
    assert row.merged(empty) is row


def test_a_conflict_names_both() -> None:
    row = Row.parse(f'{{"version": "4.16.3", "arch": "x86_64", "stream": "rhel-9", "toolkit": "{DIGEST}", '
                    '"source": ["awslabs"], "date": "2026-08-21"}')  # fmt: skip
    other = Row.parse(row.to_json().replace("a" * 64, "b" * 64).replace("awslabs", "registry"))
    with pytest.raises(ConflictError, match=r"4\.16\.3 x86_64") as failed:
        row.merged(other)
    assert all(text in str(failed.value) for text in (DIGEST, "b" * 64, "awslabs", "registry", "2026-08-21"))


# Files


@settings(max_examples=25, deadline=None)
@given(st.lists(rows, unique_by=lambda row: row.key), st.randoms())
def test_any_order_of_additions_is_the_same_file(added: list[Row], order: random.Random) -> None:
    import tempfile

    shuffled = list(added)
    order.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as folder:
        one, other = Lock(Path(folder) / "1"), Lock(Path(folder) / "2")
        one.add(added)
        for row in shuffled:
            Lock(other.folder).add([row])
        if added:
            assert one.path((4, 16)).read_bytes() == other.path((4, 16)).read_bytes()
            before = one.path((4, 16)).stat().st_mtime_ns
            assert not one.add(added).added
            assert one.path((4, 16)).stat().st_mtime_ns == before
            assert difference(one, Lock(other.folder)).lines == []


def test_a_conflict_writes_nothing(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    row = Row.parse(next(iter(Lock(FOLDER))).to_json())
    lock.add([row])
    text = lock.path(row.version.line).read_text()
    bad = Row.parse(row.to_json().replace(row.toolkit, DIGEST))
    with pytest.raises(ConflictError):
        lock.add([Row.parse(row.to_json().replace('"4.8.0"', '"4.8.99"')), bad])
    assert lock.path(row.version.line).read_text() == text


GOOD = (
    f'- {{"version": "4.16.3", "arch": "x86_64", "stream": "rhel-9", "toolkit": "{DIGEST}", "source": ["a"], '
    '"date": "2026-08-21"}'
)
NONSENSE = [
    ("- {", "not one JSON object"),
    ("version: 4.16.3", "begins with `- {`"),
    ("- [1]", "not one JSON object"),
    (GOOD.replace("4.16.3", "4.17.3"), "belongs into another file"),
    (GOOD.replace("4.16.3", "4.16"), "is not a version"),
    (GOOD.replace("x86_64", "amd64"), "`arch` is not valid"),
    (GOOD.replace("rhel-9", "fedora"), "`stream` is not valid"),
    (GOOD.replace(DIGEST, "sha256:12"), "`toolkit` is not valid"),
    (GOOD.replace(f'"{DIGEST}"', "7"), "`toolkit` is not text"),
    (GOOD.replace(f'"{DIGEST}"', '""'), "`toolkit` is required"),
    (GOOD.replace("toolkit", "toolkti"), "unknown key `toolkti`"),
    (GOOD.replace('["a"]', "[]"), "`source`"),
    (GOOD.replace("2026-08-21", "yesterday"), "`date` is not valid"),
    (GOOD.replace('"source"', '"kernels": {"std": "x"}, "source"'), "is not a kernel release"),
    (GOOD.replace('"source"', '"kernels": {"big": "5.14.0-1"}, "source"'), "`kernels`"),
    (GOOD.replace('"source"', '"arch": "x86_64", "source"'), "given twice"),
    (GOOD, "is there twice"),
    ("\udcff", "not UTF-8"),
    ("- " + "[" * 50_000, "not one JSON object"),
]


@pytest.mark.parametrize(("line", "problem"), NONSENSE)
def test_nonsense_is_named_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "4.16.yaml"
    path.write_bytes(f"# a comment\n\n{GOOD}\n{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(InvalidError) as failed:
        list(Lock(tmp_path))
    assert str(failed.value).startswith(f"{path}:4: ")
    assert problem in str(failed.value)
    assert failed.value.exit_code == 6


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        parse(data, Path("4.16.yaml"), (4, 16))
    except InvalidError as error:
        assert "4.16.yaml:" in error.what  # noqa: PT017 - refusing is one of the two outcomes
