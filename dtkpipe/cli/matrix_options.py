"""The options that say which matrix is meant, for every command of `dtkpipe matrix`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtkpipe.cli import registries

if TYPE_CHECKING:
    from dtkpipe.app.matrix.plan import Request
    from dtkpipe.settings import Setting
    from dtkpipe.tools.x509 import Certificate
    from dtkpipe.values.access import RegistryAccess


@dataclass(frozen=True)
class MatrixOptions:
    """What the options say."""

    request: Request
    access: RegistryAccess
    words: tuple[str, ...]
    """The same for `dtkpipe submit`: how registries are spoken to, and who signs."""
    params: Mapping[str, str]
    """The same as parameters of a run on a cluster."""


def _options(
    *,
    modules: Annotated[
        list[str],
        typer.Option(
            "--modules",
            metavar="PATTERN",
            help="Files of module specs: 'catalog/modules/*', or 'github.com/org/catalog//modules/*?ref=main'",
        ),
    ],
    releases: Annotated[
        str, typer.Option("--releases", metavar="LIST", help="'4.16..4.22,stable', 4.14.38, latest, debian-12")
    ],
    arch: Annotated[str, typer.Option("--arch", metavar="LIST", help="x86_64,aarch64 (default: this machine's)")] = "",
    variant: Annotated[str, typer.Option("--variant", metavar="LIST", help="std,rt,64k,cloud (default: std)")] = "",
    kernel: Annotated[
        list[str],
        typer.Option("--kernel", metavar="KERNEL", help="Of the releases' kernels only this one; may be repeated"),
    ] = [],  # noqa: B006
    push_to: Annotated[
        str,
        typer.Option("--push-to", metavar="PLACE", help="Where images are: module m in PLACE/m (default: loopback)"),
    ] = "",
    staging: Annotated[
        str, typer.Option("--staging", metavar="REPOSITORY", help="Where candidates go (default: PLACE/staging)")
    ] = "",
    toolkit_repo: Annotated[
        str,
        typer.Option("--toolkit-repo", metavar="REPOSITORY", help="Where toolkits are made (default: PLACE/toolkits)"),
    ] = "",
    sign_cert: Annotated[
        Path | None, typer.Option("--sign-cert", metavar="FILE", help="Certificate that images are signed for")
    ] = None,
    lock: registries.Lock = None,
    graph: registries.GraphUrl = "",
    insecure_registry: registries.Insecure = [],  # noqa: B006
    registry_ca: registries.Ca = None,
    registry_mirrors: registries.MirrorFile = None,
) -> MatrixOptions:
    import base64

    from dtkpipe.app.matrix.plan import Request
    from dtkpipe.settings import load
    from dtkpipe.steps.contract import flag, render
    from dtkpipe.values.arch import Arch
    from dtkpipe.values.kernel import Kernel
    from dtkpipe.values.key import signer_id

    settings = load(os.environ, Path.cwd())
    certificate = sign_cert or (Path(name) if (name := _text(settings["sign-cert"])) else None)
    signer = _certificate(certificate)
    request = Request(
        modules=[pattern for text in modules for pattern in _words(text)], releases=releases,
        arches=[Arch.parse(name) for name in _words(arch or _text(settings["arch"]))] or [Arch.host()],
        variants=_words(variant or _text(settings["variant"])) or ["std"],
        push_to=push_to or _text(settings["push-to"]), staging=staging or _text(settings["staging"]),
        toolkit_repo=toolkit_repo or _text(settings["toolkit-repo"]), lock=lock, graph=graph,
        kernels=[Kernel.parse(name) for text in kernel for name in _words(text)],
        signer=signer_id(signer.signer if signer else ""),
    )  # fmt: skip
    spoken = registries.args(insecure_registry, registry_ca, registry_mirrors)
    access = spoken.access(registries.environ())
    params = {flag(name): render(value) for name, value in dataclasses.asdict(spoken).items() if value}
    params |= {"sign-cert": base64.b64encode(signer.der).decode()} if signer else {}
    files = {"--sign-cert": certificate, "--registry-ca": registry_ca, "--registry-mirrors": registry_mirrors}
    words = [f"--insecure-registry={host}" for host in access.insecure]
    words += [f"{name}={file.absolute()}" for name, file in files.items() if file]
    return MatrixOptions(request=request, access=access, words=tuple(words), params=params)


_ADDED = inspect.signature(_options, eval_str=True).parameters


def options_of(given: Mapping[str, Any]) -> MatrixOptions:
    """Return what the parsed options of a command of `dtkpipe matrix` say."""
    return _options(**{name: given[name] for name in _ADDED})


def takes_matrix(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a matrix, and hand it what they say as `matrix`."""
    added = _ADDED
    own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "matrix"]

    @functools.wraps(command)
    def with_matrix(**options: Any) -> Any:
        given: Mapping[str, Any] = {name: options.pop(name) for name in added}
        return command(matrix=_options(**given), **options)

    every = [*added.values(), *own]
    vars(with_matrix)["__signature__"] = inspect.Signature(every)
    with_matrix.__annotations__ = {one.name: one.annotation for one in every}
    del vars(with_matrix)["__wrapped__"]
    return with_matrix


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _text(setting: Setting) -> str:
    return str(setting.value)


def _certificate(file: Path | None) -> Certificate | None:
    from dtkpipe.errors import UsageError
    from dtkpipe.tools.x509 import Certificate

    if file is None:
        return None
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"--sign-cert: `{file}` cannot be read", str(error.strerror)) from error
    return Certificate.parse(data)
