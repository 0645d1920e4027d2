"""Show the settings and where they come from."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from dtkpipe.cli.output import TableOrJson, emit, table


def register(app: typer.Typer) -> None:
    """Add the command."""
    config = typer.Typer(rich_markup_mode=None)
    app.add_typer(config, name="config")

    @config.callback()
    def group() -> None:
        """Show the settings and where they come from."""

    @config.command()
    def show(output: TableOrJson = "table") -> None:
        """Show the settings and where they come from."""
        from dtkpipe.settings import load

        found = load(os.environ, Path.cwd()).values()

        def text() -> str:
            rows = [(one.key.name, _text(one.value) or "-", one.origin) for one in found]
            return table(("NAME", "VALUE", "ORIGIN"), rows)

        emit(output, {one.key.name: {"value": one.value, "origin": one.origin} for one in found}, text)


def _text(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ", ".join(value)
