"""Print the logs of a run."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dtkpipe.cli.output import say
from dtkpipe.cli.runs import Run


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def logs(
        run: Run,
        task: Annotated[
            list[str], typer.Option("--task", "-t", metavar="TASK", help="Only this task; repeatable")
        ] = [],  # noqa: B006
        failed: Annotated[bool, typer.Option("--failed", help="Only tasks that failed")] = False,
        tail: Annotated[int, typer.Option(min=0, metavar="N", help="Only the last N lines of each task; 0: all")] = 0,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends")] = False,
        prefix: Annotated[bool, typer.Option("--prefix/--no-prefix", help="Begin each line with [task]")] = True,
    ) -> int:
        """Print the logs of a run."""
        from dtkpipe.app.logs import Reader, choose
        from dtkpipe.app.runs import Runs
        from dtkpipe.resources import state_dir

        folder = Runs(state_dir(os.environ)).find(run)
        reader = Reader(folder, choose(folder.load(), task, failed=failed), tail)
        for name, line in reader.follow() if follow else reader.lines():
            print(f"[{name}] {line}" if prefix else line, flush=follow)
        card = folder.load()
        say(f"run {card.name} {card.state}" + (f": {card.cause}" if card.cause else ""))
        return 0
