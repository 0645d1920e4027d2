"""prepare-build: lay out what kaniko is to build. The first container of a build with kaniko."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dtkpipe.errors import DtkpipeError, UnsupportedError
from dtkpipe.steps import build
from dtkpipe.steps.contract import Room, arg, repeated

if TYPE_CHECKING:
    from dtkpipe.steps.build.kaniko import Handover


@dataclass(frozen=True, kw_only=True)
class Args(build.Args):
    """What build takes, and the folder through which its containers hand over their work."""

    folder: str = arg("Folder that the containers of the build share")


@dataclass(frozen=True, kw_only=True)
class Results:
    """None: what is made lies in the folder, also a failure, which finish-build ends with."""


def run(args: Args, room: Room) -> Results:
    """Fetch the source and write kaniko's context, Containerfile and flags. What fails is left to finish-build."""
    from dtkpipe.steps.build.kaniko import Handover

    handover = Handover(Path(args.folder))
    handover.install(room.cache)
    try:
        repeated(lambda number: _lay_out(args, room.again(number), handover), room.environ, room.say)
    except DtkpipeError as error:
        room.say(f"error: {error}")
        handover.leave(error)
    return Results()


def _lay_out(args: Args, room: Room, handover: Handover) -> None:
    if args.hermetic:
        raise UnsupportedError("kaniko cannot take the network away from a build", hint="--builder buildah")
    if args.registry_mirrors:
        raise UnsupportedError("kaniko does not read through mirror sets", hint="--builder buildah")
    handover.order(build.begin(args, room), build.candidate_of(args))
