"""The options that stand for a pipeline's parameters: one table for every command that takes them.

A command asks for them with `@takes_inputs` and a parameter `inputs: Inputs`: it gets the parameters that were given,
name -> the string that engines pass, and what the settings say of the others. `-p NAME=VALUE` reaches
those that have no option of their own.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dtkpipe.app.params import Inputs
from dtkpipe.errors import UsageError

_PANEL = "What to run it with"
PipelineOption = Annotated[
    str,
    typer.Option("--pipeline", metavar="PIPELINE", help="kmod, prebuild, or a file of yours: mine.py, mine.py:name"),
]


@dataclass(frozen=True)
class Choice:
    """One option and the parameter it sets. A `file` gives its text, a `certificate` its DER in base64."""

    flag: str
    metavar: str
    help: str
    kind: Literal["text", "list", "switch", "file", "certificate"] = "text"
    param: str = ""

    @property
    def name(self) -> str:
        """The parameter's name: the flag's, unless it is another."""
        return self.param or self.flag.removeprefix("--")

    @property
    def keyword(self) -> str:
        """The name as a Python identifier."""
        return self.name.replace("-", "_")


CHOICES = (
    Choice("--release", "RELEASE", "What to build for: 4.14, 4.14.38, debian-12"),
    Choice("--repo", "SOURCE", "The module: folder, tarball, git URL (github.com/org/kmod), package (apt:NAME/SUITE)"),
    Choice("--ref", "REF", "Branch, tag or commit of the git repository"),
    Choice("--path", "FOLDER", "Folder of the module inside the source"),
    Choice("--spec", "FILE", "dtkpipe.yaml to use instead of the one in the source", "file"),
    Choice("--push-to", "REPOSITORY", "Where the finished image goes, e.g. quay.io/org/kmod"),
    Choice("--staging", "REPOSITORY", "Where candidates go (default: loopback; on a cluster <push-to>-staging)"),
    Choice("--kernel", "KERNEL", "Kernel release, as `uname -r` prints it"),
    Choice("--toolkit", "IMAGE", "Driver Toolkit image to use instead of looking for one"),
    Choice("--toolkit-repo", "REPOSITORY", "Where toolkits made from packages go (default: <push-to>-toolkits)"),
    Choice("--arch", "ARCH", "Architecture of the target: x86_64, aarch64"),
    Choice("--variant", "VARIANT", "Kernel flavour: std, rt, 64k, cloud"),
    Choice("--stream", "STREAM", "Stream of the operating system, where a release has several: rhel-9, rhel-10"),
    Choice("--allow-kernel-mismatch", "", "Take a toolkit that is not for its operating system's kernel", "switch"),
    Choice("--build-arg", "NAME=VALUE", "Build argument; may be repeated", "list", "build-args"),
    Choice("--hermetic", "", "Compile without network", "switch"),
    Choice("--sign-cert", "FILE", "Certificate to sign for (PEM or DER); without it nothing is signed", "certificate"),
    Choice("--time-limit", "SECONDS", "Seconds that one boot of the kernel may take (default: 120)"),
    Choice("--insecure-registry", "HOST", "Registry without TLS; may be repeated", "list", "insecure-registries"),
    Choice("--registry-ca", "FILE", "Certificates (PEM) to trust for registries, besides the system's", "file"),
    Choice("--registry-mirrors", "FILE", "Mirror sets (ICSP, IDMS, ITMS) to read images from the mirrors of", "file"),
)


def takes_inputs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of CHOICES and `-p`, and hand it what they say as `inputs`."""

    @functools.wraps(command)
    def with_inputs(**options: Any) -> Any:
        given = {choice: options.pop(choice.keyword) for choice in CHOICES}
        return command(inputs=_inputs(_collect(given, options.pop("param"))), **options)

    own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "inputs"]
    added = [*(_parameter(choice) for choice in CHOICES), _PARAM]
    vars(with_inputs)["__signature__"] = inspect.Signature([*own, *added])
    with_inputs.__annotations__ = {one.name: one.annotation for one in (*own, *added)}
    del vars(with_inputs)["__wrapped__"]
    return with_inputs


