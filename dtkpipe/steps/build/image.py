"""Part of build: from a recognised source to an image in buildah's storage."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.clients.registry import Registry
from dtkpipe.errors import DtkpipeError, InvalidError, RunFailedError, UnreachableError
from dtkpipe.source import containerfile, recipe
from dtkpipe.source.diagnosis import first_cause, hint
from dtkpipe.source.fetch import Fetched
from dtkpipe.source.recipe import Target
from dtkpipe.source.recognise import Recognised
from dtkpipe.source.tree import read_text
from dtkpipe.steps.contract import Room
from dtkpipe.toolkits.base import driver_base
from dtkpipe.toolkits.distribution import distributions
from dtkpipe.toolkits.plan import Suite
from dtkpipe.tools import process
from dtkpipe.tools.buildah import Buildah
from dtkpipe.tools.process import ProcessFailedError
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef

_NETWORK = re.compile(
    r"^(?:Error|error).*(?:pinging container registry|dial tcp|i/o timeout|TLS handshake|connection reset|"
    r"no such host|received unexpected HTTP status: 5\d\d|toomanyrequests).*$",
    re.MULTILINE,
)
_COMMAND_FAILED = re.compile(r'building at STEP "RUN ')
_WHAT = {"": "does not compile for kernel {kernel}"}
_OTHERWISE = "cannot be built for kernel {kernel}"


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image in buildah's storage. `own`: laid out by us, for the target's architecture whatever the builder's."""

    id: str
    own: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an image builder is given."""

    context: Path
    file: Path
    args: Mapping[str, str]
    network: bool
    bases: tuple[ImageRef, ...]
    """Images that stages begin with, as far as they have full names; the toolkit is among them."""
    own: bool
    """Whether the image is laid out by us."""


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Builds one module for one kernel."""

    registry: Registry
    toolkit: ImageRef
    target: Target
    fetched: Fetched
    found: Recognised
    given: Mapping[str, str]
    """Build arguments from the command line."""
    hermetic: bool
    room: Room

    @property
    def buildah(self) -> Buildah:
        """The builder's own storage, shared by all runs on the machine."""
        return Buildah(self.room.cache / "containers", self.registry.access)

    @property
    def log(self) -> Path:
        """Everything the builder said."""
        return self.room.kept / "build.log"

    def build(self) -> Image:
        """Build. Raises RunFailedError with the first cause, InvalidError for arguments that nobody declares."""
        plan = self.plan()
        for base in plan.bases if self.hermetic else (self.toolkit,):
            self.buildah.pull(base)
        image = self._run(plan)
        return Image(id=image, own=plan.own)

    def plan(self) -> Plan:
        """Lay out what is to be built. Raises InvalidError."""
        return self._from_containerfile() if self.found.spec.build.containerfile else self._from_recipe()

    def _from_recipe(self) -> Plan:
        context = self.room.work / "context"
        file = recipe.context(
            self.fetched.root, self.fetched.folder, self.found, self.target, self.given, context
        )  # fmt: skip
        network = self._packages(context)
        self._base(context)
        args = {"DTK_AUTO": str(self.toolkit), **self._own_arguments()}
        return Plan(context=context, file=file, args=args, network=network, bases=(self.toolkit,), own=True)

    def _from_containerfile(self) -> Plan:
        context = self.fetched.folder
        file = context / self.found.spec.build.containerfile
        parsed = containerfile.parse(read_text(file))
        if not parsed.stages:
            raise InvalidError(f"{file.name} has no FROM")
        spec = self.found.spec
        args = recipe.arguments(
            parsed, spec, self.target, str(self.toolkit), {**spec.build.args, **self.given}
        )  # fmt: skip
        bases = [self.toolkit]
        for base in parsed.bases(args):
            with contextlib.suppress(InvalidError):  # not a full reference: the builder says what it makes of it
                bases.append(ImageRef.parse(base))
        if own := parsed.final_base(args) == str(self.toolkit):
            self.room.say("the Containerfile's image is the toolkit itself: its modules go into an image of their own")
            file = recipe.repack(self.found, parsed, context)
            self._base(file.parent)
            args |= self._own_arguments()
        return Plan(
            context=context, file=file, args=args, network=not self.hermetic, bases=tuple(dict.fromkeys(bases)),
            own=own,
        )  # fmt: skip

    def _own_arguments(self) -> dict[str, str]:
        return {"KERNEL_FULL_VERSION": self.target.kernel.release, "MACHINE": self.target.arch.name}

    def _base(self, context: Path) -> None:
        shutil.copy(driver_base(self.target.arch, self.room.cache, self.room.say), context / "base.tar")

    def _packages(self, context: Path) -> bool:
        """Bring the packages that the spec asks for; tell whether the build needs network for them.

        A toolkit made of a distribution's packages has no package manager: it gets their files.
        """
        packages = self.found.spec.build.packages
        if not packages:
            return False
        config = self.registry.config(self.toolkit)
        names = config.labels.get("dtkpipe.releases", "").split()
        distribution = next((one for one in distributions() if one.name in names), None)
        if not distribution:
            self.room.say(f"the toolkit installs {', '.join(packages)}: this build has network")
            (context / "plan" / "packages").write_text("".join(f"{name}\n" for name in packages))
            return True
        host = Arch.parse(config.architecture)
        archive = Suite(distribution, self.target.arch, host, self.room.cache, self.room.say).tools_from
        there = distribution.packages(self.target.arch, host)
        there_already = archive.closure(there)
        more = [package for package in archive.closure([*there, *packages]) if package not in there_already]
        _unpack(archive.fetch(more), context / "packages")
        return False

    def _run(self, plan: Plan) -> str:
        try:
            return self.buildah.build(
                plan.context, plan.file, args=plan.args, network=plan.network, log=self.log, echo=self.room.echo
            )
        except ProcessFailedError as error:
            raise self.failed(error.finished.output) from error

    def failed(self, output: str) -> DtkpipeError:
        """Return why an image could not be built, from all that buildah said."""
        if found := _NETWORK.search(output):
            return UnreachableError("an image that the build needs cannot be fetched", found[0][:500])
        if not _COMMAND_FAILED.search(output):
            lines = [line for line in output.splitlines() if line.strip()]
            return RunFailedError("the image builder failed", *lines[-3:], *self._where())
        return self.command_failed(output)

    def command_failed(self, output: str) -> DtkpipeError:
        """Return why a command of the build failed, from all that was said until then."""
        cause = first_cause(output)
        if cause.kind == "excluded":
            return recipe.excluded(self.found.spec, self.target, cause.lines[0])
        what = _WHAT.get(cause.kind, _OTHERWISE).format(kernel=self.target.kernel)
        return RunFailedError(
            f"`{self.found.spec.name}` {what}", *cause.lines, *self._where(), hint=hint(cause)
        )  # fmt: skip

    def _where(self) -> tuple[str, ...]:
        return (f"whole log: {self.log}",) if self.room.keep else ()


def _unpack(debs: Sequence[Path], into: Path) -> None:
    """Lay the files of packages out for a merged /usr; nothing of a package is run."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (into / "usr" / name).mkdir(parents=True)
        (into / name).symlink_to(f"usr/{name}")
    for deb in debs:
        process.run(["dpkg-deb", "--extract", deb, into])
    for name in ("bin", "sbin", "lib", "lib64"):
        (into / name).unlink()
