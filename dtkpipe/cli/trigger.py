"""Matrices that are submitted when something happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dtkpipe.cli import trigger_pods
from dtkpipe.cli.clusters import Context, DryRun, Kubeconfig, Namespace, place, where
from dtkpipe.cli.output import AnyForm, TableOrJson, emit, say, table
from dtkpipe.cli.schedule import Desk, Name, RunnerImage, Words, announced_rehearsal, rendered, time_of
from dtkpipe.cli.trigger_printed import PRINTED, Wanted, print_trigger

if TYPE_CHECKING:
    from dtkpipe.app.triggers import Rung, Trigger
    from dtkpipe.engines.triggers import Receiver


def register(app: typer.Typer) -> None:
    """Add the commands."""
    trigger = typer.Typer(rich_markup_mode=None)
    app.add_typer(trigger, name="trigger")

    @trigger.callback()
    def group() -> None:
        """Submit matrices on a push, a new release or a new kernel."""

    trigger.command()(create)
    trigger.command("list")(list_triggers)
    trigger.command("test")(try_out)
    trigger.command()(delete)
    trigger_pods.register(trigger)


def create(
    *,
    name: Name,
    words: Words,
    on: Annotated[
        Literal["push", "catalog", "release", "node-kernel"],
        typer.Option(
            "--on",
            help="A push to a module's repository, or to module specs; a new release in the update graph; a new kernel"
            " on a node",
        ),
    ],
    engine: Annotated[
        str,
        typer.Option(
            "--engine", "-e", metavar="ENGINE", help="argo, argo-events, tekton, github or pipelines-as-code"
        ),
    ],
    repo: Annotated[str, typer.Option("--repo", metavar="URL", help="The repository: github.com/org/kmod")] = "",
    secret: Annotated[
        str, typer.Option("--secret", metavar="SECRET", help="Secret with what the repository signs with, as `token`")
    ] = "",
    path: Annotated[
        list[str], typer.Option("--path", metavar="PATTERN", help="Only when such a file changed: 'drivers/*'")
    ] = [],  # noqa: B006
    forge: Annotated[
        str, typer.Option("--forge", metavar="FORGE", help="github or gitlab, where the host does not tell")
    ] = "",
    cron: Annotated[
        str, typer.Option("--cron", metavar="CRON", help="When to ask the update graph, in UTC (default: */15 * * * *)")
    ] = "",
    debounce: Annotated[
        int | None,
        typer.Option(
            "--debounce", metavar="SECONDS", min=0, max=3600,
            help="Kernels that are new within so many seconds are planned together (default: 60)",
        ),
    ] = None,
    runner_image: RunnerImage = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
    dry_run: DryRun = "none",
    output: AnyForm = "table",
) -> None:  # fmt: skip
    """Submit a matrix to a cluster when something happens.

    dtkpipe trigger create hello --on push --repo github.com/org/hello --secret hook --engine tekton -- \
        --modules 'catalog/modules/*' --releases '4.16..4.18' --push-to quay.io/org

    push: of the matrix, the modules are planned that are built from this repository, when the branch is pushed to that
    they are built from. catalog: the repository has the module specs, and --modules says where in it; they are planned
    as it has them by then. A push rings only: what is built is the newest commit.

    release: the matrix is planned when the update graph lists a release that was not there before. node-kernel: the
    kernels are planned that no node of the cluster ran before.

    github and pipelines-as-code: nothing is created; what is printed is a file for the repository's .github/workflows/
    or .tekton/.
    """
    from datetime import UTC, datetime

    from dtkpipe.app import rings, triggers
    from dtkpipe.engines.triggers import RECEIVERS
    from dtkpipe.errors import UnsupportedError, UsageError
    from dtkpipe.values.forge import Repository

    given = {"--repo": repo, "--secret": secret, "--path": path, "--forge": forge, "--cron": cron}
    flags = [flag for flag, value in given.items() if value] + ["--debounce"] * (debounce is not None)
    if refused := [flag for flag in flags if flag not in _TAKES[on]]:
        raise UsageError(f"{refused[0]} is not for --on {on}", hint="leave it out")
    if "--repo" in _TAKES[on] and not repo:
        raise UsageError("nothing says which repository rings", hint="--repo github.com/org/kmod")
    repository = Repository.parse(repo, forge) if repo else None
    if engine in PRINTED:
        cluster = {
            "--secret": secret, "--namespace": namespace, "--context": context, "--kubeconfig": kubeconfig,
            "--dry-run": dry_run != "none", "--output": output != "table",
        }  # fmt: skip
        printed = Wanted(
            name=name, on=on, repository=repository, url=repo, words=words, paths=path, runner_image=runner_image,
            others=[flag for flag, said in cluster.items() if said],
        )  # fmt: skip
        print_trigger(engine, printed)
        return
    receiver = RECEIVERS.get(engine)
    if receiver and repository:
        _signed(receiver, secret)
    elif receiver and receiver.engine != engine:
        raise UnsupportedError(
            f"{receiver.title} does not know of --on {on}", "nobody calls then", hint=f"--engine {receiver.engine}"
        )
    there = where(kubeconfig, context, namespace)
    desk = Desk.of(name, receiver.engine if receiver else engine, words, runner_image, there)
    if repository and on == rings.CATALOG:
        wanted = triggers.rung(rings.on_catalog(desk.planner, repo, repository, secret), engine)
    elif repository:
        wanted = triggers.rung(rings.on_push(desk.planner, repository, path, secret), engine)
    else:
        wanted = _on_cluster(desk, on, cron, debounce)
    if dry_run == "client":
        rendered(f"trigger/{name}", wanted.render(), output)
        return
    chosen = desk.planner.engine
    triggers.create(wanted, chosen, desk.place, desk.pipeline, desk.how, dry_run=announced_rehearsal(dry_run))
    document = {"name": name, "engine": engine, "on": on}
    text = f"trigger/{name} created"
    if repository:
        document["url"] = triggers.called_at(engine, desk.place.namespace, name)
        text = f"{text}; let the repository call: {document['url']}"
    elif not wanted.schedule.suspended:
        first = wanted.schedule.cron.next(datetime.now(UTC))
        document["next"], text = first.isoformat(), f"{text}, first at {time_of(first)}"
    emit(output, document, lambda: text, [f"trigger/{name}"])


_TAKES = {
    "push": ("--repo", "--secret", "--path", "--forge"),
    "catalog": ("--repo", "--secret", "--forge"),
    "release": ("--cron",),
    "node-kernel": ("--debounce",),
}
"""What a trigger is on -> the options that are for that."""


def _signed(receiver: Receiver, secret: str) -> None:
    """See that one says what a forge signs with, and that it is asked of the right one."""
    from dtkpipe.app.triggers import WEBHOOK_CLIENTS
    from dtkpipe.errors import UsageError

    if receiver.own_secret and not secret:
        raise UsageError("nothing says who may ring", hint="--secret NAME: a Secret, its key `token`")
    if secret and not receiver.own_secret:
        raise UsageError(
            f"--secret is not for {receiver.title}", f"it has all of them in Secret {WEBHOOK_CLIENTS}",
            hint="leave it out",
        )  # fmt: skip


def _on_cluster(desk: Desk, on: str, cron: str, debounce: int | None) -> Trigger:
    """Return a trigger that nobody calls."""
    from dtkpipe.app import triggers
    from dtkpipe.app.new_releases import EVERY
    from dtkpipe.app.node_kernels import DEBOUNCE
    from dtkpipe.values.cron import Cron

    if on == triggers.RELEASE:
        return triggers.on_release(desk.planner, Cron.parse(cron or EVERY, "UTC"))
    return triggers.on_node_kernel(desk.planner, DEBOUNCE if debounce is None else debounce)


def list_triggers(
    *, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None, output: TableOrJson = "table"
) -> None:
    """List triggers: what they are on, and how the planner that was started last ended.

    dtkpipe trigger list -n dtkpipe
    """
    from datetime import UTC, datetime

    from dtkpipe.app.triggers import listed

    there = place(namespace, context, kubeconfig)
    found = listed(there, datetime.now(UTC))
    if not found and output == "table":
        say(f"there are no triggers in namespace {there.namespace}")
        return
    heads = ("NAME", "ENGINE", "ON", "OF", "LAST", "OUTCOME", "STARTED")
    emit(output, [_document(one) for one in found], lambda: table(heads, [_row(one) for one in found]))


def try_out(
    *,
    name: Name,
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="Where the forge calls (default, on Tekton: the Service)")
    ] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let a trigger plan, and say what came of it.

    dtkpipe trigger test hello

    To a trigger on pushes a push is sent as the repository's host does, with its signature. One on releases plans at
    once, and one on kernels for those that nodes run now. It is no rehearsal: what is stale is built.
    """
    from dtkpipe.app import calls

    planner = calls.try_out(place(namespace, context, kubeconfig), name, url, say)
    print(f"trigger/{name} rang" + (f", {planner} plans" if planner else ": the planner before is at work"))


