"""Compare a compiled pipeline with files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtkpipe.app.params import Inputs
from dtkpipe.cli.compile import As, Engine, RunName, RunnerImage, compiled_as_asked
from dtkpipe.cli.inputs import PipelineOption, takes_inputs


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    @takes_inputs
    def diff(
        files: Annotated[Path, typer.Argument(metavar="PATH", help="File or folder that `dtkpipe compile` wrote")],
        *,
        engine: Engine,
        pipeline: PipelineOption = "kmod",
        form: As = "template",
        inputs: Inputs,
        runner_image: RunnerImage = "",
        run_name: RunName = "",
    ) -> int:
        """Compare a compiled pipeline with files: a unified diff, and exit 1 if there is one.

        dtkpipe diff catalog/tekton --engine tekton
        """
        from dtkpipe.app.diff import unified

        rendered = compiled_as_asked(engine, pipeline, form, inputs, runner_image=runner_image, run_name=run_name)
        changes = unified(rendered, files)
        print(changes, end="")
        return 1 if changes else 0
