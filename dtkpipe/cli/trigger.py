"""Matrices that are submitted when something happens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dtkpipe.cli.clusters import Context, DryRun, Kubeconfig, Namespace, where
from dtkpipe.cli.output import AnyForm, TableOrJson, emit, say, table
from dtkpipe.cli.schedule import matrix_of, parsed, time_of

if TYPE_CHECKING:
    from dtkpipe.app.clusters import Place
    from dtkpipe.app.triggers import Rung
    from dtkpipe.values.forge import Repository

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the trigger")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    trigger = typer.Typer(rich_markup_mode=None)
    app.add_typer(trigger, name="trigger")

    @trigger.callback()
    def group() -> None:
        """Submit matrices when somebody pushes."""

    trigger.command()(create)
    trigger.command("list")(list_triggers)
    trigger.command("test")(send)
    trigger.command()(delete)
    trigger.command(hidden=True)(ring)
    trigger.command(hidden=True)(answer)


def create(
    *,
    name: Name,
    words: Annotated[
        list[str], typer.Argument(metavar="-- MATRIX...", help="Options of `dtkpipe matrix submit`: which matrix")
    ],
    on: Annotated[
        Literal["push", "catalog"], typer.Option("--on", help="A push to a module's repository, or to module specs")
    ],
    repo: Annotated[str, typer.Option("--repo", metavar="URL", help="The repository: github.com/org/kmod")],
    engine: Annotated[str, typer.Option("--engine", "-e", metavar="ENGINE", help="argo, tekton or github")],
    secret: Annotated[
        str, typer.Option("--secret", metavar="SECRET", help="Secret with what the repository signs with, as `token`")
    ] = "",
    path: Annotated[
        list[str], typer.Option("--path", metavar="PATTERN", help="Only when such a file changed: 'drivers/*'")
    ] = [],  # noqa: B006
    forge: Annotated[
        str, typer.Option("--forge", metavar="FORGE", help="github or gitlab, where the host does not tell")
    ] = "",
    runner_image: Annotated[
        str, typer.Option("--runner-image", metavar="IMAGE", help="Image of the planner, instead of the released one")
    ] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
    dry_run: DryRun = "none",
    output: AnyForm = "table",
) -> None:
    """Submit a matrix to a cluster when somebody pushes to a repository.

    dtkpipe trigger create hello --on push --repo github.com/org/hello --secret hook --engine tekton -- \
        --modules 'catalog/modules/*' --releases '4.16..4.18' --push-to quay.io/org

    push: of the matrix, the modules are planned that are built from this repository, when the branch is pushed to that
    they are built from. catalog: the repository has the module specs, and --modules says where in it; they are planned
    as it has them by then. A push rings only: what is built is the newest commit.

    github: nothing is created; what is printed is a workflow for the repository's .github/workflows/.
    """
    from dtkpipe.app import triggers
    from dtkpipe.app.clusters import connect
    from dtkpipe.app.install import engine_named
    from dtkpipe.app.pipelines import load
    from dtkpipe.errors import UsageError
    from dtkpipe.model.images import DEFAULTS, RUNNER
    from dtkpipe.values.forge import Repository

    repository = Repository.parse(repo, forge)
    if on == triggers.CATALOG and path:
        raise UsageError(
            "--path is not for --on catalog", "the files that ring are those of --modules", hint="leave it out"
        )
    if engine == "github":
        cluster = {
            "--secret": secret, "--namespace": namespace, "--context": context, "--kubeconfig": kubeconfig,
            "--dry-run": dry_run != "none", "--runner-image": runner_image, "--output": output != "table",
        }  # fmt: skip
        print(_workflow(name, repository, on, path, words, [flag for flag, given in cluster.items() if given]), end="")
        return
    chosen = engine_named(engine)
    if chosen.name == "tekton" and not secret:
        raise UsageError("nothing says who may ring", hint="--secret NAME: a Secret, its key `token`")
    if chosen.name == "argo" and secret:
        raise UsageError(
            "--secret is not for Argo", f"its server has all of them in Secret {triggers.WEBHOOK_CLIENTS}",
            hint="leave it out",
        )  # fmt: skip
    matrix = matrix_of(words)
    pipeline = load(matrix.pipeline).name
    place = connect(where(kubeconfig, context, namespace))
    image, here = runner_image or DEFAULTS[RUNNER], Path.cwd()
    if on == triggers.CATALOG:
        wanted = triggers.on_catalog(
            name, repo, repository, secret, chosen, place.namespace, matrix, image, here
        )  # fmt: skip
    else:
        wanted = triggers.on_push(name, repository, path, secret, chosen, place.namespace, matrix, image, here)
    if dry_run == "client":
        objects = list(wanted.render(chosen.name, place.namespace))
        emit(output, objects, lambda: f"trigger/{name}: {len(objects)} objects (client dry run)", [f"trigger/{name}"])
        return
    how = f"dtkpipe install --engine {chosen.name} -n {place.namespace}"
    triggers.create(wanted, chosen, place, pipeline, how, dry_run=dry_run == "server")
    if dry_run == "server":
        say("nothing was made, the cluster takes it: --dry-run=server")
    calls = triggers.called_at(chosen.name, place.namespace)
    document = {"name": name, "engine": chosen.name, "on": on, "url": calls}
    emit(output, document, lambda: f"trigger/{name} created; let the repository call: {calls}", [f"trigger/{name}"])


def _workflow(name: str, repository: Repository, on: str, paths: list[str], words: list[str], given: list[str]) -> str:
    """Return a workflow of GitHub. `given` are flags that only a cluster takes. Raises UsageError."""
    from dtkpipe.engines.dump import dump
    from dtkpipe.engines.github import REBUILD, workflow
    from dtkpipe.errors import UsageError
    from dtkpipe.values.forge import GITHUB

    if given:
        raise UsageError(f"{given[0]} is not for --engine github", "it runs on GitHub's machines", hint="leave it out")
    if repository.forge != GITHUB:
        raise UsageError(f"{repository.host} runs no workflows of GitHub", hint="--engine argo or --engine tekton")
    request, options = matrix_of(words).request, parsed(words)
    inputs = {
        "modules": ",".join(request.modules), "releases": request.releases, "push-to": request.push_to,
        "arch": ",".join(one.name for one in request.arches), "variant": ",".join(request.variants),
        "sign-cert": str(options["sign_cert"] or ""), "cells": str(options["jobs"]),
        "retry-failed": "true" if options["retry_failed"] else "",
    }  # fmt: skip
    unset = parsed(["--modules=any", "--releases=any"])
    for flag in sorted(set(options) - set(_OF_REBUILD)):
        if options[flag] != unset[flag]:
            raise UsageError(f"--{flag.replace('_', '-')} is not for --engine github", f"{REBUILD} has no such input")
    rings = request.modules if on == "catalog" else paths
    return dump([workflow(name, repository.path, rings, {key: text for key, text in inputs.items() if text})])


_OF_REBUILD = ("modules", "releases", "push_to", "arch", "variant", "sign_cert", "jobs", "retry_failed")


def list_triggers(
    *, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None, output: TableOrJson = "table"
) -> None:
    """List triggers: what rings, and how the planner that was started last ended.

    dtkpipe trigger list -n dtkpipe
    """
    from datetime import UTC, datetime

    from dtkpipe.app.triggers import listed

    place = _place(namespace, context, kubeconfig)
    found = listed(place, datetime.now(UTC))
    if not found and output == "table":
        say(f"there are no triggers in namespace {place.namespace}")
        return
    heads = ("NAME", "ENGINE", "ON", "REPOSITORY", "LAST", "OUTCOME", "STARTED")
    emit(output, [_document(one) for one in found], lambda: table(heads, [_row(one) for one in found]))


def send(
    *,
    name: Name,
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="Where the forge calls (default, on Tekton: the Service)")
    ] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Send a push as the repository's host does, with its signature, and say what came of it.

    dtkpipe trigger test hello

    It rings really: what is stale is built.
    """
    from dtkpipe.app.calls import ring_as_forge

    came = ring_as_forge(_place(namespace, context, kubeconfig), name, url, say)
    print(f"trigger/{name} rang" + (f", {came.planner} plans" if came.planner else ": the planner before is at work"))


