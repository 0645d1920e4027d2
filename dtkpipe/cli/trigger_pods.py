"""What the pods of a trigger run: commands of `dtkpipe trigger` that nobody types."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dtkpipe.cli.clusters import Context, Kubeconfig, Namespace, place
from dtkpipe.cli.output import say
from dtkpipe.cli.schedule import Name, Words, parsed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dtkpipe.app.matrix.outcome import ExitCode
    from dtkpipe.app.new_releases import Question


Receiver = Literal["argo", "argo-events", "tekton"]


def register(trigger: typer.Typer) -> None:
    """Add the commands."""
    for command in (listen, answer, look, watch):
        trigger.command(hidden=True)(command)


def listen(
    *,
    receiver: Annotated[Receiver, typer.Argument(help="What makes the bells")],
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Start the planner of each trigger whose bell is on: what the Deployment of a receiver's bells runs."""
    from dtkpipe.app import bell

    bell.watch(place(namespace, context, kubeconfig), receiver, say)


def answer(
    *,
    name: Name,
    words: Words,
    receiver: Annotated[Receiver | None, typer.Option(help="What made the bell, if there is one")] = None,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> int:
    """Submit the matrix of a trigger as soon as its bell is off: what its planner runs.

    Of the matrix only the kernels that its pod was told, if it was told any; also those that are newer than the lock.
    """
    import tempfile

    from dtkpipe.app import bell, new_releases
    from dtkpipe.engines.schedules import KERNELS_ENV, RUNG_BY_ENV
    from dtkpipe.values.kernel import Kernel

    kernels = [Kernel.parse(text) for text in os.environ.get(KERNELS_ENV, "").split(",") if text]
    if receiver:
        bell.off(place(namespace, context, kubeconfig), name, receiver, os.environ.get(RUNG_BY_ENV, ""))
    only = [f"--kernel={one}" for one in kernels]

    def plan() -> ExitCode:
        with tempfile.TemporaryDirectory() as lock:
            newer = kernels and new_releases.knows(_question(words), kernels, Path(lock), say)
            return _submit([*words, *only, *([f"--lock={lock}"] if newer else [])])

    return bell.again(plan, say)


def look(
    *, name: Name, words: Words, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None
) -> int:
    """Submit the matrix of a trigger when the update graph lists a release that is new: what its planner runs."""
    from dtkpipe.app.new_releases import look
    from dtkpipe.engines.schedules import BY_HAND, RUNG_BY_ENV

    def plan(lock: Path) -> ExitCode:
        return _submit([*words, f"--lock={lock}"])

    by_hand = os.environ.get(RUNG_BY_ENV) == BY_HAND
    return look(place(namespace, context, kubeconfig), name, _question(words), plan, say, at_once=by_hand)


def watch(
    *,
    name: Name,
    debounce: Annotated[int, typer.Option(min=0, help="Seconds in which what is new is planned together")],
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Start the planner of a trigger for kernels that no node ran before: what its Deployment runs."""
    from dtkpipe.app.node_kernels import watch

    watch(place(namespace, context, kubeconfig), name, debounce, say)


def _question(words: Sequence[str]) -> Question:
    from dtkpipe.app.new_releases import Question
    from dtkpipe.cli.matrix_options import options_of

    matrix = options_of(parsed(list(words)))
    return Question(request=matrix.request, access=matrix.access, words=words)


def _submit(words: Sequence[str]) -> ExitCode:
    """Do `dtkpipe matrix submit`."""
    from dtkpipe.cli.application import load

    submit = load("matrix").commands["submit"]
    ended: ExitCode = submit.main(list(words), prog_name="dtkpipe matrix submit", standalone_mode=False)
    return ended
