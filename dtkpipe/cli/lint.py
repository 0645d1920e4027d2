"""Find the problems of a module source or a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtkpipe.cli.output import TableOrJson, emit, say

if TYPE_CHECKING:
    from dtkpipe.source.hazards import Finding


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def lint(
        source: Annotated[str, typer.Argument(help="Folder, tarball, git URL or apt:NAME/SUITE")] = ".",
        ref: Annotated[str, typer.Option("--ref", help="Branch, tag or commit of the git repository")] = "",
        path: Annotated[str, typer.Option("--path", help="Folder of the module inside the source")] = "",
        spec: Annotated[
            Path | None, typer.Option("--spec", help="dtkpipe.yaml to use instead of the one in the source")
        ] = None,
        pipeline: Annotated[
            str, typer.Option("--pipeline", help="Check a pipeline instead: kmod, mine.py, mine.py:name")
        ] = "",
        output: TableOrJson = "table",
    ) -> int:
        """Find what is known to go wrong: with file, line and a fix; exit 1 if there is any.

        dtkpipe lint github.com/org/kmod --ref v1.2
        """
        if pipeline:
            return _pipeline(pipeline, output)
        from dtkpipe.app.source import look

        looked = look(source, ref, path, spec, Path.cwd())
        findings = looked.findings
        for note in (f"source: {looked.title}", f"recipe: from {looked.found.how}", *looked.found.notes):
            say(note)
        if findings or output == "json":
            emit(output, [one.to_mapping() for one in findings], lambda: _text(findings))
        counts = {severity: sum(one.severity == severity for one in findings) for severity in ("error", "warning")}
        words = [f"{count} {word}{'s' if count != 1 else ''}" for word, count in counts.items() if count]
        say(", ".join(words) or "no problems found")
        return 1 if findings else 0


def _text(findings: Sequence[Finding]) -> str:
    """Write findings as compilers write errors, so that editors find the place."""
    return "\n".join(
        f"{one.file}:{one.line}: {one.severity}: {one.message} [{one.rule}]\n    fix: {one.fix}" for one in findings
    )


def _pipeline(name: str, output: str) -> int:
    from dtkpipe.app.pipelines import load

    loaded = load(name)
    if output == "json":
        emit(output, [], str)
    say(f"pipeline {loaded.name}: {len(loaded.all_tasks)} tasks, no problems found")
    return 0
