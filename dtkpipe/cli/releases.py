"""Which releases one image serves."""

from __future__ import annotations

from typing import Annotated

import typer

from dtkpipe.cli import registries
from dtkpipe.cli.output import AnyForm, emit, table


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def releases(
        served_by: Annotated[str, typer.Option(metavar="KERNEL", help="Only those with this kernel")] = "",
        lock: registries.Lock = None,
        output: AnyForm = "table",
    ) -> None:
        """List the kernels and the releases that each of them serves."""
        from dtkpipe.app.catalog import by_kernel
        from dtkpipe.app.resolve import lock_folder
        from dtkpipe.releases.lock import Lock

        found = by_kernel(Lock(lock_folder(lock)), served_by)
        rows = [(str(kernel), text) for kernel, text in found.items()]
        document = [{"kernel": kernel, "releases": text.split(", ")} for kernel, text in rows]
        emit(output, document, lambda: table(("KERNEL", "RELEASES"), rows), [text for _, text in rows])
