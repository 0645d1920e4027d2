"""The program that runs a task of the user's own image: `python -m dtkpipe.engines.local.container ORDER.json`.

A process of its own, so that such a task is stopped, timed and logged like every other.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import DtkpipeError
from dtkpipe.model.pipeline import WORKSPACE

RESULTS = "/run/dtkpipe/results"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to run, and what of this machine it may see."""

    image: str
    argv: Sequence[str]
    env: Mapping[str, str]
    mounts: Sequence[tuple[str, str, bool]]
    """(path here, path in the container, read-only)"""
    storage: str
    insecure: str
    """Hosts, as a JSON list: the form of the parameter."""
    ca: str
    mirrors: str

    def to_json(self) -> str:
        """Write the order."""
        return json.dumps(dataclasses.asdict(self))


def main(argv: Sequence[str]) -> int:
    """Run the order in file `argv[0]`; return the exit code of its program, or that of the error."""
    from dtkpipe.tools.buildah import Buildah, Mount
    from dtkpipe.values.access import access_from
    from dtkpipe.values.image import ImageRef

    try:
        order = Order(**json.loads(Path(argv[0]).read_text()))
        access = access_from(json.loads(order.insecure), order.ca, os.environ, order.mirrors)
        buildah = Buildah(Path(order.storage), access)
        image = buildah.pull(ImageRef.parse(order.image))
        return buildah.run_in(
            image, order.argv, env=order.env, workdir=WORKSPACE, log=sys.stdout.buffer,
            mounts=[Mount(Path(here), there, read_only) for here, there, read_only in order.mounts],
        )  # fmt: skip
    except DtkpipeError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is a program of its own
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
