"""Matrices that are submitted at the times of a cron expression."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtkpipe.cli.clusters import Context, DryRun, Kubeconfig, Namespace, where
from dtkpipe.cli.output import AnyForm, TableOrJson, emit, say, table

if TYPE_CHECKING:
    from datetime import datetime

    from dtkpipe.app.clusters import Place
    from dtkpipe.app.schedules import Listed, Matrix

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    schedule = typer.Typer(rich_markup_mode=None)
    app.add_typer(schedule, name="schedule")

    @schedule.callback()
    def group() -> None:
        """Submit matrices at the times of a cron expression."""

    schedule.command()(create)
    schedule.command("list")(list_schedules)
    schedule.command()(suspend)
    schedule.command()(resume)
    schedule.command()(delete)


def create(
    *,
    name: Name,
    words: Annotated[
        list[str], typer.Argument(metavar="-- MATRIX...", help="Options of `dtkpipe matrix submit`: which matrix")
    ],
    cron: Annotated[str, typer.Option("--cron", metavar="CRON", help="When: '0 3 * * *', five fields")],
    engine: Annotated[str, typer.Option("--engine", "-e", metavar="ENGINE", help="argo or tekton")],
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="ZONE", help="Time zone of that: Europe/Berlin")
    ] = "UTC",
    runner_image: Annotated[
        str, typer.Option("--runner-image", metavar="IMAGE", help="Image of the planner, instead of the released one")
    ] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
    dry_run: DryRun = "none",
    output: AnyForm = "table",
) -> None:
    """Submit a matrix to a cluster at the times of a cron expression.

    dtkpipe schedule create nightly --cron '0 3 * * *' --timezone Europe/Berlin --engine argo -- \
        --modules 'catalog/modules/*' --releases '4.16..4.18' --push-to quay.io/org --jobs 4

    The files of the modules go along as they are now. It starts no second time while one is at work, and what was
    missed is caught up once. On Argo it is a CronWorkflow, beside Tekton a CronJob of Kubernetes.
    """
    from datetime import UTC, datetime

    from dtkpipe.app import schedules
    from dtkpipe.app.clusters import connect
    from dtkpipe.app.install import engine_named
    from dtkpipe.app.pipelines import load
    from dtkpipe.engines.schedules import render
    from dtkpipe.model.images import DEFAULTS, RUNNER
    from dtkpipe.values.cron import Cron

    when, chosen = Cron.parse(cron, timezone), engine_named(engine)
    matrix = matrix_of(words)
    pipeline = load(matrix.pipeline).name
    place = connect(where(kubeconfig, context, namespace))
    wanted = schedules.schedule(
        name, when, chosen, place.namespace, matrix, runner_image or DEFAULTS[RUNNER], Path.cwd()
    )
    if dry_run == "client":
        objects = list(render(wanted, chosen.name))
        emit(output, objects, lambda: f"schedule/{name}: {len(objects)} objects (client dry run)", [f"schedule/{name}"])
        return
    how = f"dtkpipe install --engine {chosen.name} -n {place.namespace}"
    schedules.create(wanted, chosen, place, pipeline, how, dry_run=dry_run == "server")
    first = when.next(datetime.now(UTC))
    if dry_run == "server":
        say("nothing was made, the cluster takes it: --dry-run=server")
    document = {"name": name, "engine": chosen.name, "next": first.isoformat()}
    emit(output, document, lambda: f"schedule/{name} created, first at {time_of(first)}", [f"schedule/{name}"])


def list_schedules(
    *, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None, output: TableOrJson = "table"
) -> None:
    """List schedules: when each fires next, and how its last start ended.

    dtkpipe schedule list -n dtkpipe
    """
    from datetime import UTC, datetime

    from dtkpipe.app.schedules import listed

    place = _place(namespace, context, kubeconfig)
    found = listed(place, datetime.now(UTC))
    if not found and output == "table":
        say(f"there are no schedules in namespace {place.namespace}")
        return
    heads = ("NAME", "ENGINE", "CRON", "TIME ZONE", "NEXT", "LAST", "OUTCOME", "STARTED")
    emit(output, [_document(one) for one in found], lambda: table(heads, [_row(one) for one in found]))


def suspend(*, name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None) -> None:
    """Let a schedule fire no more, until it is resumed.

    dtkpipe schedule suspend nightly
    """
    _suspend(name, _place(namespace, context, kubeconfig), suspended=True)


def resume(*, name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None) -> None:
    """Let a schedule fire again.

    dtkpipe schedule resume nightly
    """
    _suspend(name, _place(namespace, context, kubeconfig), suspended=False)


def delete(*, name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None) -> None:
    """Delete a schedule. Runs of cells that it made stay, and go on.

    dtkpipe schedule delete nightly
    """
    from dtkpipe.app import schedules

    schedules.delete(_place(namespace, context, kubeconfig), name)
    print(f"schedule/{name} deleted")


def _suspend(name: str, place: Place, *, suspended: bool) -> None:
    from dtkpipe.app import schedules

    changed = schedules.suspend(place, name, suspended=suspended)
    state = "suspended" if suspended else "resumed"
    print(f"schedule/{name} {state if changed else f'was {state} already'}")


def _place(namespace: str, context: str, kubeconfig: Path | None) -> Place:
    from dtkpipe.app.clusters import connect

    return connect(where(kubeconfig, context, namespace))


def parsed(words: list[str]) -> dict[str, Any]:
    """Return the options of `dtkpipe matrix submit` that `words` are. Raises what Typer finds wrong."""
    from dtkpipe.cli.application import load

    command = load("matrix").commands["submit"]
    given: dict[str, Any] = command.make_context("dtkpipe matrix submit", list(words)).params
    return given


def matrix_of(words: list[str]) -> Matrix:
    """Return the matrix that words of `dtkpipe matrix submit` mean, the settings included.

    Raises UsageError for what the schedule says itself, and for what is for one machine.
    """
    from dtkpipe.app.schedules import Matrix
    from dtkpipe.cli.matrix_options import options_of
    from dtkpipe.errors import UsageError

    given = parsed(words)
    matrix = options_of(given)
    rest = {key: value for key, value in given.items() if key in _OWN or key in _REFUSED}
    for key, why in _REFUSED.items():
        if rest.get(key) and rest[key] not in ("local", "table"):
            raise UsageError(f"--{key.replace('_', '-')} is not for a matrix that runs by itself", why)
    if not matrix.request.push_to:
        raise UsageError("nothing says where images go", hint="--push-to quay.io/org, behind the --")
    options = {"--jobs": str(rest["jobs"]), "--cell-timeout": str(rest["cell_timeout"])}
    return Matrix(
        request=matrix.request, params=matrix.params, options=options, retry_failed=bool(rest["retry_failed"]),
        pipeline=str(rest["pipeline"]),
    )  # fmt: skip


_OWN = ("jobs", "cell_timeout", "retry_failed", "pipeline")
_THERE = "runs are where the schedule or trigger is: give it before the --"
_KEY = "keys and credentials are Secrets in the namespace of the runs"
_REFUSED = {
    "engine": _THERE, "namespace": _THERE, "context": _THERE, "kubeconfig": _THERE, "sign_key": _KEY,
    "sign_passphrase_file": _KEY, "auth_file": _KEY, "output": "what it prints is in its log",
}  # fmt: skip


def time_of(when: datetime | None) -> str:
    """Return a time as lists show it."""
    return f"{when:%Y-%m-%d %H:%M %Z}" if when else "-"


def _row(one: Listed) -> tuple[str, ...]:
    return (
        one.name, one.engine, one.cron, one.zone, "suspended" if one.suspended else time_of(one.next),
        time_of(one.last), one.outcome or "-", one.run or "-",
    )  # fmt: skip


def _document(one: Listed) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": one.name, "engine": one.engine, "cron": one.cron, "timezone": one.zone, "suspended": one.suspended,
        "next": one.next.isoformat() if one.next else "", "last": one.last.isoformat() if one.last else "",
        "outcome": one.outcome, "started": one.run,
    }  # fmt: skip
    return facts
