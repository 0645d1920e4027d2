"""Part of build: the folder through which the three containers of a build with kaniko hand over their work.

kaniko needs an image and a container of its own, which has no Python and no shell: it unpacks the toolkit over its own
root and runs the author's commands there. So the first container lays out what is to be built, kaniko builds and
pushes, and the last one judges. The first two leave their failures to the last one: only that is heard on every engine.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dtkpipe import errors
from dtkpipe.errors import DtkpipeError, InvalidError, NotAllowedError, RunFailedError, UnreachableError, how_ended
from dtkpipe.resources import shipped
from dtkpipe.source.fetch import Fetched
from dtkpipe.steps.build.image import Builder, Plan
from dtkpipe.tools.busybox import static_busybox
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef

_ATTEMPTS = 5
"""Of kaniko for one download or upload; it waits 1, 2, 4, ... seconds between them."""
_REFUSED = re.compile(r"UNAUTHORIZED|DENIED|unauthorized|authentication required|status code 40[13]")
_UNREACHABLE = re.compile(
    r"dial tcp|i/o timeout|TLS handshake|connection (?:reset|refused)|no such host|x509:|unexpected EOF|"
    r"status code 5\d\d|TOOMANYREQUESTS"
)
_COMMAND = re.compile(r"failed to execute command: (?:waiting for process to exit|starting command)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Handover:
    """The folder, in a volume of the pod."""

    folder: Path

    def install(self, cache: Path) -> None:
        """Put the program of kaniko's container there: a script and its shell."""
        self.folder.mkdir(parents=True, exist_ok=True)
        busybox = self.folder / "busybox"
        shutil.copy(static_busybox(Arch.host(), cache), busybox)
        program = self.folder / "run"
        program.write_text(f"#!{busybox} sh\n{shipped('catalog/recipes/kaniko').read_text()}")
        for file in (busybox, program):
            file.chmod(0o755)

    def order(self, builder: Builder, candidate: ImageRef) -> None:
        """Lay out what kaniko is to build, and say what it has to know, a flag a line."""
        plan, access = builder.plan(), builder.registry.access
        fetched = {name: str(value) for name, value in asdict(builder.fetched).items()}
        self._write("source.json", json.dumps({**fetched, "own": plan.own}))
        if access.ca:
            self._write("ca.crt", access.ca)
        flags = list(self._flags(plan, candidate, access))
        if odd := next((flag for flag in flags if "\n" in flag), ""):
            raise InvalidError("kaniko takes no argument of several lines", odd[:80], hint="--builder buildah")
        self._write("flags", "".join(f"{flag}\n" for flag in flags))

    def _flags(self, plan: Plan, candidate: ImageRef, access: RegistryAccess) -> Iterator[str]:
        yield f"--context=dir://{plan.context}"
        yield f"--dockerfile={plan.file}"
        yield f"--destination={candidate}"
        yield f"--digest-file={self.folder / 'digest'}"
        yield from (f"--build-arg={name}={value}" for name, value in plan.args.items())
        yield from (f"--insecure-registry={host}" for host in access.insecure)
        if access.ca:
            hosts = dict.fromkeys(image.registry for image in (candidate, *plan.bases))
            yield from (f"--registry-certificate={host}={self.folder / 'ca.crt'}" for host in hosts)
        yield from (f"--{what}-retry={_ATTEMPTS}" for what in ("push", "image-download"))
        # `--force`: it cannot always tell that it is in a container. One snapshot: only the last layer counts.
        yield from ("--force", "--skip-push-permission-check", "--single-snapshot", "--log-format=text")

    def leave(self, error: DtkpipeError) -> None:
        """Leave a failure to the last container."""
        facts = {"code": error.exit_code, "what": error.what, "details": error.details, "hint": error.hint}
        self._write("failure.json", json.dumps(facts))

    def source(self) -> tuple[Fetched, bool]:
        """Return the source that was fetched, and whether the image is laid out by us. Raises what was left."""
        if (left := self.folder / "failure.json").exists():
            facts = json.loads(left.read_text())
            raise _error(facts["code"])(facts["what"], *facts["details"], hint=facts["hint"])
        facts = json.loads((self.folder / "source.json").read_text())
        own = bool(facts.pop("own"))
        return replace(Fetched(**facts), root=Path(facts["root"]), folder=Path(facts["folder"])), own

    def digest(self, builder: Builder) -> str:
        """Return the digest of what kaniko pushed. Raises what keeps it from building, pushing or compiling."""
        try:
            status = int((self.folder / "status").read_text())
            log = (self.folder / "log").read_text(errors="replace")
        except (FileNotFoundError, ValueError) as error:
            raise RunFailedError("kaniko did not come to its end", "its container was killed") from error
        if status == 0:
            return (self.folder / "digest").read_text().strip()
        said = [line for line in _COLOUR.sub("", log).splitlines() if line.strip()]
        last = next((line for line in reversed(said) if line.startswith("error ")), said[-1] if said else "")
        if _COMMAND.search(last):
            raise builder.command_failed("\n".join(said[:-1]))
        if _REFUSED.search(last):
            raise NotAllowedError("a registry refuses kaniko", last[:500])
        if _UNREACHABLE.search(last):
            raise UnreachableError("an image cannot be fetched or pushed", last[:500])
        raise RunFailedError(f"kaniko {how_ended(status)}", *said[-3:])

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


def _error(code: int) -> type[DtkpipeError]:
    kinds = (one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, DtkpipeError))
    return next((one for one in kinds if one.exit_code == code), DtkpipeError)
