"""List, describe, wait for, cancel, retry and delete runs."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dtkpipe.cli.clusters import Context, Kubeconfig, Namespace
from dtkpipe.cli.output import AnyForm, Look, emit, say, table

if TYPE_CHECKING:
    from dtkpipe.app.runs_anywhere import Anywhere, Found
    from dtkpipe.values.run import RunCard


def _names(incomplete: str) -> list[str]:
    """Complete the name of a run, from the folders alone: a key that is pressed must not ask a cluster."""
    from dtkpipe.app.runs import LATEST, Runs
    from dtkpipe.resources import state_dir

    root = Runs(state_dir(os.environ)).root
    found = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    return [name for name in (LATEST, *found) if name.startswith(incomplete)]


Run = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or @latest", autocompletion=_names)]
RunNames = Annotated[list[str], typer.Argument(metavar="RUN...", help="Names of runs", autocompletion=_names)]
Engine = Annotated[
    str,
    typer.Option("--engine", "-e", metavar="ENGINE", help="local, argo or tekton (default: wherever runs are)"),
]
_CAUSE = 60
"""Characters of a cause in a list."""


def looked_at(engine: str, kubeconfig: Path | None, context: str, namespace: str) -> Anywhere:
    """Return where runs are looked for: what the options say, else the settings. Raises DtkpipeError."""
    from dtkpipe.app.runs_anywhere import anywhere
    from dtkpipe.cli.clusters import where
    from dtkpipe.resources import state_dir
    from dtkpipe.settings import load

    chosen = engine or str(load(os.environ, Path.cwd())["engine"].value)
    named = bool(kubeconfig or context or namespace)
    there = where(kubeconfig, context, namespace)
    return anywhere(chosen, there, named=named, state=state_dir(os.environ), say=say)


def found_in(places: Anywhere, name: str, *, quiet: bool = False) -> Found:
    """Return a run, and say where it was found when there was more than one place to look at."""
    found = places.find(name)
    if len(places.places) > 1 and not quiet:
        say(f"run {found.card.name}: {found.place}")
    return found


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @app.command("list")
    def list_(
        engine: Engine = "",
        namespace: Namespace = "",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
        output: AnyForm = "table",
        limit: Annotated[int, typer.Option(min=1, help="Show at most this many, the newest first")] = 50,
    ) -> None:
        """List runs: those of this machine, and those of the cluster that is configured or named."""
        from dtkpipe.app.runs import with_findings

        places = looked_at(engine, kubeconfig, context, namespace)
        cards = places.all(limit)
        if not cards and output == "table":
            looked = places.looked() if len(places.places) > 1 else []
            say("\n".join(["there are no runs yet", *looked, "", "hint: dtkpipe submit --help"]))
            return
        document = [] if output in ("table", "name") else [_document(with_findings(card)) for card in cards]
        emit(output, document, lambda: _table(cards), [f"run/{card.name}" for card in cards])

    @app.command()
    def describe(
        run: Run,
        engine: Engine = "",
        namespace: Namespace = "",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
        output: Annotated[
            Literal["table", "json", "yaml", "name", "markdown", "junit"],
            typer.Option("-o", "--output", help="Form of the answer on stdout"),
        ] = "table",
    ) -> None:
        """Show how a run goes, or went."""
        from dtkpipe.values.run import FAILED

        places = looked_at(engine, kubeconfig, context, namespace)
        card = found_in(places, run, quiet=output != "table").card
        if output == "markdown":
            from dtkpipe.report.markdown import markdown

            print(markdown([card]), end="")
            return
        if output == "junit":
            from dtkpipe.report.junit import junit

            print(junit([card]), end="")
            return
        emit(output, _document(card), lambda: _described(card), [f"run/{card.name}"])
        if card.state == FAILED:
            say(
                "\n".join(
                    ["", *([f"hint: {card.hint}"] if card.hint else []), f"hint: dtkpipe logs {card.address} --failed"]
                )
            )

    @app.command()
    def wait(
        run: Run,
        engine: Engine = "",
        namespace: Namespace = "",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
        timeout: Annotated[
            int, typer.Option(min=0, metavar="SECONDS", help="Give up after so long, with exit code 12; 0: never")
        ] = 0,
        output: AnyForm = "table",
    ) -> None:
        """Wait until a run has ended, and exit as it did: 0, 10 failed, 11 cancelled, 12 timed out or not known."""
        from dtkpipe.app.runs import outcome
        from dtkpipe.report.card import headline

        found = found_in(looked_at(engine, kubeconfig, context, namespace), run, quiet=output != "table")
        until = time.monotonic() + timeout if timeout else None
        card = found.place.wait(found.card.name, until)
        emit(output, _document(card), lambda: headline(card), [f"run/{card.name}"])
        if error := outcome(card):
            raise error

    @app.command()
    def cancel(
        names: RunNames,
        engine: Engine = "",
        namespace: Namespace = "",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
    ) -> None:
        """End runs. What always runs at their end still does, where the engine can (not on Argo Workflows)."""
        places = looked_at(engine, kubeconfig, context, namespace)
        for found in [found_in(places, name) for name in names]:
            done = found.place.cancel(found.card.name)
            print(f"run/{found.card.name} {'cancelled' if done else f'has ended: {found.card.state}'}")

    @app.command()
    def retry(
        run: Run,
        engine: Engine = "",
        namespace: Namespace = "",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
        from_failed: Annotated[
            bool, typer.Option("--from-failed", help="Take over what succeeded, where its images are still there")
        ] = False,
        output: AnyForm = "name",
    ) -> None:
        """Try a run again that failed or was cancelled: a new run of the same inputs.

        The run before stays, with its logs. On this machine `dtkpipe submit` does it: it goes on where it was.
        """
        found = found_in(looked_at(engine, kubeconfig, context, namespace), run)
        card = found.place.retry(found.card.name, from_failed=from_failed)
        if taken := [step.name for step in card.steps if step.reused]:
            say(f"taken over from {found.card.name}: {', '.join(taken)}")
        elif from_failed:
            say(f"nothing of {found.card.name} can be taken over: all of it runs again")
        emit(output, _document(card), lambda: card.name, [f"run/{card.name}"])
        say(f"next: dtkpipe wait {card.address}")

    @app.command()
    def delete(
        names: RunNames,
        engine: Engine = "",
        namespace: Namespace = "",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
    ) -> None:
        """Delete runs and their logs; what they published stays."""
        places = looked_at(engine, kubeconfig, context, namespace)
        for found in [found_in(places, name) for name in names]:
            found.place.delete(found.card.name)
            print(f"run/{found.card.name} deleted")


def _document(card: RunCard) -> Any:
    import json

    return json.loads(card.to_json())


def _table(cards: list[RunCard]) -> str:
    from dtkpipe.report.card import seconds

    now = time.time()
    rows = [
        (
            card.name,
            card.engine,
            card.state,
            card.result("resolve", "KERNEL") or card.inputs.get("kernel", "") or "-",
            card.result("verify", "VERDICT") or "-",
            seconds(card.finished - card.created) or "-",
            _age(now - card.created),
            _short(card.cause),
        )
        for card in cards
    ]
    return table(("NAME", "ENGINE", "STATE", "KERNEL", "VERDICT", "TIME", "AGE", "CAUSE"), rows)


def _described(card: RunCard) -> str:
    from dtkpipe.cli import tree
    from dtkpipe.report.card import aligned, facts, nodes, proofs

    cause = [f"cause     {card.cause}"] if card.cause else []
    lines = [*tree.lines(card, time.time(), Look.of(sys.stdout)), "", tree.columns(facts(card)), *cause]
    tables = [aligned(one) for one in (proofs(card), nodes(card))]
    return "\n".join([*lines, *(text for one in tables if one for text in ("", one))])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CAUSE else f"{line[: _CAUSE - 1]}…"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"