def delete(*, name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None) -> None:
    """Delete a trigger. Runs of cells that it made stay, and go on.

    dtkpipe trigger delete hello
    """
    from dtkpipe.app import triggers

    triggers.delete(_place(namespace, context, kubeconfig), name)
    print(f"trigger/{name} deleted")


def ring(*, name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None) -> None:
    """Start the planner of a trigger when the one before has ended: what its bell runs."""
    from dtkpipe.app import bell

    print(f"started {bell.ring(_place(namespace, context, kubeconfig), name)}")


def answer(
    *,
    name: Name,
    words: Annotated[list[str], typer.Argument(metavar="-- MATRIX...", help="Options of `dtkpipe matrix submit`")],
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> int:
    """Submit the matrix of a trigger as soon as its bell is off: what its planner runs."""
    from dtkpipe.app import bell
    from dtkpipe.cli.application import load
    from dtkpipe.engines.schedules import RUNG_BY_ENV

    bell.off(_place(namespace, context, kubeconfig), name, os.environ.get(RUNG_BY_ENV, ""))
    submit = load("matrix").commands["submit"]
    return bell.again(
        lambda: int(submit.main(list(words), prog_name="dtkpipe matrix submit", standalone_mode=False) or 0), say
    )


def _place(namespace: str, context: str, kubeconfig: Path | None) -> Place:
    from dtkpipe.app.clusters import connect

    return connect(where(kubeconfig, context, namespace))


def _row(one: Rung) -> tuple[str, ...]:
    planned = one.planned
    return (
        planned.name, planned.engine, one.on, _repository(one), time_of(planned.last), planned.outcome or "-",
        planned.run or "-",
    )  # fmt: skip


def _document(one: Rung) -> dict[str, Any]:
    planned = one.planned
    return {
        "name": planned.name, "engine": planned.engine, "on": one.on, "repository": _repository(one),
        "last": planned.last.isoformat() if planned.last else "", "outcome": planned.outcome, "started": planned.run,
    }  # fmt: skip


def _repository(one: Rung) -> str:
    return f"{one.bell.repository.host}/{one.bell.repository.path}"
