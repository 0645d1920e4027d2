"""The options that say which cluster is meant: the same for every command that asks one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from dtkpipe.app.clusters import Place, Where

Namespace = Annotated[
    str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Namespace of the runs (default: the context's)")
]
Context = Annotated[str, typer.Option("--context", metavar="NAME", help="Context of the kubeconfig")]
Kubeconfig = Annotated[
    Path | None, typer.Option("--kubeconfig", metavar="FILE", help="Which clusters there are (default: KUBECONFIG)")
]
Dry = Literal["none", "client", "server"]
DryRun = Annotated[
    Dry,
    typer.Option(
        "--dry-run", help="client (or without a value): check here; server: also by the cluster; both change nothing"
    ),
]
"""Alone on the command line it means `client`: see `dtkpipe.cli.application.run`."""


def where(kubeconfig: Path | None, context: str, namespace: str) -> Where:
    """Return the cluster and namespace that the options mean, or else the settings."""
    from dtkpipe.app.clusters import Where
    from dtkpipe.settings import load

    settings = load(os.environ, Path.cwd())
    return Where(
        kubeconfig=kubeconfig, context=context or str(settings["context"].value),
        namespace=namespace or str(settings["namespace"].value),
    )  # fmt: skip


def place(namespace: str, context: str, kubeconfig: Path | None) -> Place:
    """Return the namespace that the options mean, or else the settings. Nothing is asked yet."""
    from dtkpipe.app.clusters import connect

    return connect(where(kubeconfig, context, namespace))
