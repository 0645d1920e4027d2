"""clean: remove what the run left in the staging repository. Always runs."""

from __future__ import annotations

from dataclasses import dataclass

from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.image import ImageRef


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """The run whose candidates are not needed any more."""

    staging: ImageRef = arg("Repository for candidates")
    run_name: str = arg("Name of the run: candidates are the tags that begin with it")


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was removed."""

    removed: str = result("Number of candidates that were removed, or why none could be")


def run(args: Args, room: Room) -> Results:
    """Delete the run's candidates; a registry that cannot delete is said, and is no failure."""
    raise NotImplementedError
