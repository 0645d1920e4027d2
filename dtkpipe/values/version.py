"""OpenShift versions and their order, and what people ask for instead of one: `4.14`, `latest`, a channel, a range.

Order: semver.org section 11, which is what the update graph uses. `0.nightly-...` is older than `ec`, `fc`, `rc`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, total_ordering

from dtkpipe.errors import NotFoundError

_NUMBER = r"(?:0|[1-9][0-9]{0,5})"
_VERSION = re.compile(
    rf"v?(?P<major>{_NUMBER})\.(?P<minor>{_NUMBER})\.(?P<patch>{_NUMBER})"
    r"(?:-(?P<pre>[0-9A-Za-z]+(?:[.-][0-9A-Za-z]+)*))?(?:\+[0-9A-Za-z.-]+)?"
)
_LINE = re.compile(rf"v?(?P<major>{_NUMBER})(?:\.(?P<minor>{_NUMBER}))?")
_CHANNEL = re.compile(rf"(?P<channel>stable|fast|candidate|eus)-(?P<line>{_NUMBER}\.{_NUMBER})")
_BOUND = re.compile(r"(?P<sign><=|>=|<|>)\s*(?P<at>[^\s,<>=]+)")
_LIMIT = 96


@total_ordering
@dataclass(frozen=True, eq=False)
class Version:
    """One version: `4.14.38`, `5.0.0-ec.6`, `4.21.0-0.nightly-2026-03-30-143812`."""

    major: int
    minor: int
    patch: int
    pre: str = ""

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + (f"-{self.pre}" if self.pre else "")

    @classmethod
    def parse(cls, text: str) -> Version:
        """Parse a full version; a build suffix (`+arm64` of the update graph) is left out. Raises NotFoundError."""
        found = _VERSION.fullmatch(text) if len(text) <= _LIMIT else None
        if not found:
            raise NotFoundError(
                f"`{text[:_LIMIT]}` is not a version of OpenShift", "expected e.g. 4.14.38, 4.14.0-rc.3, 5.0.0-ec.6"
            )
        return cls(int(found["major"]), int(found["minor"]), int(found["patch"]), found["pre"] or "")

    @property
    def line(self) -> tuple[int, int]:
        """Major and minor: (4, 14)."""
        return self.major, self.minor

    @cached_property
    def order(self) -> tuple[tuple[int, int, int], bool, tuple[tuple[bool, int, str], ...]]:
        """The sort key: a pre-release is older than its release, numbers are older than words."""
        parts = self.pre.split(".") if self.pre else []
        key = tuple((not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)
        return (self.major, self.minor, self.patch), not self.pre, key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.order == other.order

    def __hash__(self) -> int:
        return hash(self.order)

    def __lt__(self, other: Version) -> bool:
        return self.order < other.order


@dataclass(frozen=True)
class Bound:
    """One side of a range. `at` is a version, or a line of them: `<4.15` leaves all of 4.15 out, `<=4.15` takes it."""

    sign: str
    at: Version | tuple[int, ...]

    def admits(self, version: Version) -> bool:
        """Tell whether `version` is on the right side."""
        if isinstance(self.at, Version):
            here = (version > self.at) - (version < self.at)
        else:
            numbers = (version.major, version.minor)[: len(self.at)]
            here = (numbers > self.at) - (numbers < self.at)
        return (
            (self.sign[0] == ">" and here > 0) or (self.sign[0] == "<" and here < 0) or ("=" in self.sign and not here)
        )


@dataclass(frozen=True)
class Wanted:
    """What was asked for. An exact version, or bounds of which the newest version counts."""

    text: str
    exact: Version | None = None
    bounds: tuple[Bound, ...] = ()
    channel: str = ""
    """Channel of the update graph: `stable-4.16`."""

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """Parse a version, `4`, `4.14`, `latest`, `stable-4.16`, `4.14.3..4.16`, `>=4.14.3 <4.15`.

        Raises NotFoundError.
        """
        stripped = text.strip()
        if len(stripped) <= _LIMIT:
            if stripped == "latest":
                return cls(stripped)
            if _VERSION.fullmatch(stripped):
                return cls(stripped, exact=Version.parse(stripped))
            if found := _CHANNEL.fullmatch(stripped):
                return cls(stripped, bounds=(Bound("<=", _at(found["line"])), Bound(">=", _at(found["line"]))),
                           channel=stripped)  # fmt: skip
            if _LINE.fullmatch(stripped):
                return cls(stripped, bounds=(Bound(">=", _at(stripped)), Bound("<=", _at(stripped))))
            if ".." in stripped:
                low, _, high = stripped.partition("..")
                return cls(stripped, bounds=(Bound(">=", _at(low)), Bound("<=", _at(high))))
            if stripped and not _BOUND.sub("", stripped).strip(" ,"):
                found_bounds = tuple(Bound(one["sign"], _at(one["at"])) for one in _BOUND.finditer(stripped))
                return cls(stripped, bounds=found_bounds)
        import difflib

        word = re.split(r"[^a-z]", stripped.lower()[:_LIMIT], maxsplit=1)[0]
        near = difflib.get_close_matches(
            word, ["latest", "stable-4.16", "fast-4.16", "candidate-4.16"], n=1, cutoff=0.5
        )
        raise NotFoundError(
            f"there is no release `{text[:_LIMIT]}`",
            "expected e.g. 4.14, 4.14.38, 4.14.0-rc.3, 5.0.0-ec.6, latest, stable-4.16, 4.14.3..4.15, '>=4.14.3 <4.15'",
            hint=f"did you mean `{near[0]}`?" if near else "dtkpipe catalog list",
        )

    @property
    def line(self) -> tuple[int, int] | None:
        """Major and minor, where exactly one line was asked for: `4.14`, `stable-4.14`."""
        ends = {one.at for one in self.bounds}
        only = next(iter(ends)) if len(ends) == 1 else ()
        return (only[0], only[1]) if isinstance(only, tuple) and len(only) == 2 else None

    def may_be_in(self, line: tuple[int, int]) -> bool:
        """Tell whether a version of `line` can be one that was asked for."""
        if self.exact:
            return self.exact.line == line
        ends = (Version(*line, 0, "0"), Version(*line, 10**6))
        return all(any(bound.admits(end) for end in ends) for bound in self.bounds)

    def admits(self, version: Version) -> bool:
        """Tell whether `version` is one that was asked for. Pre-releases only count where a bound names one."""
        if self.exact:
            return version == self.exact
        named = any(isinstance(one.at, Version) and one.at.pre for one in self.bounds)
        return (named or not version.pre) and self.covers(version)

    def covers(self, version: Version) -> bool:
        """Tell whether `version` lies between the bounds, pre-release or not."""
        return version == self.exact if self.exact else all(one.admits(version) for one in self.bounds)

    def pick(self, known: Iterable[Version]) -> Version | None:
        """Return the newest of `known` that was asked for; a pre-release where a line has nothing else."""
        inside = [one for one in known if self.covers(one)]
        return max((one for one in inside if self.admits(one)), default=None) or max(inside, default=None)


def _at(text: str) -> Version | tuple[int, ...]:
    if found := _LINE.fullmatch(text.strip()):
        return tuple(int(part) for part in (found["major"], found["minor"]) if part)
    return Version.parse(text.strip())


def nearest(version: Version, known: Iterable[Version], count: int = 3) -> list[Version]:
    """Return the versions of `known` next to `version`, nearest first: of its own line if it has any."""
    everything = sorted(set(known))
    here = [one for one in everything if one.line == version.line] or everything

    def distance(one: Version) -> tuple[int, int, int]:
        apart = (one.major - version.major, one.minor - version.minor, one.patch - version.patch)
        return abs(apart[0]), abs(apart[1]), abs(apart[2])

    return sorted(here, key=distance)[:count]


def spans(versions: Sequence[Version]) -> str:
    """Write versions of the same line that follow each other as ranges: `4.14.19-21, 4.15.6-9`."""
    parts: list[list[Version]] = []
    for version in sorted(set(versions)):
        last = parts[-1][-1] if parts else None
        if last and not version.pre and not last.pre and version.line == last.line and version.patch == last.patch + 1:
            parts[-1].append(version)
        else:
            parts.append([version])
    return ", ".join(f"{part[0]}-{part[-1].patch}" if len(part) > 1 else str(part[0]) for part in parts)
