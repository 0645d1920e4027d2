"""Write a dtkpipe.yaml for a module source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtkpipe.cli.output import say


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def init(
        folder: Annotated[Path, typer.Argument(help="Folder of the module")] = Path(),
        *,
        force: Annotated[bool, typer.Option("--force", help="Write over a dtkpipe.yaml that is there")] = False,
    ) -> None:
        """Write the dtkpipe.yaml that can be inferred from a module's source, for you to complete.

        dtkpipe init ./my-module
        """
        from dtkpipe.app.source import infer, write_spec

        found = infer(str(folder.absolute()), Path.cwd())
        path = write_spec(found, folder, force=force)
        for note in (*found.notes, *found.open_points):
            say(note)
        print(path)
        say(f"next: dtkpipe submit --engine local --release debian-12 --repo {folder}")
