"""The entry of the command line: what must be quick goes its own way, everything else through Typer."""

from __future__ import annotations

from collections.abc import Sequence

from dtkpipe.cli.boundary import guarded


def main(argv: Sequence[str]) -> int:
    """Run the command line `argv` (without the program's name) and return its exit code."""
    return guarded(lambda: dispatch(list(argv)))


def dispatch(argv: list[str]) -> int:
    """Run the command line; errors are raised as DtkpipeError."""
    if argv[:1] == ["step"]:
        # Seven times in every run, so without the 60 ms that Typer takes to load.
        from dtkpipe.cli.step import run_step

        return run_step(argv[1:])
    if argv == ["version"]:
        # Asked by scripts: with Typer's options it would load pydantic, for another 100 ms.
        from dtkpipe import __version__

        print(f"dtkpipe {__version__}")
        return 0
    from dtkpipe.cli.application import run

    return run(argv)
