"""Check what this machine lacks, and fix it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dtkpipe.cli.output import TableOrJson, emit, say, table


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def doctor(
        jobs: Annotated[
            str,
            typer.Option(
                "--for", metavar="JOBS",
                help="build, toolkits, verify, verify-arm, secure-boot, registry, tests; separated by commas, or all",
            ),
        ] = "",
        fix: Annotated[bool, typer.Option("--fix", help="Install what is missing (as root, or through sudo)")] = False,
        output: TableOrJson = "table",
    ) -> None:  # fmt: skip
        """Check what this machine lacks, and fix it.

        Exits with 1 when something is missing.
        """
        from dtkpipe.app import doctor as app
        from dtkpipe.errors import AnswerIsNoError
        from dtkpipe.resources import cache_dir

        chosen = app.parse_jobs(jobs)
        cache = cache_dir(os.environ)
        found = app.examine(chosen, cache)
        if fix:
            app.fix(found, say)
            found = app.examine(chosen, cache)

        def text() -> str:
            rows = [
                (one.name, "ok" if one.ok else "MISSING", one.found, ",".join(job for job in one.jobs if job in chosen))
                for one in found
            ]
            return table(("NAME", "STATE", "FOUND", "FOR"), rows)

        emit(output, app.document(found), text)
        if lacking := list(app.missing(found)):
            packages = sorted({one.package for one in lacking if one.package})
            hints = [f"apt-get install {' '.join(packages)}  (or: dtkpipe doctor --fix)"] if packages else []
            hints += [one.fix for one in lacking if one.fix and not one.package]
            raise AnswerIsNoError(
                f"this machine lacks {', '.join(one.name for one in lacking)}",
                *(f"{one.name}: {one.found}" for one in lacking if not one.package),
                hint="\n      ".join(hints),
            )
