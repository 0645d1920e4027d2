"""What `--release` takes: a distribution that toolkits are made of (`debian-12`), or a version of OpenShift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtkpipe.errors import NotFoundError
from dtkpipe.values.version import Wanted


@dataclass(frozen=True)
class DistributionRelease:
    """A release of a distribution: `debian-12`."""

    name: str

    def __str__(self) -> str:
        return self.name


def parse_release(text: str, distributions: Sequence[str]) -> DistributionRelease | Wanted:
    """Parse the name of one of `distributions`, or what OpenShift calls its versions.

    Raises NotFoundError with the nearest name.
    """
    if text in distributions:
        return DistributionRelease(text)
    try:
        return Wanted.parse(text)
    except NotFoundError as error:
        import difflib

        near = difflib.get_close_matches(text.lower(), distributions, n=1, cutoff=0.5)
        raise NotFoundError(
            f"there is no release `{text[:96]}`",
            f"distributions: {', '.join(distributions)}",
            "versions of OpenShift: 4.14, 4.14.38, 4.14.0-rc.3",
            hint=f"did you mean `{near[0]}`?" if near else error.hint,
        ) from error
