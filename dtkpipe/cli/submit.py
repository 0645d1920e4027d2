"""Build, sign, prove and publish a kernel module."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dtkpipe.app.params import Inputs
from dtkpipe.cli.clusters import Context, DryRun, Kubeconfig, Namespace
from dtkpipe.cli.inputs import takes_inputs
from dtkpipe.cli.output import AnyForm, emit, say

if TYPE_CHECKING:
    from dtkpipe.app.clusters import Engine, Place, Where
    from dtkpipe.app.submit.local import Prepared
    from dtkpipe.app.submit.request import Request
    from dtkpipe.settings import Setting
    from dtkpipe.values.run import RunCard

File = Path | None


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    @takes_inputs
    def submit(
        *,
        inputs: Inputs,
        engine: Annotated[str, typer.Option("--engine", "-e", metavar="ENGINE", help=_ENGINE)] = "",
        pipeline: Annotated[
            str,
            typer.Option(
                metavar="PIPELINE",
                help="A pipeline's name or file (default: kmod on a cluster, prebuild on this machine): kmod, mine.py",
            ),
        ] = "",
        builder: Annotated[
            str, typer.Option(metavar="BUILDER", help="What builds images on a cluster: buildah (default) or kaniko")
        ] = "",
        namespace: Namespace = "",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
        on_conflict: Annotated[
            Literal["wait", "supersede", "fail"] | None,
            typer.Option(
                help="When another run for the same module and target is at work on the cluster (default: wait)",
                show_default=False,
            ),
        ] = None,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Show the run on the cluster to its end")] = False,
        wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the run on the cluster")] = False,
        timeout: Annotated[
            int,
            typer.Option(metavar="SECONDS", min=0, help="Wait at most so long (the run goes on)", show_default=False),
        ] = 0,
        sign_key: Annotated[File, typer.Option(metavar="FILE", help="Private key (PEM) that signs the modules")] = None,
        sign_passphrase_file: Annotated[File, typer.Option(metavar="FILE", help="Passphrase of that key")] = None,
        auth_file: Annotated[File, typer.Option(metavar="FILE", help="Credentials for registries")] = None,
        secret: Annotated[
            list[str], typer.Option(metavar="NAME=FOLDER", help="Files of a secret that a task of yours takes")
        ] = [],  # noqa: B006 - Typer copies it
        load_on_this_host: Annotated[
            bool,
            typer.Option("--load-on-this-host", help="After publishing, load the module into this machine's kernel"),
        ] = False,
        from_step: Annotated[str, typer.Option(metavar="TASK", help="Run this task again, and all behind it")] = "",
        force: Annotated[bool, typer.Option("--force", help="Run every task again; on a cluster: another run")] = False,
        keep: Annotated[bool, typer.Option("--keep", help="Keep candidates and working folders")] = False,
        dry_run: DryRun = "none",
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only say how it ended")] = False,
        verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the tasks say")] = False,
        output: AnyForm = "table",
    ) -> int:
        """Build, sign, prove and publish a kernel module.

        dtkpipe submit --release debian-12 --repo ./my-module

        dtkpipe submit --release debian-12 --repo github.com/org/kmod --ref v1.2 --sign-key key.pem --sign-cert cert.pem

        dtkpipe submit --release 4.14 --repo github.com/org/kmod --push-to quay.io/org/kmod --engine tekton --follow

        Without --engine it runs on the cluster of the kubeconfig where the pipeline is installed there, else on this
        machine. The same inputs are the same run: on this machine what succeeded before is reused, on a cluster the run
        that is there is taken. With --follow or --wait, and on this machine always, the exit code is the run's.
        """
        from dtkpipe.app.submit.request import OnThisMachine, Request
        from dtkpipe.cli.clusters import where
        from dtkpipe.cli.submit_cluster import Manner, submit_there

        given = OnThisMachine(
            sign_key=sign_key, sign_passphrase_file=sign_passphrase_file, auth_file=auth_file, secrets=_pairs(secret),
            load_on_this_host=load_on_this_host, from_step=from_step, keep=keep,
        )  # fmt: skip
        request = Request(pipeline=pipeline, inputs=inputs, builder=builder or "buildah", force=force, here=given)
        flags = {
            "--namespace": namespace, "--context": context, "--kubeconfig": kubeconfig, "--on-conflict": on_conflict,
            "--timeout": timeout, "--dry-run=server": dry_run == "server", "--builder": builder,
        }  # fmt: skip
        named = [flag for flag, value in flags.items() if value]
        talk = (lambda _line: None) if quiet else say
        there = _engine(engine, request, where(kubeconfig, context, namespace), named, talk)
        if there:
            manner = Manner(
                dry_run=dry_run, on_conflict=on_conflict or "wait", follow=follow, wait=wait, timeout=timeout,
                quiet=quiet, verbose=verbose, output=output,
            )  # fmt: skip
            return submit_there(request, *there, manner)
        return _submit_here(request, dry=dry_run != "none", quiet=quiet, verbose=verbose, output=output)


_ENGINE = "argo, tekton or local (default: the cluster's engine that the pipeline is installed for, else local)"


def _engine(
    engine: str, request: Request, where: Where, named: list[str], talk: Callable[[str], None]
) -> tuple[Engine, Place] | None:
    """Return the cluster's engine and place; None for this machine. `named` are flags that only a cluster takes."""
    from dtkpipe.app.clusters import ENGINES, connect
    from dtkpipe.app.submit.cluster import DEFAULT_PIPELINE, find_engine
    from dtkpipe.cli.application import nearest
    from dtkpipe.errors import NotFoundError, UsageError
    from dtkpipe.settings import load

    name = engine or str(load(os.environ, Path.cwd())["engine"].value)
    if name in ENGINES:
        return ENGINES[name], connect(where)
    if name not in ("", "local"):
        near = nearest(name, ("local", *ENGINES))
        raise UsageError(f"there is no engine `{name}`", hint=f"did you mean `{near}`?" if near else "--engine local")
    local = name == "local"
    found = None if local else find_engine(where, request, talk)
    if found or not named:
        return found
    if local:
        raise UsageError(f"{named[0]} is for runs on a cluster", "this run is on this machine", hint="--engine argo")
    raise NotFoundError(
        f"pipeline `{request.pipeline or DEFAULT_PIPELINE}` is not installed on the cluster for any engine",
        f"{named[0]} asks for a run there", hint="dtkpipe install --engine argo, or --engine tekton",
    )  # fmt: skip


