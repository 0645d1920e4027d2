"""Print the logs of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from dtkpipe.cli.clusters import Context, Kubeconfig, Namespace
from dtkpipe.cli.output import say
from dtkpipe.cli.runs import Engine, Run, found_in, looked_at


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def logs(
        run: Run,
        task: Annotated[
            list[str], typer.Option("--task", "-t", metavar="TASK", help="Only this task; repeatable")
        ] = [],  # noqa: B006
        failed: Annotated[bool, typer.Option("--failed", help="Only tasks that failed")] = False,
        attempt: Annotated[
            int, typer.Option(min=0, metavar="N", help="On a cluster: that try of each task, 1 the first; 0: the last")
        ] = 0,
        previous: Annotated[
            bool, typer.Option("--previous", "-p", help="On a cluster: the try, or the container, before the last")
        ] = False,
        node: Annotated[
            str, typer.Option(metavar="NODE", help="What the driver said that the run put on this node")
        ] = "",
        tail: Annotated[int, typer.Option(min=0, metavar="N", help="Only the last N lines of each task; 0: all")] = 0,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends")] = False,
        prefix: Annotated[bool, typer.Option("--prefix/--no-prefix", help="Begin each line with [task]")] = True,
        engine: Engine = "",
        namespace: Namespace = "",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
    ) -> int:
        """Print the logs of a run, task by task."""
        from dtkpipe.app.logs import choose
        from dtkpipe.app.runs_anywhere import LAST, LogOptions, reader
        from dtkpipe.errors import UsageError

        if previous and attempt:
            raise UsageError("--previous and --attempt name two tries", hint="give one of them")
        if node and (task or failed or attempt):
            raise UsageError("--node shows the driver on a node, not a task", hint="drop --task, --failed, --attempt")
        if follow and (previous or attempt):
            raise UsageError("a try that has ended says nothing more", hint="drop --follow")
        found = found_in(looked_at(engine, kubeconfig, context, namespace), run)
        options = LogOptions(tail=tail, attempt=attempt or (LAST - 1 if previous else LAST), node=node)
        lines = reader(found, choose(found.card, task, failed=failed), options, say)
        for name, line in lines.follow() if follow else lines.lines():
            print(f"[{name}] {line}" if prefix else line, flush=follow)
        card = found.place.card(found.card.name) or found.card if follow else found.card
        say(f"run {card.name} {card.state}" + (f": {card.cause}" if card.cause else ""))
        return 0
