"""Serve the images that local runs made."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dtkpipe.cli.output import say


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
    def registry(
        command: Annotated[
            list[str] | None, typer.Argument(help="Run this while the registry is up, then stop it")
        ] = None,
    ) -> int:
        """Serve the images that local runs made.

        dtkpipe registry

        dtkpipe registry skopeo copy --src-tls-verify=false docker://127.0.0.1:5077/hello:6.1.0-53-amd64 oci:hello

        Without a command it serves until Ctrl-C. The images are in the cache ($DTKPIPE_CACHE).
        """
        import signal

        from dtkpipe.app.registry import loopback_registry
        from dtkpipe.resources import cache_dir
        from dtkpipe.tools import process

        with loopback_registry(cache_dir(os.environ), say) as host:
            if command:
                return process.start(command, stdin=0, stdout=1, stderr=2).wait()
            say(f"serving on {host} until Ctrl-C")
            signal.pause()
        return 0
