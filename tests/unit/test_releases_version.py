"""Versions of OpenShift: their order, and what people ask for."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import NotFoundError
from dtkpipe.values.version import Version, Wanted, nearest

IN_ORDER = [
    "4.8.57", "4.9.0", "4.14.0-0.nightly-2023-06-01-100000", "4.14.0-0.nightly-2023-10-08-220853", "4.14.0-ec.0",
    "4.14.0-ec.4", "4.14.0-fc.0", "4.14.0-rc.2", "4.14.0-rc.10", "4.14.0", "4.14.9", "4.14.38", "4.15.0",
    "5.0.0-ec.6", "5.0.0-rc.0", "5.0.0",
]  # fmt: skip
KNOWN = [Version.parse(text) for text in IN_ORDER]

pre = st.from_regex(r"(0|[1-9][0-9]?|[a-z]{1,4}(-[0-9a-z]{1,4})?)(\.(0|[1-9][0-9]?|[a-z]+)){0,2}", fullmatch=True)
versions = st.builds(Version, st.integers(4, 5), st.integers(0, 30), st.integers(0, 99), st.one_of(st.just(""), pre))


def test_rank_order() -> None:
    assert sorted(KNOWN) == KNOWN
    assert len(set(KNOWN)) == len(KNOWN)


@given(versions, versions, versions)
def test_order_is_total(a: Version, b: Version, c: Version) -> None:
    assert (a < b) + (b < a) + (a == b) == 1
    if a < b and b < c:
        assert a < c


@given(versions)
def test_text_and_back(version: Version) -> None:
    assert Version.parse(str(version)) == version
    assert Version.parse(f"{version}+arm64") == version
    assert str(Version.parse(f"v{version}")) == str(version)


@given(versions.filter(lambda one: one.pre))
def test_a_pre_release_is_older_than_its_release(version: Version) -> None:
    release = Version(version.major, version.minor, version.patch)
    assert version < release
    assert version > Version(version.major, version.minor, version.patch - 1) or not version.patch


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("4", "4.15.0"),
        ("4.14", "4.14.38"),
        ("4.8", "4.8.57"),
        ("4.14.9", "4.14.9"),
        ("4.14.0-rc.2", "4.14.0-rc.2"),
        ("latest", "5.0.0"),
        ("stable-4.14", "4.14.38"),
        ("4.14.0..4.14.10", "4.14.9"),
        ("4.9..4.14", "4.14.38"),
        (">=4.14.0 <4.14.38", "4.14.9"),
        (">4.14, <=4.15", "4.15.0"),
        ("<4.14", "4.9.0"),
        (">=4.14.0-rc.0 <4.14.0", "4.14.0-rc.10"),
    ],
)  # fmt: skip
def test_what_is_chosen(text: str, chosen: str) -> None:
    assert str(Wanted.parse(text).pick(KNOWN)) == chosen


def test_a_line_with_pre_releases_only() -> None:
    early = [one for one in KNOWN if one.pre]
    assert str(Wanted.parse("5.0").pick(early)) == "5.0.0-rc.0"
    assert Wanted.parse("5.0").pick(KNOWN[:3]) is None


@given(versions, st.lists(versions))
def test_a_line_gives_the_newest_of_it(version: Version, others: list[Version]) -> None:
    known = [*others, version]
    found = Wanted.parse(f"{version.major}.{version.minor}").pick(known)
    assert found is not None
    assert found.line == version.line
    released = [one for one in known if one.line == version.line and not one.pre]
    assert found == max(released or [one for one in known if one.line == version.line])


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(NotFoundError):
        Wanted.parse(text)


WRONG = ["", "4.", "4.14.", "4.14.38.1", "04.14", "4.14.x", "=4.14", "4.14..", "latst", "4.1٤", "4.14.3-", "4.14.3..x"]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_release(text: str) -> None:
    with pytest.raises(NotFoundError):
        Wanted.parse(text)


def test_nearest() -> None:
    assert [str(one) for one in nearest(Version.parse("4.14.36"), KNOWN, 2)] == ["4.14.38", "4.14.9"]
    assert str(nearest(Version.parse("4.16.1"), KNOWN, 1)[0]) == "4.15.0"
