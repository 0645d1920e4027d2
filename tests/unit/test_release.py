"""What `--release` takes."""

import pytest

from dtkpipe.errors import NotFoundError
from dtkpipe.values.release import DistributionRelease, parse_release
from dtkpipe.values.version import Wanted

KNOWN = ["debian-12", "debian-13"]


def test_distribution() -> None:
    assert parse_release("debian-12", KNOWN) == DistributionRelease("debian-12")
    assert str(parse_release("debian-13", KNOWN)) == "debian-13"


@pytest.mark.parametrize(
    "text", ["4", "4.14", "4.14.38", "v4.14.38", "4.14.0-rc.3", "5.0.0-ec.6", "4.21.0-0.nightly-2026-03-30-143812"]
)
def test_openshift(text: str) -> None:
    found = parse_release(text, KNOWN)
    assert isinstance(found, Wanted)
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "near"),
    [("debain-12", "debian-12"), ("Debian-13", "debian-13"), ("debian12", "debian-12"), ("debian-14", "debian-1")],
)
def test_nearest_name(text: str, near: str) -> None:
    with pytest.raises(NotFoundError, match="there is no release") as caught:
        parse_release(text, KNOWN)
    assert near in caught.value.hint
    assert caught.value.exit_code == 5
    assert "debian-12, debian-13" in str(caught.value)


@pytest.mark.parametrize("text", ["", "$(id)", "x" * 5000, "--release", "debian-12 "])
def test_nonsense(text: str) -> None:
    with pytest.raises(NotFoundError):
        parse_release(text, KNOWN)
