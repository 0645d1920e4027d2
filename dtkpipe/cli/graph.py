"""Draw a pipeline."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dtkpipe.cli.inputs import PipelineOption


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def graph(
        pipeline: PipelineOption = "kmod",
        output: Annotated[
            Literal["ascii", "mermaid", "dot", "svg"], typer.Option("-o", "--output", help="Form of the picture")
        ] = "ascii",
    ) -> None:
        """Draw a pipeline: its tasks, what each waits for, and what always runs.

        dtkpipe graph -o svg > pipeline.svg
        """
        from dtkpipe.app.graph import draw
        from dtkpipe.app.pipelines import load

        print(draw(load(pipeline), output), end="")
