"""The options that say how registries are spoken to, for commands that take them beside pipelines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtkpipe.errors import UsageError

if TYPE_CHECKING:
    from dtkpipe.steps.contract import RegistryArgs
    from dtkpipe.values.access import RegistryAccess

_PANEL = "Registries"
Insecure = Annotated[
    list[str],
    typer.Option("--insecure-registry", metavar="HOST", rich_help_panel=_PANEL, show_default=False,
                 help="Registry or update graph without TLS; may be repeated"),
]  # fmt: skip
Ca = Annotated[
    Path | None,
    typer.Option("--registry-ca", metavar="FILE", rich_help_panel=_PANEL, show_default=False,
                 help="Certificates (PEM) to trust, besides the system's"),
]  # fmt: skip
MirrorFile = Annotated[
    Path | None,
    typer.Option("--registry-mirrors", metavar="FILE", rich_help_panel=_PANEL, show_default=False,
                 help="Mirror sets: ICSP, IDMS, ITMS as YAML or JSON"),
]  # fmt: skip
Lock = Annotated[
    Path | None,
    typer.Option("--lock", metavar="FOLDER", show_default=False, help="Lock to use instead of the one that is shipped"),
]
ReleaseRepo = Annotated[
    str,
    typer.Option("--release-repo", metavar="REPOSITORY", rich_help_panel=_PANEL, show_default=False,
                 help="Repository of the images of releases"),
]  # fmt: skip
GraphUrl = Annotated[
    str,
    typer.Option("--graph", metavar="URL", show_default=False, help="Update graph to ask instead of the public one"),
]


def access(insecure: list[str], ca: Path | None, mirrors: Path | None) -> RegistryAccess:
    """Return what the options say, and the settings where these say nothing.

    Raises UsageError for a file that cannot be read, InvalidError for its content.
    """
    return args(insecure, ca, mirrors).access(environ())


def args(insecure: list[str], ca: Path | None, mirrors: Path | None) -> RegistryArgs:
    """Return the same as the inputs of a step. Raises UsageError for a file that cannot be read."""
    from dtkpipe.settings import load
    from dtkpipe.steps.contract import RegistryArgs

    settings = load(os.environ, Path.cwd())

    def text(name: str, given: Path | None) -> str:
        path = given or (Path(str(settings[name].value)) if settings[name].value else None)
        return _text(f"--{name}", path) if path else ""

    hosts = insecure or settings["insecure-registries"].value
    return RegistryArgs(
        insecure_registries=tuple(hosts), registry_ca=text("registry-ca", ca),
        registry_mirrors=text("registry-mirrors", mirrors),
    )  # fmt: skip


def environ() -> dict[str, str]:
    """Return the environment, with the file of credentials that the settings name."""
    from dtkpipe.settings import load

    auth = str(load(os.environ, Path.cwd())["auth-file"].value)
    return {**os.environ, **({"REGISTRY_AUTH_FILE": auth} if auth else {})}


def _text(flag: str, path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise UsageError(f"{flag}: `{path}` cannot be read", str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag}: `{path}` is not a text file") from error