def delete(*, name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None) -> None:
    """Delete a trigger. Runs of cells that it made stay, and go on.

    dtkpipe trigger delete hello
    """
    from dtkpipe.app import triggers

    triggers.delete(place(namespace, context, kubeconfig), name)
    print(f"trigger/{name} deleted")


def _row(one: Rung) -> tuple[str, ...]:
    planned = one.planned
    return (
        planned.name, one.engine, one.on, _what(one), time_of(planned.last), planned.outcome or "-",
        planned.run or "-",
    )  # fmt: skip


def _document(one: Rung) -> dict[str, Any]:
    planned = one.planned
    return {
        "name": planned.name, "engine": one.engine, "on": one.on, "repository": _repository(one),
        "cron": planned.cron if one.on == "release" else "", "watched": one.watched,
        "last": planned.last.isoformat() if planned.last else "", "outcome": planned.outcome, "started": planned.run,
    }  # fmt: skip


def _what(one: Rung) -> str:
    """Return what is looked at."""
    if one.on == "release":
        return f"update graph, {one.planned.cron}"
    seen = _repository(one) or "nodes"
    return seen if one.watched else f"{seen}: nobody watches"


def _repository(one: Rung) -> str:
    return f"{one.bell.repository.host}/{one.bell.repository.path}" if one.bell else ""
