"""Label nodes with the kernel they run."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dtkpipe.cli.clusters import Context, Kubeconfig
from dtkpipe.cli.output import AnyForm, emit, table


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("label-nodes")
    def label_nodes(
        selector: Annotated[
            str, typer.Option("-l", "--selector", metavar="LABELS", help="Only nodes with these labels: key=value,...")
        ] = "",
        dry_run: Annotated[
            Literal["none", "client"],
            typer.Option("--dry-run", help="client: say what would be done, and change nothing"),
        ] = "none",
        output: AnyForm = "table",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
    ) -> None:
        """Label nodes with the kernel they run, so that drivers find them.

        Needed where neither Node Feature Discovery nor KMM does it, and again when a node got another kernel.
        """
        import dataclasses

        from dtkpipe.app.clusters import connect
        from dtkpipe.app.nodes import label_nodes
        from dtkpipe.cli.clusters import where

        done = list(label_nodes(connect(where(kubeconfig, context, "")).cluster, selector, dry_run=dry_run != "none"))

        def text() -> str:
            how = " (dry run)" if dry_run != "none" else ""
            rows = [(one.node, one.kernel, f"{one.outcome}{f': {one.by}' if one.by else how}") for one in done]
            return table(("NODE", "KERNEL", "LABEL"), rows)

        emit(output, [dataclasses.asdict(one) for one in done], text, [f"node/{one.node}" for one in done])
