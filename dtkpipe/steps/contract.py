"""The contract of a step: a dataclass in, a dataclass out, one function.

    @dataclass(frozen=True, kw_only=True)
    class Args: ...        # every field made by arg()
    @dataclass(frozen=True, kw_only=True)
    class Results: ...     # every field made by result()
    def run(args: Args, room: Room) -> Results: ...

The step's command line, its Tekton params and results, its Argo inputs and outputs and the reference pages are all
derived from the two dataclasses. Field `sign_cert` is input `sign-cert` and flag `--sign-cert`; result `image_url` is
`IMAGE_URL` and is written to the file given by `--result-image-url`.

Modules of steps import only what is cheap at the top; heavy imports belong into run().
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, get_type_hints

from dtkpipe.errors import RunFailedError, UnreachableError, UsageError

if TYPE_CHECKING:
    from dtkpipe.values.access import RegistryAccess


def arg(doc: str, default: Any = MISSING) -> Any:
    """Declare one input of a step. Without a default it is required."""
    return (
        dataclasses.field(metadata={"doc": doc})
        if default is MISSING
        else dataclasses.field(default=default, metadata={"doc": doc})
    )


def result(doc: str, default: Any = "") -> Any:
    """Declare one result of a step: a short string without a newline at its end."""
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class Room:
    """What a step may use of the machine it runs on."""

    work: Path
    """A folder of its own, empty at the start and gone with the pod (/workspace)."""
    cache: Path
    """A folder for what can be made again; may be empty, may be shared by steps that run at the same time."""
    environ: Mapping[str, str]
    say: Callable[[str], None]
    """Tells the user one line (stderr)."""
    document: Callable[[Mapping[str, Any]], None] = lambda _: None
    """Takes the step's whole answer, a JSON object: what `-o json` prints instead of the results, refused or not."""
    keep: Path | None = None

    def again(self, number: int) -> Room:
        """Return the room for attempt `number`, counted from 0: each has an empty folder."""
        folder = self.work / f"attempt-{number + 1}" if number else self.work
        folder.mkdir(exist_ok=True)
        return replace(self, work=folder)

    @property
    def echo(self) -> IO[bytes] | None:
        """Where a program's output goes besides its log: to people at once, where the log goes with the pod."""
        return None if self.keep else sys.stderr.buffer

    @property
    def kept(self) -> Path:
        """The folder for what people may want to read afterwards: logs, evidence. Outlives `work` where it can."""
        folder = self.keep or self.work / "evidence"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True, kw_only=True)
class RegistryArgs:
    """Inputs of every step that talks to a registry. Credentials come from REGISTRY_AUTH_FILE, never from argv."""

    insecure_registries: tuple[str, ...] = arg("Hosts (host:port) that may be spoken to without TLS", ())
    registry_ca: str = arg("Certificates (PEM) of authorities to trust for registries, besides the system's", "")
    registry_mirrors: str = arg("Mirror sets (ICSP, IDMS, ITMS) whose mirrors images are read from", "")

    def access(self, environ: Mapping[str, str]) -> RegistryAccess:
        """Return how registries may be spoken to. Raises InvalidError."""
        from dtkpipe.values.access import access_from

        return access_from(self.insecure_registries, self.registry_ca, environ, self.registry_mirrors)


class StepRefusedError(RunFailedError):
    """The step did its work, and its answer is no: it ends with exit code 10, and its results are written anyway."""

    def __init__(self, what: str, *details: str, results: Any, hint: str = "") -> None:
        super().__init__(what, *details, hint=hint)
        self.results = results


RETRIES = "DTKPIPE_RETRIES"
"""Variable of the environment: how often a step may repeat itself. Not set: never, whoever started it decides."""
PAUSE = 10.0
"""Seconds before the first repetition; twice as long before each further one."""


def repeated(
    attempt: Callable[[int], Any], environ: Mapping[str, str], say: Callable[[str], None],
    wait: Callable[[float], None] = time.sleep,
) -> Any:  # fmt: skip
    """Return what `attempt(0)` gives, or `attempt(1)` where a place did not answer (UnreachableError), and so on.

    Nothing else is repeated, on every engine the same: Tekton could only repeat a task after any failure, a compile
    error and a refusal included. Raises what the last attempt raises.
    """
    text = environ.get(RETRIES, "")
    retries = int(text) if text.isdecimal() else 0
    for number in range(retries):
        try:
            return attempt(number)
        except UnreachableError as error:
            pause = PAUSE * 2**number
            for line in (error.what, *error.details):
                say(line)
            say(f"not reachable: again in {pause:.0f} s ({number + 1} of {retries})")
            wait(pause)
    return attempt(retries)


def flag(field_name: str) -> str:
    """Return the input's name as engines and command lines spell it: `sign_cert` is `sign-cert`."""
    return field_name.replace("_", "-")


def render(value: Any) -> str:
    """Write a default as the string that engines pass: lists as JSON, booleans as true/false, None as empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return json.dumps(list(value))
    return str(value)


def parse_args(cls: type[Any], given: Mapping[str, str]) -> Any:
    """Build `cls` from flag name -> string. An empty string means "not given". Raises UsageError."""
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        text = given.get(flag(field.name), "")
        if text == "":
            if field.default is MISSING:
                raise UsageError(f"--{flag(field.name)} is required", str(field.metadata["doc"]))
            continue
        values[field.name] = _parse(flag(field.name), hints[field.name], text)
    return cls(**values)


def _parse(name: str, kind: Any, text: str) -> Any:
    choices = getattr(kind, "__args__", ())
    if type(None) in choices:
        kind = next(choice for choice in choices if choice is not type(None))
    if kind is str:
        return text
    if kind is bool:
        if text not in ("true", "false"):
            raise UsageError(f"--{name} takes true or false, not `{text}`")
        return text == "true"
    if kind is int:
        if not text.isdecimal():
            raise UsageError(f"--{name} takes a whole number, not `{text}`")
        return int(text)
    if getattr(kind, "__origin__", None) is tuple:
        try:
            items = json.loads(text)
        except ValueError as error:
            raise UsageError(f"--{name} takes a JSON list of strings", f"got: {text[:80]}") from error
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise UsageError(f"--{name} takes a JSON list of strings", f"got: {text[:80]}")
        return tuple(items)
    return kind.parse(text)
