"""Print a pipeline as the YAML of an engine, or write all that a cluster needs as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dtkpipe.app.params import Inputs
from dtkpipe.cli.inputs import takes_inputs
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
Pipeline = Annotated[
    str,
    typer.Option(
        "--pipeline",
        metavar="PIPELINE",
        help="kmod (default; of a folder: every one), prebuild, or a file of yours: mine.py, mine.py:name",
    ),
]
Runs = Annotated[str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Of a folder: namespace of the runs")]
Target = Annotated[
    str, typer.Option("--target-namespace", metavar="NAMESPACE", help="Of a folder: namespace of the drivers")
]
OpenShift = Annotated[bool, typer.Option("--openshift", help="Of a folder: with what only OpenShift has")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail (exit 8) where the engine does other than asked")]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    @takes_inputs
    def compile(
        *,
        engine: Engine,
        pipeline: Pipeline = "",
        form: As = "template",
        inputs: Inputs,
        output: Annotated[
            Literal["yaml", "json", "name"], typer.Option("-o", "--output", help="Form of the answer on stdout")
        ] = "yaml",
        folder: Annotated[
            Path | None,
            typer.Option("--dir", metavar="DIR", help="Write all that a cluster needs into this folder, for GitOps"),
        ] = None,
        check: Annotated[
            bool, typer.Option("--check", help="With --dir: write nothing, exit 1 if the files differ")
        ] = False,
        namespace: Runs = "",
        target_namespace: Target = "",
        openshift: OpenShift = False,
        builder: Builder = "buildah",
        runner_image: RunnerImage = "",
        kaniko_image: KanikoImage = "",
        run_name: RunName = "",
        strict: Strict = False,
    ) -> None:
        """Print a pipeline as the YAML of an engine.

        Parameters given to a template become its defaults; a run needs all that have none. With --dir it writes what
        `dtkpipe install` applies: a file for each object and a Kustomization, for Argo CD, Flux and kubectl. A second
        time nothing changes; of what it wrote before, what is no more goes; files of others stay.

        dtkpipe compile --engine tekton | kubectl apply -f -

        dtkpipe compile --engine argo --as run --release 4.14 --repo github.com/org/kmod --push-to quay.io/org/kmod

        dtkpipe compile --engine tekton -n kmods --dir deploy
        """
        from dtkpipe.errors import UsageError

        if folder:
            refuse_for_folders(form, run_name, output)
            files = laid_out(
                engine, pipeline, inputs, builder=builder, runner_image=runner_image, kaniko_image=kaniko_image,
                namespace=namespace, target=target_namespace, openshift=openshift, strict=strict,
            )  # fmt: skip
            _into_folder(files, folder, engine, check)
            return
        refuse_for_one(namespace, target_namespace, openshift)
        if check:
            raise UsageError("--check compares files: it needs --dir", hint="dtkpipe diff compares with other files")
        rendered = compiled_as_asked(
            engine, pipeline or "kmod", form, inputs, builder=builder, runner_image=runner_image,
            kaniko_image=kaniko_image, run_name=run_name, strict=strict,
        )  # fmt: skip
        _print(rendered, output)
        if form == "run":
            say(f"next: {_how_to_start(engine, pipeline or 'kmod')}")


def refuse_for_folders(form: str, run_name: str, output: str = "yaml") -> None:
    """Raise UsageError for what says nothing of a folder."""
    from dtkpipe.errors import UsageError

    if form != "template" or run_name or output != "yaml":
        raise UsageError("a folder holds what is installed, as YAML", hint="leave out --as, --run-name and -o")


def refuse_for_one(namespace: str, target: str, openshift: bool) -> None:
    """Raise UsageError for what says nothing of one pipeline: kubectl says where it goes."""
    from dtkpipe.errors import UsageError

    for flag, given in (("--namespace", namespace), ("--target-namespace", target), ("--openshift", openshift)):
        if given:
            raise UsageError(f"{flag} is for all that a cluster needs, not for one pipeline", hint="add --dir DIR")


def laid_out(
    engine: str, pipeline: str, inputs: Inputs, *, builder: str = "buildah", runner_image: str = "",
    kaniko_image: str = "", namespace: str = "", target: str = "", openshift: bool = False, strict: bool = False,
) -> dict[str, str]:  # fmt: skip
    """Return the files of a folder by name, and say what the engine does otherwise than the pipelines ask."""
    from dtkpipe.app.compile import engine_module
    from dtkpipe.app.install import Installation, engine_named
    from dtkpipe.engines.installed import files
    from dtkpipe.engines.rbac import NAMESPACE, TARGET_NAMESPACE
    from dtkpipe.model.images import DEFAULTS, KANIKO, RUNNER
    from dtkpipe.settings import load

    engine_module(engine)
    wanted = Installation(
        engine=engine_named(engine), inputs=inputs, builders=(builder,), pipelines=(pipeline,) if pipeline else (),
        namespace=namespace or str(load(os.environ, Path.cwd())["namespace"].value) or NAMESPACE,
        target=target or TARGET_NAMESPACE, runner_image=runner_image or DEFAULTS[RUNNER],
        kaniko_image=kaniko_image or DEFAULTS[KANIKO], strict=strict,
    )  # fmt: skip
    for note in dict.fromkeys(f"note: {one}" for rendered in wanted.rendered for one in rendered.unsupported):
        say(note)
    return files(wanted.objects(openshift=openshift), engine)


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


def _into_folder(files: dict[str, str], folder: Path, engine: str, check: bool) -> None:
    from dtkpipe.app.layout import compare, write

    if check:
        compare(files, folder, engine)
        say(f"{folder}: {len(files)} files are up to date")
        return
    changed = write(files, folder, engine)
    print(*(folder / name for name in changed), sep="\n", end="\n" if changed else "")
    say(f"{folder}: {len(changed)} of {len(files)} files changed" if changed else f"{folder}: nothing changed")


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
