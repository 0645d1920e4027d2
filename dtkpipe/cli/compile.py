"""Print a pipeline as the YAML of an engine, or write it into files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dtkpipe.app.params import Inputs
from dtkpipe.cli.inputs import PipelineOption, takes_inputs
from dtkpipe.cli.output import say

if TYPE_CHECKING:
    from dtkpipe.engines.rendered import Rendered

Engine = Annotated[str, typer.Option("--engine", "-e", metavar="ENGINE", help="argo or tekton")]
As = Annotated[
    Literal["template", "run", "inline"],
    typer.Option(
        "--as",
        help="template: what is installed once; run: one run of it; inline: one run that needs nothing installed",
    ),
]
RunnerImage = Annotated[
    str, typer.Option("--runner-image", metavar="IMAGE", help="Image of dtkpipe's steps, instead of the released one")
]
RunName = Annotated[str, typer.Option("--run-name", metavar="NAME", help="Name of the run, instead of a generated one")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail (exit 8) where the engine does other than asked")]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    @takes_inputs
    def compile(
        *,
        engine: Engine,
        pipeline: PipelineOption = "kmod",
        form: As = "template",
        inputs: Inputs,
        output: Annotated[
            Literal["yaml", "json", "name"], typer.Option("-o", "--output", help="Form of the answer on stdout")
        ] = "yaml",
        folder: Annotated[
            Path | None, typer.Option("--dir", metavar="DIR", help="Write a file for each object into this folder")
        ] = None,
        check: Annotated[
            bool, typer.Option("--check", help="With --dir: write nothing, exit 1 if the files differ")
        ] = False,
        runner_image: RunnerImage = "",
        run_name: RunName = "",
        strict: Strict = False,
    ) -> None:
        """Print a pipeline as the YAML of an engine.

        Parameters given to a template become its defaults; a run needs all that have none.

        dtkpipe compile --engine tekton | kubectl apply -f -

        dtkpipe compile --engine argo --as run --release 4.14 --repo github.com/org/kmod --push-to quay.io/org/kmod
        """
        from dtkpipe.errors import UsageError

        if check and not folder:
            raise UsageError("--check compares files: it needs --dir", hint="dtkpipe diff compares with other files")
        rendered = compiled_as_asked(engine, pipeline, form, inputs, runner_image, run_name, strict)
        if folder:
            _into_folder(rendered, folder, check)
        else:
            _print(rendered, output)
            if form == "run":
                say(f"next: {_how_to_start(engine, pipeline)}")


def compiled_as_asked(
    engine: str, pipeline: str, form: str, inputs: Inputs, runner_image: str, run_name: str, strict: bool
) -> Rendered:
    """Compile, and say on stderr what the engine does otherwise than the pipeline asks."""
    from dtkpipe.app.compile import Wanted, compile_pipeline
    from dtkpipe.app.pipelines import load
    from dtkpipe.engines.rendered import Form
    from dtkpipe.model.images import DEFAULTS, RUNNER

    chosen = load(pipeline)
    wanted = Wanted(
        engine=engine, form=Form(form), params=inputs.of(chosen), runner_image=runner_image or DEFAULTS[RUNNER],
        run_name=run_name, strict=strict,
    )  # fmt: skip
    rendered = compile_pipeline(chosen, wanted)
    for one in rendered.unsupported:
        say(f"note: {one}")
    return rendered


def _into_folder(rendered: Rendered, folder: Path, check: bool) -> None:
    from dtkpipe.app.compile import as_files, compare, write

    files = as_files(rendered)
    if check:
        compare(files, folder)
        say(f"{folder}: {len(files)} files are up to date")
    else:
        write(files, folder)
        print(*(folder / name for name in files), sep="\n")


def _print(rendered: Rendered, output: str) -> None:
    import json

    from dtkpipe.app.compile import name_of
    from dtkpipe.engines.dump import dump

    if output == "name":
        print(*(name_of(one) for one in rendered.objects), sep="\n")
    elif output == "json":
        one, *more = rendered.objects
        # A List is how kubectl reads several objects from one JSON document.
        whole = {"apiVersion": "v1", "kind": "List", "items": list(rendered.objects)} if more else one
        print(json.dumps(whole, indent=2, ensure_ascii=False))
    else:
        print(dump(rendered.objects), end="")


def _how_to_start(engine: str, pipeline: str) -> str:
    install = f"dtkpipe compile --engine {engine} --pipeline {pipeline} | kubectl apply -f -"
    return f"kubectl create -f FILE; the pipeline itself is installed once: {install}"
