"""The options that say how registries are spoken to, for commands that take them beside pipelines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtkpipe.errors import UsageError

if TYPE_CHECKING:
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
    from dtkpipe.settings import load
    from dtkpipe.values.access import access_from

    settings = load(os.environ, Path.cwd())
    environ = dict(os.environ)
    if auth := str(settings["auth-file"].value):
        environ["REGISTRY_AUTH_FILE"] = auth

    def text(name: str, given: Path | None) -> str:
        path = given or (Path(str(settings[name].value)) if settings[name].value else None)
        return _text(f"--{name}", path) if path else ""

    hosts = insecure or settings["insecure-registries"].value
    return access_from(tuple(hosts), text("registry-ca", ca), environ, text("registry-mirrors", mirrors))


def _text(flag: str, path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise UsageError(f"{flag}: `{path}` cannot be read", str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag}: `{path}` is not a text file") from error
