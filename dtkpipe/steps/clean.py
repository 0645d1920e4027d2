"""clean: remove what the run left in the staging repository. Always runs."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

from dtkpipe.errors import DtkpipeError, NotFoundError
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
    from dtkpipe.clients.registry import Registry

    registry = Registry(args.access(room.environ))
    # `<run>-<step>`, and not those of a run whose name begins with ours.
    candidate = re.compile(re.escape(args.run_name) + r"-[a-z0-9]+")
    removed = 0
    try:
        for tag in registry.tags(args.staging):
            if candidate.fullmatch(tag):
                with suppress(NotFoundError):  # somebody was quicker: a second attempt of this step
                    registry.untag(args.staging.tagged(tag))
                    room.say(f"removed {args.staging.tagged(tag)}")
                    removed += 1
    except DtkpipeError as error:
        room.say(f"candidates of {args.run_name} stay in {args.staging.name}: {error.what}")
        return Results(removed=f"{removed}; the rest stays: {error.what}")
    return Results(removed=str(removed))
