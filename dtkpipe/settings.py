"""What a user need not say each time: settings of a project and of a user, each with its origin.

Strongest first: a flag, the environment (DTKPIPE_<NAME>), the project's file, the user's file, the default. The
project's file is the nearest `dtkpipe.toml`, or `pyproject.toml` with a table [tool.dtkpipe], in this folder or above
it; the user's is $XDG_CONFIG_HOME/dtkpipe/dtkpipe.toml. DTKPIPE_CONFIG names one file to read instead of both.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dtkpipe.errors import InvalidError

Kind = Literal["text", "path", "list"]


@dataclass(frozen=True, kw_only=True)
class Key:
    """One setting. A `path` is relative to the file that it is written in; in the environment, a `list` has commas."""

    name: str
    doc: str
    kind: Kind = "text"
    default: str = ""

    @property
    def variable(self) -> str:
        """The variable of the environment that sets it."""
        return f"DTKPIPE_{self.name.upper().replace('-', '_')}"


KEYS = (
    Key(name="engine", doc="Engine that runs pipelines: argo, tekton, local (default: the one that is found)"),
    Key(name="context", doc="Context of the kubeconfig: which cluster runs are on"),
    Key(name="namespace", doc="Namespace that runs are in"),
    Key(name="release", doc="What to build for: 4.14, debian-12"),
    Key(name="arch", doc="Architecture of the target"),
    Key(name="variant", doc="Kernel flavour: std, rt, 64k, cloud"),
    Key(name="push-to", doc="Repository for finished images"),
    Key(name="staging", doc="Repository for candidates"),
    Key(name="toolkit-repo", doc="Repository for toolkits made from packages"),
    Key(name="sign-key", doc="File of the private key that signs modules", kind="path"),
    Key(name="sign-cert", doc="File of its certificate", kind="path"),
    Key(name="sign-passphrase-file", doc="File of the key's passphrase", kind="path"),
    Key(name="auth-file", doc="File with credentials for registries", kind="path"),
    Key(name="registry-ca", doc="File of certificates (PEM) to trust for registries", kind="path"),
    Key(name="registry-mirrors", doc="File of mirror sets (ICSP, IDMS, ITMS) for registries", kind="path"),
    Key(name="insecure-registries", doc="Hosts of registries without TLS", kind="list"),
)
_OTHER_VARIABLES = (
    "DTKPIPE_CACHE",
    "DTKPIPE_STATE",
    "DTKPIPE_CONFIG",
    "DTKPIPE_WORK",
    "DTKPIPE_KEEP",
    "DTKPIPE_RETRIES",
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value and where it comes from. A list is a tuple; paths are absolute."""

    key: Key
    value: str | tuple[str, ...]
    origin: str


def load(environ: Mapping[str, str], here: Path) -> dict[str, Setting]:
    """Return every setting by name. Raises InvalidError for unknown keys, wrong types and files that cannot be read."""
    found = {
        key.name: Setting(key=key, value=() if key.kind == "list" else key.default, origin="default") for key in KEYS
    }
    for file in _files(environ, here):
        for name, value in _table(file).items():
            key = _known(name, str(file))
            found[name] = Setting(key=key, value=_typed(key, value, file), origin=str(file))
    for variable, text in environ.items():
        if not variable.startswith("DTKPIPE_") or variable in _OTHER_VARIABLES:
            continue
        key = _known(variable.removeprefix("DTKPIPE_").lower().replace("_", "-"), "the environment", variable)
        value = tuple(part.strip() for part in text.split(",") if part.strip()) if key.kind == "list" else text
        if key.kind == "path" and text:
            value = str(here / Path(text).expanduser())
        found[key.name] = Setting(key=key, value=value, origin=variable)
    return found


def _files(environ: Mapping[str, str], here: Path) -> Iterator[Path]:
    """Give the files to read, the weakest first."""
    if (only := environ.get("DTKPIPE_CONFIG")) is not None:
        if only:
            yield Path(only)
        return
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/root")) / ".config")
    user = Path(home) / "dtkpipe" / "dtkpipe.toml"
    if user.is_file():
        yield user
    for folder in (here, *here.parents):
        own, shared = folder / "dtkpipe.toml", folder / "pyproject.toml"
        if own.is_file():
            yield own
            return
        if shared.is_file() and _table(shared):
            yield shared
            return


def _table(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        data = tomllib.loads(file.read_text())
    except OSError as error:
        raise InvalidError(f"the settings cannot be read: {file}", str(error.strerror)) from error
    except ValueError as error:
        raise InvalidError(f"{file} is not TOML", str(error)) from error
    table = data.get("tool", {}).get("dtkpipe", {}) if file.name == "pyproject.toml" else data
    if not isinstance(table, dict):
        raise InvalidError(f"{file}: [tool.dtkpipe] is not a table")
    return table


def _known(name: str, where: str, written: str = "") -> Key:
    for key in KEYS:
        if key.name == name:
            return key
    names = [key.name for key in KEYS]
    near = difflib.get_close_matches(name, names, n=1)
    meant = [key.variable if written else key.name for key in KEYS if key.name in near]
    raise InvalidError(
        f"there is no setting `{written or name}`", f"in {where}",
        hint=f"did you mean `{meant[0]}`?" if meant else "dtkpipe config show",
    )  # fmt: skip


def _typed(key: Key, value: Any, file: Path) -> str | tuple[str, ...]:
    if key.kind == "list":
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise InvalidError(f"{file}: `{key.name}` is a list of strings, not {value!r}")
    if not isinstance(value, str):
        raise InvalidError(f"{file}: `{key.name}` is a string, not {value!r}", hint=f'{key.name} = "{value}"')
    return str(file.parent.absolute() / Path(value).expanduser()) if key.kind == "path" and value else value
