"""Many modules for many kernels: what is stale and why, building it, and reports of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dtkpipe.cli.clusters import Context, Kubeconfig, Namespace
from dtkpipe.cli.matrix_options import MatrixOptions, takes_matrix
from dtkpipe.cli.output import say

if TYPE_CHECKING:
    from dtkpipe.app.clusters import Engine, Where
    from dtkpipe.app.clusters import Place as Namespaced
    from dtkpipe.app.matrix.outcome import ExitCode, Outcome
    from dtkpipe.app.matrix.plan import Asked, Place
    from dtkpipe.app.matrix.submit import Runner
    from dtkpipe.app.submit.request import OnThisMachine
    from dtkpipe.matrix.plan import Plan, Planned

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
    engine: Annotated[
        str, typer.Option("--engine", "-e", metavar="ENGINE", help="Where cells run: local, argo or tekton")
    ] = "local",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
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

    dtkpipe matrix submit --modules 'modules/*' --releases 4.16..4.18 --push-to quay.io/org --engine argo --jobs 20

    A cell that fails stops no other, and is not tried again while nothing changes. Interrupted, the same command goes
    on where it was; runs on a cluster go on meanwhile. Exit code 10: a cell is red.
    """
    from datetime import UTC, datetime

    from dtkpipe.app.matrix.plan import ask, judged, place
    from dtkpipe.app.matrix.submit import Manner, is_to_run
    from dtkpipe.app.matrix.submit import submit as submit_cells
    from dtkpipe.app.submit.request import OnThisMachine
    from dtkpipe.cli.clusters import where
    from dtkpipe.report.matrix import summary

    own = OnThisMachine(sign_key=sign_key, sign_passphrase_file=sign_passphrase_file, auth_file=auth_file)
    flags = {"--namespace": namespace, "--context": context, "--kubeconfig": kubeconfig}
    there = _engine(engine, matrix, where(kubeconfig, context, namespace), [name for name in flags if flags[name]])
    today = datetime.now(UTC).date()
    manner = Manner(jobs=jobs, retry_failed=retry_failed)
    with place(matrix.request, matrix.access, os.environ, say) as at:
        asked = ask(matrix.request, at, Path.cwd(), os.environ, say)
        found = judged(asked, matrix.request, today)
        for notice in found.notices:
            say(f"note: {notice}")
        say(summary(found))
        how = _How(matrix=matrix, at=at, timeout=cell_timeout, pipeline=pipeline, own=own, retry_failed=retry_failed)
        todo = [one for one in found.cells if is_to_run(one, manner)]
        runner = how.there(*there, todo, asked) if there else how.here()
        outcomes = submit_cells(
            asked, found.cells, matrix.request, at, runner, manner, today, _teller(len(found.cells))
        )
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


def _engine(engine: str, matrix: MatrixOptions, where: Where, named: Sequence[str]) -> tuple[Engine, Namespaced] | None:
    """Return the cluster's engine and namespace; None for this machine. `named` are flags that only a cluster takes."""
    from dtkpipe.app.clusters import ENGINES, connect
    from dtkpipe.cli.application import nearest
    from dtkpipe.errors import UsageError

    if engine in ENGINES:
        if not matrix.request.push_to:
            raise UsageError(
                "nothing says where images go", "runs on a cluster do not reach the registry on loopback",
                hint="--push-to quay.io/org",
            )  # fmt: skip
        return ENGINES[engine], connect(where)
    if engine != "local":
        near = nearest(engine, ("local", *ENGINES))
        raise UsageError(f"there is no engine `{engine}`", hint=f"did you mean `{near}`?" if near else "--engine local")
    if named:
        raise UsageError(f"{named[0]} is for cells on a cluster", "these run on this machine", hint="--engine argo")
    return None


@dataclass(frozen=True, kw_only=True)
class _How:
    """What the options say of how cells are run."""

    matrix: MatrixOptions
    at: Place
    timeout: int
    pipeline: str
    own: OnThisMachine
    retry_failed: bool

    def here(self) -> Runner:
        from dtkpipe.app.matrix.here import Here
        from dtkpipe.resources import state_dir

        own = self.own
        files = {"sign-key": own.sign_key, "sign-passphrase-file": own.sign_passphrase_file, "auth-file": own.auth_file}
        hosts = [f"--insecure-registry={host}" for host in self.at.registry.access.insecure]
        others = [word for word in self.matrix.words if not word.startswith("--insecure-registry=")]
        given = [f"--{name}={file.absolute()}" for name, file in files.items() if file]
        return Here(
            request=self.matrix.request, at=self.at, here=Path.cwd(), state=state_dir(os.environ), timeout=self.timeout,
            options=[*hosts, *others, *given], pipeline=self.pipeline,
        )  # fmt: skip

    def there(self, engine: Engine, there: Namespaced, cells: Sequence[Planned], asked: Asked) -> Runner:
        from dtkpipe.app.matrix.there import There

        runner = There(
            request=self.matrix.request, at=self.at, engine=engine, there=there, here=Path.cwd(), timeout=self.timeout,
            params=self.matrix.params, pipeline=self.pipeline, own=self.own, retry_failed=self.retry_failed,
        )  # fmt: skip
        runner.check(cells, asked, say)
        return runner


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


def _tell(outcomes: Sequence[Outcome], found: Plan, output: str) -> ExitCode:
    """Print how the cells ended, and return the exit code of the worst of it."""
    import json
    from collections import Counter

    from dtkpipe.app.matrix.outcome import ExitCode, Result, as_dict
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
    say(
        "\n"
        f"{len(outcomes)} cell{'s' if len(outcomes) != 1 else ''}: "
        + ", ".join(f"{counts[one]} {one}" for one in Result if counts[one])
    )
    if counts[Result.CANCELLED] or counts[Result.RUNNING]:
        say("interrupted: the same command goes on where it was")
        return ExitCode(130)
    unknown = bool(counts[Result.UNKNOWN])
    if counts[Result.FAILED]:
        return ExitCode(RunFailedError.exit_code, unknown=unknown)
    if found.broken:
        return ExitCode(InvalidError.exit_code, unknown=unknown)
    return ExitCode(RunUnknownError.exit_code if unknown else 0, unknown=unknown)


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
