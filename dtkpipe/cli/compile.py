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
Builder = Annotated[str, typer.Option("--builder", metavar="BUILDER", help="What builds images: buildah or kaniko")]
KanikoImage = Annotated[
    str, typer.Option("--kaniko-image", metavar="IMAGE", help="Image of kaniko, instead of the one of its last version")
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
        builder: Builder = "buildah",
        runner_image: RunnerImage = "",
        kaniko_image: KanikoImage = "",
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
        rendered = compiled_as_asked(
            engine, pipeline, form, inputs, builder=builder, runner_image=runner_image, kaniko_image=kaniko_image,
            run_name=run_name, strict=strict,
        )  # fmt: skip
        if folder:
            _into_folder(rendered, folder, check)
        else:
            _print(rendered, output)
            if form == "run":
                say(f"next: {_how_to_start(engine, pipeline)}")


def compiled_as_asked(
    engine: str, pipeline: str, form: str, inputs: Inputs, *, builder: str = "buildah", runner_image: str = "",
    kaniko_image: str = "", run_name: str = "", strict: bool = False,
) -> Rendered:  # fmt: skip
    """Compile, and say on stderr what the engine does otherwise than the pipeline asks."""
    from dtkpipe.app.compile import Wanted, compile_pipeline
    from dtkpipe.app.pipelines import load
    from dtkpipe.builders import with_builder
    from dtkpipe.engines.rendered import Form
    from dtkpipe.model.images import DEFAULTS, KANIKO, RUNNER

    chosen = with_builder(load(pipeline), builder)
    wanted = Wanted(
        engine=engine, form=Form(form), params=inputs.of(chosen), runner_image=runner_image or DEFAULTS[RUNNER],
        kaniko_image=kaniko_image or DEFAULTS[KANIKO], run_name=run_name, strict=strict,
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