def _submit_here(request: Request, *, dry: bool, quiet: bool, verbose: bool, output: AnyForm) -> int:
    """Run on this machine, with what the settings say of keys and credentials; return the exit code."""
    from dataclasses import replace

    from dtkpipe.app.submit.local import prepare, try_places
    from dtkpipe.settings import load

    settings, own = load(os.environ, Path.cwd()), request.here
    own = replace(
        own, sign_key=_file(own.sign_key, settings["sign-key"]),
        sign_passphrase_file=_file(own.sign_passphrase_file, settings["sign-passphrase-file"]),
        auth_file=_file(own.auth_file, settings["auth-file"]),
    )  # fmt: skip
    prepared = prepare(replace(request, here=own), Path.cwd(), (lambda _line: None) if quiet else say)
    if dry:
        return _dry(prepared, output)
    try_places(prepared, os.environ)
    card = _follow(prepared, quiet=quiet, verbose=verbose)
    return _tell(card, prepared, output)


def _file(given: File, setting: Setting) -> File:
    return given or (Path(str(setting.value)) if setting.value else None)


def _pairs(given: list[str]) -> dict[str, Path]:
    from dtkpipe.errors import UsageError

    found: dict[str, Path] = {}
    for pair in given:
        name, equals, folder = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--secret takes NAME=FOLDER, not `{pair}`")
        found[name] = Path(folder)
    return found


def _dry(prepared: Prepared, output: AnyForm) -> int:
    document = {"name": prepared.name, "pipeline": prepared.pipeline.name, "inputs": dict(prepared.params)}
    tasks = " -> ".join(task.name for task in prepared.pipeline.all_tasks)
    emit(output, document, lambda: f"{prepared.name}: {tasks}", [f"run/{prepared.name}"])
    say("nothing was run: --dry-run")
    return 0


def _follow(prepared: Prepared, *, quiet: bool, verbose: bool) -> RunCard:
    from dtkpipe.app.runs import Runs
    from dtkpipe.app.submit.local import run
    from dtkpipe.cli.progress import shown
    from dtkpipe.resources import state_dir

    runs = Runs(state_dir(os.environ))
    if not quiet:
        say(f"run {prepared.name}")
    with shown(quiet=quiet, verbose=verbose) as watcher:
        card = run(prepared, runs, os.environ, watcher, (lambda _line: None) if quiet else say)
        watcher.ended(card)
        return card


def _tell(card: RunCard, prepared: Prepared, output: AnyForm) -> int:
    """Print the answer and the next command; return the exit code of the run's outcome. Raises why the run failed."""
    import json

    from dtkpipe.app.runs import Runs, failure
    from dtkpipe.cli.submit_cluster import step_summary
    from dtkpipe.cli.tree import columns
    from dtkpipe.report.card import facts
    from dtkpipe.resources import state_dir
    from dtkpipe.values.run import CANCELLED

    emit(output, json.loads(card.to_json()), lambda: columns(facts(card)), [f"run/{card.name}"])
    step_summary(card)
    if card.state == CANCELLED:
        say(f"\ncancelled: run {card.name}; the same command goes on where it was")
        return 130
    if error := failure(card, Runs(state_dir(os.environ))):
        say("")
        raise error
    reused = all(step.reused for step in card.steps if step.name != "resolve" and step.exit_code == 0)
    took = f"{card.finished - card.created:.1f} s"
    say(f"\nreused: all of it was there already, checked in {took}" if reused else f"\ndone in {took}")
    for line in _next(card, prepared):
        say(line)
    return 0


def _next(card: RunCard, prepared: Prepared) -> list[str]:
    from dtkpipe.app.registry import HOST
    from dtkpipe.report.card import image_of

    image = image_of(card, "publish")
    if image.startswith(f"{HOST}:") and not prepared.params.get("push-to"):
        return [
            "the image is in the cache's own registry, which is up only while it is used; to copy it out:",
            f"  dtkpipe registry skopeo copy --src-tls-verify=false docker://{image} oci-archive:{_archive(card)}",
        ]
    return [f"next: dtkpipe describe {card.name}"]


def _archive(card: RunCard) -> str:
    return f"{card.result('build', 'MODULE') or card.name}.tar"
