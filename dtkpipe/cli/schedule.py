"""Matrices that are submitted at the times of a cron expression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtkpipe.cli.clusters import Context, DryRun, Kubeconfig, Namespace, place, where
from dtkpipe.cli.output import AnyForm, TableOrJson, emit, say, table

if TYPE_CHECKING:
    from datetime import datetime

    from dtkpipe.app.clusters import Place, Where
    from dtkpipe.app.schedules import Listed, Matrix, Planner
    from dtkpipe.clients.cluster import Object

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name")]
Words = Annotated[
    list[str], typer.Argument(metavar="-- MATRIX...", help="Options of `dtkpipe matrix submit`: which matrix")
]
RunnerImage = Annotated[
    str, typer.Option("--runner-image", metavar="IMAGE", help="Image of the planner, instead of the released one")
]


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
    words: Words,
    cron: Annotated[str, typer.Option("--cron", metavar="CRON", help="When: '0 3 * * *', five fields")],
    engine: Annotated[str, typer.Option("--engine", "-e", metavar="ENGINE", help="argo or tekton")],
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="ZONE", help="Time zone of that: Europe/Berlin")
    ] = "UTC",
    runner_image: RunnerImage = "",
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
    from dtkpipe.engines.schedules import render
    from dtkpipe.values.cron import Cron

    when = Cron.parse(cron, timezone)
    desk = Desk.of(name, engine, words, runner_image, where(kubeconfig, context, namespace))
    wanted = schedules.schedule(desk.planner, when)
    if dry_run == "client":
        rendered(f"schedule/{name}", render(wanted, desk.planner.engine.name), output)
        return
    schedules.create(
        wanted, desk.planner.engine, desk.place, desk.pipeline, desk.how, dry_run=announced_rehearsal(dry_run)
    )
    first = when.next(datetime.now(UTC))
    document = {"name": name, "engine": desk.planner.engine.name, "next": first.isoformat()}
    emit(output, document, lambda: f"schedule/{name} created, first at {time_of(first)}", [f"schedule/{name}"])


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What schedules and triggers are made of."""

    planner: Planner
    place: Place
    pipeline: str
    """Name of the pipeline that cells run."""

    @classmethod
    def of(cls, name: str, engine: str, words: list[str], runner_image: str, where: Where) -> Desk:
        """Read the options that both have. Raises UsageError, and what is wrong with the matrix or the kubeconfig."""
        from dtkpipe.app.clusters import connect
        from dtkpipe.app.install import engine_named
        from dtkpipe.app.pipelines import load
        from dtkpipe.app.schedules import Planner
        from dtkpipe.model.images import DEFAULTS, RUNNER

        chosen, matrix = engine_named(engine), matrix_of(words)
        pipeline = load(matrix.pipeline).name
        place = connect(where)
        planner = Planner(
            name=name, engine=chosen, namespace=place.namespace, matrix=matrix,
            image=runner_image or DEFAULTS[RUNNER], here=Path.cwd(),
        )  # fmt: skip
        return cls(planner=planner, place=place, pipeline=pipeline)

    @property
    def how(self) -> str:
        """The command that installs what is needed."""
        return f"dtkpipe install --engine {self.planner.engine.name} -n {self.planner.namespace}"


def rendered(name: str, objects: Sequence[Object], output: str) -> None:
    """Print what would be made: `--dry-run=client`."""
    emit(output, list(objects), lambda: f"{name}: {len(objects)} objects (client dry run)", [name])


def announced_rehearsal(dry_run: str) -> bool:
    """Say so when only the cluster shall check; return whether that is so."""
    if dry_run == "server":
        say("nothing is made, the cluster checks it: --dry-run=server")
    return dry_run == "server"


def list_schedules(
    *, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None, output: TableOrJson = "table"
) -> None:
    """List schedules: when each fires next, and how its last start ended.

    dtkpipe schedule list -n dtkpipe
    """
    from datetime import UTC, datetime

    from dtkpipe.app.schedules import listed

    there = place(namespace, context, kubeconfig)
    found = listed(there, datetime.now(UTC))
    if not found and output == "table":
        say(f"there are no schedules in namespace {there.namespace}")
        return
    heads = ("NAME", "ENGINE", "CRON", "TIME ZONE", "NEXT", "LAST", "OUTCOME", "STARTED")
    emit(output, [_document(one) for one in found], lambda: table(heads, [_row(one) for one in found]))


def suspend(*, name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None) -> None:
    """Let a schedule fire no more, until it is resumed.

    dtkpipe schedule suspend nightly
    """
    _suspend(name, place(namespace, context, kubeconfig), suspended=True)


def resume(*, name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None) -> None:
    """Let a schedule fire again.

    dtkpipe schedule resume nightly
    """
    _suspend(name, place(namespace, context, kubeconfig), suspended=False)


def delete(*, name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None) -> None:
    """Delete a schedule. Runs of cells that it made stay, and go on.

    dtkpipe schedule delete nightly
    """
    from dtkpipe.app import schedules

    schedules.delete(place(namespace, context, kubeconfig), name)
    print(f"schedule/{name} deleted")


def _suspend(name: str, there: Place, *, suspended: bool) -> None:
    from dtkpipe.app import schedules

    changed = schedules.suspend(there, name, suspended=suspended)
    state = "suspended" if suspended else "resumed"
    print(f"schedule/{name} {state if changed else f'was {state} already'}")


def parsed(words: Sequence[str]) -> dict[str, Any]:
    """Return the options of `dtkpipe matrix submit` that `words` are. Raises what Typer finds wrong."""
    from dtkpipe.cli.application import load

    command = load("matrix").commands["submit"]
    given: dict[str, Any] = command.make_context("dtkpipe matrix submit", list(words)).params
    return given


def matrix_of(words: Sequence[str]) -> Matrix:
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
