"""Print the version."""

from __future__ import annotations

import typer

from dtkpipe.cli.output import TableOrJson, emit


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def version(output: TableOrJson = "table") -> None:
        """Print the version of dtkpipe."""
        from dtkpipe import __version__

        emit(output, {"dtkpipe": __version__}, lambda: f"dtkpipe {__version__}")
