"""The cells of a matrix: one module for one kernel of one architecture, and the state that a cell is in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dtkpipe.values.arch import Arch
from dtkpipe.values.kernel import Kernel


class State(StrEnum):
    """How a cell stands against what is published."""

    MISSING = "missing"
    NEW_COMMIT = "new-commit"
    NEW_KERNEL = "new-kernel"
    SPEC_CHANGED = "spec-changed"
    TOOLKIT_CHANGED = "toolkit-changed"
    RESIGN = "resign"
    FAILED_BEFORE = "failed-before"
    QUARANTINED = "quarantined"
    CURRENT = "current"
    UNKNOWN = "unknown"

    @property
    def stale(self) -> bool:
        """Whether there is something to do. What failed before is not tried again unless asked."""
        return self not in (State.FAILED_BEFORE, State.QUARANTINED, State.CURRENT, State.UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kernel of one architecture, and the releases that it serves."""

    kernel: Kernel
    arch: Arch
    release: str
    """What a run is given: the oldest release with this kernel whose toolkit is known, or a distribution."""
    serves: str
    """All releases that have this kernel: `4.14.19-21, 4.15.6-9`."""
    stream: str = ""
    toolkits: tuple[str, ...] = ()
    """Digests of the toolkits for this kernel, as good as each other; a run takes the first."""
    toolkit_tag: str = ""
    """The tag of a toolkit that is made from packages, in the repository for these."""

    @property
    def name(self) -> str:
        """The kernel, and the architecture where the kernel's name does not tell it."""
        return str(self.kernel) if self.kernel.arch else f"{self.kernel} ({self.arch})"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One module for one target."""

    module: str
    target: Target

    def __str__(self) -> str:
        return f"{self.module} for {self.target.name}"
