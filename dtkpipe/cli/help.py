"""Explain a command or a topic."""

from __future__ import annotations

from typing import Annotated

import typer

from dtkpipe.errors import EXIT_CODES, NotFoundError


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("help")
    def explain(topic: Annotated[str, typer.Argument(help="A command, or one of the topics")] = "") -> int:
        """Explain a command or a topic."""
        from dtkpipe.cli.application import COMMANDS, run

        if not topic or topic in COMMANDS:
            return run([*([topic] if topic else []), "--help"])
        if topic not in TOPICS:
            import difflib

            known = [*TOPICS, *COMMANDS]
            near = difflib.get_close_matches(topic, known, n=1)
            raise NotFoundError(
                f"there is no help about `{topic[:80]}`", f"topics: {', '.join(TOPICS)}",
                hint=f"did you mean `{near[0]}`?" if near else "dtkpipe --help",
            )  # fmt: skip
        print(TOPICS[topic])
        return 0


TOPICS = {
    "exit-codes": "\n".join(
        ["Exit codes. Below 10 they speak of the tool, from 10 on of the run.", ""]
        + [f"{code:4}  {meaning}" for code, meaning in EXIT_CODES]
    ),
}
