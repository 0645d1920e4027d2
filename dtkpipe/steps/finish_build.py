"""finish-build: hold what kaniko built against what was promised, and label it. The last container of such a build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dtkpipe.steps import build, prepare_build
from dtkpipe.steps.contract import Room


@dataclass(frozen=True, kw_only=True)
class Args(prepare_build.Args):
    """What prepare-build takes."""


@dataclass(frozen=True, kw_only=True)
class Results(build.Results):
    """What build gives."""


def run(args: Args, room: Room) -> Results:
    """Raise what prepare-build and kaniko failed with, else what build raises."""
    from dtkpipe.steps.build.kaniko import Handover

    handover = Handover(Path(args.folder))
    fetched, own = handover.source()
    builder = build.begin(args, room, fetched)
    digest = handover.digest(builder)
    done = build.finish(args, room, builder, lambda: (digest, own))
    return Results(**vars(done))
