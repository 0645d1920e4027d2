"""Compare what would be compiled with files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtkpipe.app.params import Inputs
from dtkpipe.cli.compile import (
    As,
    Builder,
    Engine,
    KanikoImage,
    OpenShift,
    Pipeline,
    RunName,
    RunnerImage,
    Runs,
    Target,
    compiled_as_asked,
    laid_out,
    refuse_for_folders,
    refuse_for_one,
)
from dtkpipe.cli.inputs import takes_inputs


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    @takes_inputs
    def diff(
        files: Annotated[Path, typer.Argument(metavar="PATH", help="File or folder that `dtkpipe compile` wrote")],
        *,
        engine: Engine,
        pipeline: Pipeline = "",
        form: As = "template",
        inputs: Inputs,
        namespace: Runs = "",
        target_namespace: Target = "",
        openshift: OpenShift = False,
        builder: Builder = "buildah",
        runner_image: RunnerImage = "",
        kaniko_image: KanikoImage = "",
        run_name: RunName = "",
    ) -> int:
        """Compare a compiled pipeline with files: a unified diff, and exit 1 if there is one.

        A folder, or a file of one, is compared with what `dtkpipe compile --dir` would write.

        dtkpipe diff catalog/tekton --engine tekton
        """
        from dtkpipe.app.diff import is_of_folder, with_file, with_folder
        from dtkpipe.engines.dump import dump

        if is_of_folder(files, engine):
            refuse_for_folders(form, run_name)
            wanted = laid_out(
                engine, pipeline, inputs, builder=builder, runner_image=runner_image, kaniko_image=kaniko_image,
                namespace=namespace, target=target_namespace, openshift=openshift,
            )  # fmt: skip
            changes = with_folder(wanted, files, engine)
        else:
            refuse_for_one(namespace, target_namespace, openshift)
            rendered = compiled_as_asked(
                engine, pipeline or "kmod", form, inputs, builder=builder, runner_image=runner_image,
                kaniko_image=kaniko_image, run_name=run_name,
            )  # fmt: skip
            changes = with_file(dump(rendered.objects), files)
        print(changes, end="")
        return 1 if changes else 0
