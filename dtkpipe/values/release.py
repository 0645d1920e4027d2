"""Names of releases: distributions (`debian-12`) and versions of OpenShift (`4.14`, `4.14.38`, `4.14.0-rc.3`)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dtkpipe.errors import NotFoundError

_DISTRIBUTION = re.compile(r"[a-z][a-z0-9]*-\d+(?:\.\d+)*")
# Versions as openshift/oc and the release controllers spell them.
_OPENSHIFT = re.compile(
    r"v?(?P<major>[45])(?:\.(?P<minor>\d{1,3})(?:\.(?P<patch>\d{1,3})(?:-(?P<pre>[0-9A-Za-z.-]+))?)?)?"
)


@dataclass(frozen=True)
class DistributionRelease:
    """A release of a distribution: `debian-12`."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class OpenShiftRelease:
    """A version of OpenShift. Without a patch it means the newest of its line; without a minor, of its major."""

    major: int
    minor: int | None = None
    patch: int | None = None
    pre: str = ""
    """`rc.3`, `ec.6`, `0.nightly-2026-03-30-143812`."""

    def __str__(self) -> str:
        numbers = [str(one) for one in (self.major, self.minor, self.patch) if one is not None]
        return ".".join(numbers) + (f"-{self.pre}" if self.pre else "")

    @property
    def exact(self) -> bool:
        """Whether it names one release and not a line of them."""
        return self.patch is not None


Release = DistributionRelease | OpenShiftRelease


def parse_release(text: str, known: Sequence[str]) -> Release:
    """Parse what `--release` takes; `known` are the distributions there are. Raises NotFoundError with near matches."""
    if text in known:
        return DistributionRelease(text)
    if found := _OPENSHIFT.fullmatch(text):
        minor, patch = found["minor"], found["patch"]
        return OpenShiftRelease(
            int(found["major"]), int(minor) if minor else None, int(patch) if patch else None, found["pre"] or ""
        )
    words = ", ".join(known)
    near = difflib.get_close_matches(text.lower(), known, n=3, cutoff=0.5)
    what = "distribution" if _DISTRIBUTION.fullmatch(text) else "release"
    raise NotFoundError(
        f"there is no {what} `{text}`",
        f"known: {words}, and versions of OpenShift such as 4.14 or 4.14.38",
        hint=f"did you mean `{near[0]}`?" if near else "",
    )
