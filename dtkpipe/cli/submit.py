"""Build, sign, prove and publish a kernel module."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtkpipe.app.params import Inputs
from dtkpipe.cli.inputs import takes_inputs
from dtkpipe.cli.output import AnyForm, emit, say

if TYPE_CHECKING:
    from dtkpipe.app.submit.local import Prepared
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
        engine: Annotated[str, typer.Option("--engine", "-e", metavar="ENGINE", help="local")] = "",
        pipeline: Annotated[
            str, typer.Option(metavar="PIPELINE", help="A pipeline's name or file: kmod, prebuild (default), mine.py")
        ] = "",
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
        force: Annotated[bool, typer.Option("--force", help="Run every task again")] = False,
        keep: Annotated[bool, typer.Option("--keep", help="Keep candidates and working folders")] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Check what was asked for, and run nothing")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only say how it ended")] = False,
        verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the tasks say")] = False,
        output: AnyForm = "table",
    ) -> int:
        """Build, sign, prove and publish a kernel module.

        dtkpipe submit --release debian-12 --repo ./my-module

        dtkpipe submit --release debian-12 --repo github.com/org/kmod --ref v1.2 --sign-key key.pem --sign-cert cert.pem

        The local engine follows the run to its end, and exits with its outcome. The same inputs are the same run:
        what succeeded before is reused.
        """
        from dtkpipe.app.submit.local import prepare, try_places
        from dtkpipe.app.submit.request import OnThisMachine, Request
        from dtkpipe.settings import load

        settings = load(os.environ, Path.cwd())
        _require_local(engine or str(settings["engine"].value) or "local")
        talk = (lambda _line: None) if quiet else say
        here = OnThisMachine(
            sign_key=_file(sign_key, settings["sign-key"]),
            sign_passphrase_file=_file(sign_passphrase_file, settings["sign-passphrase-file"]),
            auth_file=_file(auth_file, settings["auth-file"]), secrets=_pairs(secret),
            load_on_this_host=load_on_this_host, from_step=from_step, keep=keep,
        )  # fmt: skip
        request = Request(pipeline=pipeline, inputs=inputs, force=force, here=here)
        prepared = prepare(request, Path.cwd(), talk)
        if dry_run:
            return _dry(prepared, output)
        try_places(prepared, os.environ)
        card = _follow(prepared, quiet=quiet, verbose=verbose)
        return _tell(card, prepared, output)


def _require_local(engine: str) -> None:
    from dtkpipe.cli.application import nearest
    from dtkpipe.errors import UnsupportedError, UsageError

    if engine in ("argo", "tekton"):
        raise UnsupportedError(
            f"submitting to {engine} is not there yet", "this version runs pipelines with the engine `local`",
            hint=f"dtkpipe compile --engine {engine} gives the YAML",
        )  # fmt: skip
    if engine != "local":
        near = nearest(engine, ("local", "argo", "tekton"))
        raise UsageError(f"there is no engine `{engine}`", hint=f"did you mean `{near}`?" if near else "--engine local")


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
    from dtkpipe.cli.tree import columns
    from dtkpipe.report.card import facts
    from dtkpipe.resources import state_dir
    from dtkpipe.values.run import CANCELLED

    emit(output, json.loads(card.to_json()), lambda: columns(facts(card)), [f"run/{card.name}"])
    _step_summary(card)
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


def _step_summary(card: RunCard) -> None:
    """Add the card to the summary of a GitHub job, where we run in one."""
    if file := os.environ.get("GITHUB_STEP_SUMMARY"):
        from dtkpipe.report.markdown import markdown

        with Path(file).open("a") as summary:
            summary.write(markdown([card]) + "\n")


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