def _parameter(choice: Choice) -> inspect.Parameter:
    flags = [choice.flag]
    kind: Any
    default: Any
    match choice.kind:
        case "list":
            kind, default = list[str], []
        case "switch":
            kind, default = bool, False
        case "file" | "certificate":
            kind, default = Path | None, None
        case _:
            kind, default = str, ""
    option = typer.Option(
        *flags,
        metavar=choice.metavar or None,
        help=choice.help,
        rich_help_panel=_PANEL,
        show_default=False,
        autocompletion=_releases if choice.flag == "--release" else None,
    )
    return inspect.Parameter(
        choice.keyword, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _releases(incomplete: str) -> list[str]:
    """Complete the name of a release from the files of the catalogue: quick, and without network."""
    from dtkpipe.resources import shipped

    folders = (shipped("catalog/toolkits"), shipped("catalog/releases"))
    known = (
        file.stem
        for folder in folders
        for file in sorted(folder.glob("*.yaml"))
        if "-" in file.stem or "." in file.stem
    )
    return [name for name in known if name.startswith(incomplete)]


_PARAM = inspect.Parameter(
    "param",
    inspect.Parameter.KEYWORD_ONLY,
    default=[],
    annotation=Annotated[
        list[str],
        typer.Option(
            "--param", "-p", metavar="NAME=VALUE", help="Any parameter of the pipeline; may be repeated",
            rich_help_panel=_PANEL, show_default=False,
        ),
    ],
)  # fmt: skip


def _collect(given: Mapping[Choice, Any], pairs: list[str]) -> dict[str, str]:
    inputs: dict[str, str] = {}
    for choice, value in given.items():
        if value:
            inputs[choice.name] = _as_string(choice, value)
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"-p takes NAME=VALUE, not `{pair}`", hint="-p time-limit=300")
        if name in inputs:
            raise UsageError(f"parameter `{name}` is given twice")
        inputs[name] = text
    return inputs


def _inputs(given: Mapping[str, str]) -> Inputs:
    """Add what the settings say where the command line says nothing."""
    from dtkpipe.settings import load

    added: dict[str, str] = {}
    settings = load(os.environ, Path.cwd())
    for choice in CHOICES:
        setting = settings.get(choice.name)
        if choice.name in given or not setting or not setting.value:
            continue
        if choice.name == "release" and ("kernel" in given or "toolkit" in given):
            continue  # a kernel or a toolkit that is named says what to build for
        value = setting.value
        if setting.key.kind == "path":
            added[choice.name] = _as_string(choice, Path(str(value)))
        else:
            added[choice.name] = _as_string(choice, list(value) if setting.key.kind == "list" else value)
    return Inputs(given=given, settings=added)


def _as_string(choice: Choice, value: Any) -> str:
    match choice.kind:
        case "list":
            return json.dumps(value)
        case "switch":
            return "true"
        case "file":
            return _text(choice, value)
        case "certificate":
            return _der_in_base64(choice, value)
        case _:
            return str(value)


def _read(choice: Choice, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{choice.flag}: `{path}` cannot be read", str(error.strerror)) from error


def _text(choice: Choice, path: Path) -> str:
    try:
        return _read(choice, path).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{choice.flag}: `{path}` is not a text file") from error


def _der_in_base64(choice: Choice, path: Path) -> str:
    import base64
    import ssl

    data = _read(choice, path)
    if b"PRIVATE KEY" in data:
        raise UsageError(f"{choice.flag}: `{path}` holds a private key", hint="give the file of the certificate alone")
    try:
        der = data if data[:1] == b"\x30" else ssl.PEM_cert_to_DER_cert(data.decode().strip())
    except ValueError as error:
        raise UsageError(f"{choice.flag}: `{path}` is not a certificate", "expected PEM or DER") from error
    return base64.b64encode(der).decode()
