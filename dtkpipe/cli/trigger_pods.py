"""What the pods of a trigger run: commands of `dtkpipe trigger` that nobody types."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtkpipe.cli.clusters import Context, Kubeconfig, Namespace, place
from dtkpipe.cli.output import say
from dtkpipe.cli.schedule import Name, Words, parsed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dtkpipe.app.matrix.outcome import ExitCode


def register(trigger: typer.Typer) -> None:
    """Add the commands."""
    for command in (ring, answer, look, watch):
        trigger.command(hidden=True)(command)


def ring(*, name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None) -> None:
    """Start the planner of a trigger when the one before has ended: what its bell runs."""
    from dtkpipe.app import bell

    print(f"started {bell.ring(place(namespace, context, kubeconfig), name)}")


def answer(
    *, name: Name, words: Words, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None
) -> int:
    """Submit the matrix of a trigger as soon as its bell is off, if it has one: what its planner runs.

    Of the matrix only the kernels that its pod was told, if it was told any.
    """
    from dtkpipe.app import bell
    from dtkpipe.engines.schedules import KERNELS_ENV, RUNG_BY_ENV
    from dtkpipe.values.kernel import Kernel

    kernels = [Kernel.parse(text) for text in os.environ.get(KERNELS_ENV, "").split(",") if text]
    bell.off(place(namespace, context, kubeconfig), name, os.environ.get(RUNG_BY_ENV, ""))
    return bell.again(lambda: _submit([*words, *(f"--kernel={one}" for one in kernels)]), say)


def look(
    *, name: Name, words: Words, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = None
) -> int:
    """Submit the matrix of a trigger when the update graph lists a release that is new: what its planner runs."""
    from dtkpipe.app.new_releases import Question, look
    from dtkpipe.cli.matrix_options import options_of
    from dtkpipe.engines.schedules import BY_HAND, RUNG_BY_ENV

    matrix = options_of(parsed(words))
    question = Question(request=matrix.request, access=matrix.access, words=words)

    def plan(lock: Path) -> ExitCode:
        return _submit([*words, f"--lock={lock}"])

    by_hand = os.environ.get(RUNG_BY_ENV) == BY_HAND
    return look(place(namespace, context, kubeconfig), name, question, plan, say, at_once=by_hand)


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


def _submit(words: Sequence[str]) -> ExitCode:
    """Do `dtkpipe matrix submit`."""
    from dtkpipe.cli.application import load

    submit = load("matrix").commands["submit"]
    ended: ExitCode = submit.main(list(words), prog_name="dtkpipe matrix submit", standalone_mode=False)
    return ended
