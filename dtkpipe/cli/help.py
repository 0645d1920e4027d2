"""Explain a command or a topic."""

from __future__ import annotations

from typing import Annotated

import typer

from dtkpipe.errors import NotFoundError


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
        print(TOPICS[topic]())
        return 0


def _exit_codes() -> str:
    from dtkpipe.errors import EXIT_CODES

    lines = [f"{code:4}  {meaning}" for code, meaning in EXIT_CODES]
    return "\n".join(["Exit codes. Below 10 they speak of the tool, from 10 on of the run.", "", *lines])


def _environment() -> str:
    from dtkpipe.settings import KEYS

    own = (
        ("DTKPIPE_CACHE", "Folder of toolkits, kernels and images; can be deleted (default: ~/.cache/dtkpipe)"),
        ("DTKPIPE_STATE", "Folder of runs and logs (default: ~/.local/state/dtkpipe)"),
        ("DTKPIPE_CONFIG", "The one file of settings to read; empty for none"),
        ("DTKPIPE_KEEP", "Folder in which `dtkpipe step` leaves logs and evidence (default: below the state folder)"),
        ("DTKPIPE_WORK", "Working folder of `dtkpipe step` (default: one that is removed again)"),
        ("REGISTRY_AUTH_FILE", "Credentials for registries (default: the files of podman and docker)"),
        ("NO_COLOR", "No colours"),
        ("GITHUB_ACTIONS", "`true`: logs as groups, failures as annotations"),
        ("GITHUB_STEP_SUMMARY", "File to which the run card is added as Markdown"),
    )
    settings = [(key.variable, key.doc) for key in KEYS]
    lines = [f"{name:29} {doc}" for name, doc in (*settings, *own)]
    return "\n".join(["Variables of the environment. A flag is stronger, a file of settings is weaker.", "", *lines])


TOPICS = {"exit-codes": _exit_codes, "environment": _environment}
