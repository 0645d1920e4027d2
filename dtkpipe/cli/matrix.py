"""Many modules for many kernels: what is stale, and why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dtkpipe.cli import registries
from dtkpipe.cli.output import say

if TYPE_CHECKING:
    from dtkpipe.app.matrix.plan import Request
    from dtkpipe.matrix.plan import Plan
    from dtkpipe.settings import Setting

Modules = Annotated[
    list[str],
    typer.Option("--modules", metavar="PATTERN", help="Files of module specs: 'catalog/modules/*'; may be repeated"),
]
Releases = Annotated[
    str, typer.Option("--releases", metavar="LIST", help="'4.16..4.22,stable', 4.14.38, latest, debian-12")
]
Arches = Annotated[str, typer.Option("--arch", metavar="LIST", help="x86_64,aarch64 (default: this machine's)")]
Variants = Annotated[str, typer.Option("--variant", metavar="LIST", help="std,rt,64k,cloud (default: std)")]
PushTo = Annotated[
    str,
    typer.Option("--push-to", metavar="PLACE", help="Where images are: module m is in PLACE/m (default: loopback)"),
]
ToolkitRepo = Annotated[
    str,
    typer.Option("--toolkit-repo", metavar="REPOSITORY", help="Where toolkits are made (default: PLACE/toolkits)"),
]
SignCert = Annotated[
    Path | None, typer.Option("--sign-cert", metavar="FILE", help="Certificate that images are signed for")
]
PlanForm = Annotated[
    Literal["table", "wide", "json", "name"], typer.Option("-o", "--output", help="Form of the answer on stdout")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    matrix = typer.Typer(rich_markup_mode=None)
    app.add_typer(matrix, name="matrix")

    @matrix.callback()
    def group() -> None:
        """Build many modules for many kernels, and keep them fresh."""

    matrix.command()(plan)


def plan(
    modules: Modules,
    releases: Releases,
    arch: Arches = "",
    variant: Variants = "",
    push_to: PushTo = "",
    toolkit_repo: ToolkitRepo = "",
    sign_cert: SignCert = None,
    lock: registries.Lock = None,
    graph: registries.GraphUrl = "",
    insecure_registry: registries.Insecure = [],  # noqa: B006
    registry_ca: registries.Ca = None,
    registry_mirrors: registries.MirrorFile = None,
    output: PlanForm = "table",
) -> int:
    """Say for each module and kernel whether its image is current, and why not.

    dtkpipe matrix plan --modules 'catalog/modules/*' --releases debian-12 --variant std,cloud

    Exit code 1: something is stale.
    """
    from datetime import UTC, datetime

    from dtkpipe.app.matrix.plan import place, planned

    request = _request(modules, releases, arch, variant, push_to, toolkit_repo, sign_cert, lock, graph)
    access = registries.access(insecure_registry, registry_ca, registry_mirrors)
    with place(request, access, os.environ, say) as at:
        found = planned(request, at, Path.cwd(), os.environ, say, datetime.now(UTC).date())
    _print(found, output)
    return _exit_code(found)


def _request(
    modules: list[str], releases: str, arch: str, variant: str, push_to: str, toolkit_repo: str,
    sign_cert: Path | None, lock: Path | None, graph: str,
) -> Request:  # fmt: skip
    from dtkpipe.app.matrix.plan import Request
    from dtkpipe.settings import load
    from dtkpipe.values.arch import Arch

    settings = load(os.environ, Path.cwd())
    return Request(
        modules=[pattern for text in modules for pattern in _words(text)], releases=releases,
        arches=[Arch.parse(name) for name in _words(arch or _text(settings["arch"]))] or [Arch.host()],
        variants=_words(variant or _text(settings["variant"])) or ["std"],
        push_to=push_to or _text(settings["push-to"]),
        toolkit_repo=toolkit_repo or _text(settings["toolkit-repo"]),
        signer=_signer(sign_cert or (Path(name) if (name := _text(settings["sign-cert"])) else None)),
        lock=lock, graph=graph,
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _text(setting: Setting) -> str:
    return str(setting.value)


def _signer(certificate: Path | None) -> str:
    from dtkpipe.errors import UsageError
    from dtkpipe.tools.x509 import Certificate
    from dtkpipe.values.key import UNSIGNED, signer_id

    if certificate is None:
        return UNSIGNED
    try:
        data = certificate.read_bytes()
    except OSError as error:
        raise UsageError(f"--sign-cert: `{certificate}` cannot be read", str(error.strerror)) from error
    return signer_id(Certificate.parse(data).signer)


def _print(found: Plan, output: str) -> None:
    import json

    from dtkpipe.report import matrix as report
    from dtkpipe.report.card import aligned

    if output == "json":
        print(json.dumps(report.document(found), indent=2, ensure_ascii=False))
        return
    if output == "name":
        print(*(f"{one.module}/{one.target.kernel}" for one in found.stale), sep="\n")
        return
    print(aligned(report.every(found) if output == "wide" else report.folded(found)))
    say("")
    for notice in found.notices:
        say(f"note: {notice}")
    say(report.summary(found))


def _exit_code(found: Plan) -> int:
    """Return 1 when something is stale, or else the code of what is broken or not known."""
    from dtkpipe.errors import InvalidError, RunUnknownError
    from dtkpipe.values.cell import State

    if found.stale:
        return 1
    if found.broken:
        return InvalidError.exit_code
    return RunUnknownError.exit_code if found.count(State.UNKNOWN) else 0
