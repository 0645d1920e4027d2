"""Many modules for many kernels: what is stale and why, building it, and reports of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dtkpipe.cli.matrix_options import MatrixOptions, takes_matrix
from dtkpipe.cli.output import say

if TYPE_CHECKING:
    from dtkpipe.app.matrix.submit import Outcome
    from dtkpipe.matrix.plan import Plan

_FORM = "Form of the answer on stdout"
File = Path | None


def register(app: typer.Typer) -> None:
    """Add the commands."""
    matrix = typer.Typer(rich_markup_mode=None)
    app.add_typer(matrix, name="matrix")

    @matrix.callback()
    def group() -> None:
        """Build many modules for many kernels, and keep them fresh."""

    matrix.command()(plan)
    matrix.command()(submit)
    matrix.command()(report)


@takes_matrix
def plan(
    *,
    matrix: MatrixOptions,
    output: Annotated[Literal["table", "wide", "json", "name"], typer.Option("-o", "--output", help=_FORM)] = "table",
) -> int:
    """Say for each module and kernel whether its image is current, and why not.

    dtkpipe matrix plan --modules 'catalog/modules/*' --releases debian-12 --variant std,cloud

    Exit code 1: something is stale.
    """
    from datetime import UTC, datetime

    from dtkpipe.app.matrix.plan import ask, judged, place

    with place(matrix.request, matrix.access, os.environ, say) as at:
        asked = ask(matrix.request, at, Path.cwd(), os.environ, say)
    found = judged(asked, matrix.request, datetime.now(UTC).date())
    _print(found, output)
    return _exit_code(found)


@takes_matrix
def submit(
    *,
    matrix: MatrixOptions,
    engine: Annotated[str, typer.Option("--engine", "-e", metavar="ENGINE", help="local")] = "local",
    pipeline: Annotated[
        str, typer.Option("--pipeline", metavar="PIPELINE", help="A pipeline of yours (default: prebuild)")
    ] = "prebuild",
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="NUMBER", min=1, max=64, help="Cells at a time")] = 2,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before, though nothing changed")
    ] = False,
    cell_timeout: Annotated[
        int, typer.Option("--cell-timeout", metavar="SECONDS", min=1, help="Seconds that one cell may take")
    ] = 7200,
    sign_key: Annotated[File, typer.Option(metavar="FILE", help="Private key (PEM) that signs the modules")] = None,
    sign_passphrase_file: Annotated[File, typer.Option(metavar="FILE", help="Passphrase of that key")] = None,
    auth_file: Annotated[File, typer.Option(metavar="FILE", help="Credentials for registries")] = None,
    output: Annotated[Literal["table", "json"], typer.Option("-o", "--output", help=_FORM)] = "table",
) -> int:
    """Build what is stale: a run for each cell, a few at a time.

    dtkpipe matrix submit --modules 'catalog/modules/*' --releases debian-12 --variant std,cloud

    A cell that fails stops no other, and is not tried again while nothing changes. Interrupted, the same command goes
    on where it was. Exit code 10: a cell is red.
    """
    from datetime import UTC, datetime

    from dtkpipe.app.matrix.plan import ask, judged, place
    from dtkpipe.app.matrix.submit import Manner
    from dtkpipe.app.matrix.submit import submit as submit_cells
    from dtkpipe.report.matrix import summary
    from dtkpipe.resources import state_dir

    _require_local(engine)
    today = datetime.now(UTC).date()
    with place(matrix.request, matrix.access, os.environ, say) as at:
        asked = ask(matrix.request, at, Path.cwd(), os.environ, say)
        found = judged(asked, matrix.request, today)
        for notice in found.notices:
            say(f"note: {notice}")
        say(summary(found))
        files = {"--sign-key": sign_key, "--sign-passphrase-file": sign_passphrase_file, "--auth-file": auth_file}
        hosts = [f"--insecure-registry={host}" for host in at.registry.access.insecure]
        others = [word for word in matrix.words if not word.startswith("--insecure-registry=")]
        manner = Manner(
            here=Path.cwd(), state=state_dir(os.environ), jobs=jobs, timeout=cell_timeout, retry_failed=retry_failed,
            pipeline=pipeline,
            options=[*hosts, *others, *(f"{flag}={file.absolute()}" for flag, file in files.items() if file)],
        )  # fmt: skip
        outcomes = submit_cells(asked, found.cells, matrix.request, at, manner, today, _teller(len(found.cells)))
    return _tell(outcomes, found, output)


@takes_matrix
def report(
    *,
    matrix: MatrixOptions,
    output: Annotated[
        Literal["html", "json", "badge", "junit", "markdown"] | None,
        typer.Option("-o", "--output", help=f"{_FORM} (default: html)", show_default=False),
    ] = None,
    folder: Annotated[
        File, typer.Option("--dir", metavar="DIR", help="Write all forms into this folder, and the logs of red cells")
    ] = None,
) -> None:
    """Write what is green and what is red, and why, as a page or for machines.

    dtkpipe matrix report --modules 'catalog/modules/*' --releases debian-12 --dir public
    """
    from datetime import UTC, datetime

    from dtkpipe.app.matrix.plan import ask, judged, place
    from dtkpipe.app.matrix.report import groups, rendered, write
    from dtkpipe.errors import UsageError
    from dtkpipe.resources import cache_dir

    if folder and output:
        raise UsageError("--dir writes all forms, -o one to stdout", hint="leave one of them out")
    now = datetime.now(UTC)
    when = f"{now:%Y-%m-%d %H:%M} UTC"
    with place(matrix.request, matrix.access, os.environ, say) as at:
        found = judged(ask(matrix.request, at, Path.cwd(), os.environ, say), matrix.request, now.date())
        causes = groups(found, at, cache_dir(os.environ))
        files = write(folder, found, causes, at, when) if folder else []
    if not folder:
        print(rendered(output or "html", found, causes, when, {}), end="")
        return
    for file in files:
        print(file)


def _require_local(engine: str) -> None:
    from dtkpipe.cli.application import nearest
    from dtkpipe.errors import UnsupportedError, UsageError

    if engine in ("argo", "tekton"):
        raise UnsupportedError(
            f"a matrix cannot be submitted to {engine} in this version", "its cells run on this machine",
            hint="dtkpipe matrix plan -o name lists what is stale; dtkpipe submit takes one cell to a cluster",
        )  # fmt: skip
    if engine != "local":
        near = nearest(engine, ("local", "argo", "tekton"))
        raise UsageError(f"there is no engine `{engine}`", hint=f"did you mean `{near}`?" if near else "--engine local")


def _teller(total: int) -> Callable[[Outcome], None]:
    """Return what says a line for each cell that was worked on; what was settled before is only counted."""
    done = 0

    def tell(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if outcome.seconds or outcome.result in ("failed", "cancelled"):
            took = f"  {outcome.seconds:.1f} s" if outcome.seconds else ""
            why = f"  {outcome.said}" if outcome.said else ""
            say(f"{done}/{total}  {outcome.result:<11}  {outcome.cell.cell}{took}{why}")

    return tell


def _tell(outcomes: Sequence[Outcome], found: Plan, output: str) -> int:
    """Print how the cells ended, and return the exit code of the worst of it."""
    import json
    from collections import Counter

    from dtkpipe.app.matrix.submit import Result, as_dict
    from dtkpipe.errors import InvalidError, RunFailedError, RunUnknownError
    from dtkpipe.report.card import Table, aligned

    counts = Counter(outcome.result for outcome in outcomes)
    if output == "json":
        summary = {result.value: counts[result] for result in Result if counts[result]}
        print(json.dumps({"summary": summary, "cells": as_dict(outcomes)}, indent=2, ensure_ascii=False))
    else:
        rows = [
            (one.cell.module, one.cell.target.name, one.result.value, f"{one.seconds:.1f} s" if one.seconds else "",
             one.run, str(one.cause or one.said))
            for one in sorted(outcomes, key=lambda one: (one.cell.module, one.cell.target.kernel.order))
            if one.seconds or one.result is not Result.REUSED
        ]  # fmt: skip
        if rows:  # what was current before is only counted
            print(aligned(Table(("module", "kernel", "result", "time", "run", "cause"), tuple(rows))))
    say("\n" + f"{len(outcomes)} cells: " + ", ".join(f"{counts[one]} {one}" for one in Result if counts[one]))
    if counts[Result.CANCELLED]:
        say("interrupted: the same command goes on where it was")
        return 130
    if counts[Result.FAILED]:
        return RunFailedError.exit_code
    if found.broken:
        return InvalidError.exit_code
    return RunUnknownError.exit_code if counts[Result.UNKNOWN] else 0


def _print(found: Plan, output: str) -> None:
    import json

    from dtkpipe.report.card import aligned
    from dtkpipe.report.matrix import document, every, folded, summary

    if output == "json":
        print(json.dumps(document(found), indent=2, ensure_ascii=False))
        return
    if output == "name":
        print(*(f"{one.module}/{one.target.kernel}" for one in found.stale), sep="\n")
        return
    print(aligned(every(found) if output == "wide" else folded(found)))
    say("")
    for notice in found.notices:
        say(f"note: {notice}")
    say(summary(found))


def _exit_code(found: Plan) -> int:
    """Return 1 when something is stale, or else the code of what is broken or not known."""
    from dtkpipe.errors import InvalidError, RunUnknownError
    from dtkpipe.values.cell import State

    if found.stale:
        return 1
    if found.broken:
        return InvalidError.exit_code
    return RunUnknownError.exit_code if found.count(State.UNKNOWN) else 0
