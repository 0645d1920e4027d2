"""List, describe and delete runs."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated, Literal

import typer

from dtkpipe.cli.output import AnyForm, Look, emit, say, table


def _names(incomplete: str) -> list[str]:
    """Complete the name of a run, from the folders alone."""
    from dtkpipe.app.runs import LATEST, Runs
    from dtkpipe.resources import state_dir

    root = Runs(state_dir(os.environ)).root
    found = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    return [name for name in (LATEST, *found) if name.startswith(incomplete)]


Run = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or @latest", autocompletion=_names)]


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @app.command("list")
    def list_(
        output: AnyForm = "table",
        limit: Annotated[int, typer.Option(min=1, help="Show at most this many, the newest first")] = 50,
    ) -> None:
        """List runs."""
        import json

        from dtkpipe.app.runs import Runs
        from dtkpipe.report.card import seconds
        from dtkpipe.resources import state_dir

        cards = Runs(state_dir(os.environ)).all()[:limit]

        def text() -> str:
            rows = [
                (
                    card.name,
                    card.state,
                    card.result("resolve", "KERNEL") or "-",
                    card.result("verify", "VERDICT") or "-",
                    seconds(card.finished - card.created) or "-",
                    _age(time.time() - card.created),
                )
                for card in cards
            ]
            return table(("NAME", "STATE", "KERNEL", "VERDICT", "TIME", "AGE"), rows)

        if not cards and output == "table":
            say("there are no runs yet\n\nhint: dtkpipe submit --help")
            return
        emit(output, [json.loads(card.to_json()) for card in cards], text, [f"run/{card.name}" for card in cards])

    @app.command()
    def describe(run: Run, output: Annotated[
        Literal["table", "json", "yaml", "name", "markdown", "junit"],
        typer.Option("-o", "--output", help="Form of the answer on stdout"),
    ] = "table") -> None:  # fmt: skip
        """Show how a run went."""
        import json

        from dtkpipe.app.runs import Runs
        from dtkpipe.cli import tree
        from dtkpipe.report.card import aligned, facts, proofs
        from dtkpipe.resources import state_dir
        from dtkpipe.values.run import FAILED

        card = Runs(state_dir(os.environ)).find(run).load()
        if output == "markdown":
            from dtkpipe.report.markdown import markdown

            print(markdown([card]), end="")
            return
        if output == "junit":
            from dtkpipe.report.junit import junit

            print(junit([card]), end="")
            return

        def text() -> str:
            cause = [f"cause     {card.cause}"] if card.cause else []
            lines = [*tree.lines(card, time.time(), Look.of(sys.stdout)), "", tree.columns(facts(card)), *cause]
            return "\n".join([*lines, *(["", aligned(proofs(card))] if card.verdict else [])])

        emit(output, json.loads(card.to_json()), text, [f"run/{card.name}"])
        if card.state == FAILED:
            say(f"\nhint: dtkpipe logs {card.name} --failed")

    @app.command()
    def delete(
        names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names of runs", autocompletion=_names)],
    ) -> None:
        """Delete runs and their logs."""
        from dtkpipe.app.runs import Runs
        from dtkpipe.resources import state_dir

        runs = Runs(state_dir(os.environ))
        found = [runs.find(name).name for name in names]
        for name in found:
            runs.delete(name)
            print(f"run/{name} deleted")


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"
