"""Check what this machine or a cluster lacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtkpipe.cli.clusters import Context, Kubeconfig, Namespace
from dtkpipe.cli.output import TableOrJson, emit, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dtkpipe.app.doctor import Finding

_PANEL = "For a cluster"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def doctor(
        *,
        jobs: Annotated[
            str,
            typer.Option(
                "--for", metavar="JOBS",
                help="build, toolkits, verify, verify-arm, secure-boot, registry, tests, separated by commas, or all; "
                "push-to: the repository of the settings; cluster: a cluster instead of this machine",
            ),
        ] = "",
        fix: Annotated[bool, typer.Option("--fix", help="Install what is missing (as root, or through sudo)")] = False,
        engine: Annotated[
            str,
            typer.Option("--engine", "-e", metavar="ENGINE", rich_help_panel=_PANEL, help="argo or tekton"),
        ] = "",
        push_to: Annotated[
            str,
            typer.Option("--push-to", metavar="REPO", rich_help_panel=_PANEL, help="Repository a pod tries to reach"),
        ] = "",
        target_namespace: Annotated[
            str, typer.Option("--target-namespace", metavar="NAME", rich_help_panel=_PANEL, help="The drivers' one")
        ] = "",
        runner_image: Annotated[
            str,
            typer.Option(
                "--runner-image", metavar="IMAGE", rich_help_panel=_PANEL, help="That pod's image (default: the tasks')"
            ),
        ] = "",
        namespace: Namespace = "",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
        output: TableOrJson = "table",
    ) -> None:  # fmt: skip
        """Check what this machine or a cluster lacks.

        Exits with 1 when something is missing.

        dtkpipe doctor --for cluster -n dtkpipe --push-to quay.io/org/kmod
        """
        from dtkpipe.app import doctor as app
        from dtkpipe.errors import UsageError
        from dtkpipe.resources import cache_dir

        chosen = app.parse_jobs(jobs)
        of_cluster = {
            "--engine": engine, "--push-to": push_to, "--namespace": namespace, "--context": context,
            "--kubeconfig": kubeconfig, "--runner-image": runner_image, "--target-namespace": target_namespace,
        }  # fmt: skip
        if "cluster" in chosen:
            if len(chosen) > 1 or fix:
                raise UsageError("a cluster is looked at alone, and its fixes are yours to run", hint="--for cluster")
            found = _cluster(engine, push_to, target_namespace, runner_image, namespace, context, kubeconfig)
            _show(found, chosen, output, "the cluster")
            return
        if given := [flag for flag, value in of_cluster.items() if value]:
            raise UsageError(f"{given[0]} is about a cluster", hint="--for cluster")
        cache = cache_dir(os.environ)
        found = app.examine(chosen, cache)
        if fix:
            app.fix(found, say)
            found = app.examine(chosen, cache)
        _show(found, chosen, output, "this machine")


def _cluster(
    engine: str, push_to: str, target: str, runner: str, namespace: str, context: str, kubeconfig: Path | None
) -> list[Finding]:
    from dtkpipe.app.clusters import connect
    from dtkpipe.app.doctor_cluster import Patient, examine
    from dtkpipe.app.install import engine_named
    from dtkpipe.cli.clusters import where
    from dtkpipe.engines.rbac import TARGET_NAMESPACE
    from dtkpipe.settings import load
    from dtkpipe.values.arch import X86_64, Arch
    from dtkpipe.values.image import ImageRef

    settings = {name: one.value for name, one in load(os.environ, Path.cwd()).items()}
    repo = push_to or str(settings["push-to"])
    return examine(
        Patient(
            place=connect(where(kubeconfig, context, namespace)),
            engine=engine_named(engine) if engine else None, target=target or TARGET_NAMESPACE,
            arch=Arch.parse(str(settings["arch"])) if settings["arch"] else X86_64,
            runner_image=runner, push_to=ImageRef.parse(repo) if repo else None,
            insecure=tuple(settings["insecure-registries"]), signs=bool(settings["sign-cert"]),
        )
    )  # fmt: skip


def _show(found: Sequence[Finding], chosen: Sequence[str], output: TableOrJson, what: str) -> None:
    """Print the findings. Raises AnswerIsNoError for what is missing, with the commands that help."""
    from dtkpipe.app import doctor as app
    from dtkpipe.errors import AnswerIsNoError

    def text() -> str:
        rows = [
            (one.name, "ok" if one.ok else "MISSING", one.found, ",".join(job for job in one.jobs if job in chosen))
            for one in found
        ]
        return table(("NAME", "STATE", "FOUND", "FOR"), rows)

    emit(output, app.document(found), text)
    if lacking := list(app.missing(found)):
        packages = sorted({one.package for one in lacking if one.package})
        hints = [f"apt-get install {' '.join(packages)}  (or: dtkpipe doctor --fix)"] if packages else []
        hints += dict.fromkeys(one.fix for one in lacking if one.fix and not one.package)
        raise AnswerIsNoError(
            f"{what} lacks {', '.join(one.name for one in lacking)}",
            *(f"{one.name}: {one.found}" for one in lacking if not one.package),
            hint="\n      ".join(hints),
        )
