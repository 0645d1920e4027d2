"""From what was asked (a release, a kernel, an image) to a toolkit and its kernel, by the ways there are.

In this order: the lock; the payload of the release in its registry. Each can be asked for alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dtkpipe.errors import DtkpipeError, NotAllowedError, NotFoundError, RunFailedError, UnreachableError
from dtkpipe.releases.answer import EQUAL, NOT_CHECKED, OVERRIDDEN, Answer, choose_kernel, choose_stream
from dtkpipe.releases.images import CONTENT, Stream, release_image
from dtkpipe.releases.lock import Lock
from dtkpipe.releases.row import Row
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.version import Version, Wanted, nearest

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry
    from dtkpipe.releases.payload import Payload

LOCK, PAYLOAD, REDHAT = "lock", "payload", "redhat"
WAYS = (LOCK, PAYLOAD, REDHAT)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is wanted of a release."""

    arch: Arch
    variant: str = "std"
    stream: str = ""
    """Stream of the operating system; "" is the one that new clusters get."""
    allow_mismatch: bool = False
    """Take a toolkit whose kernel is not that of its operating system."""
    via: str = ""
    """One of WAYS; "" is the lock, then the payload."""


@dataclass(frozen=True, kw_only=True)
class Resolver:
    """Answers questions. `registry` and `channel` are only called when the lock does not know."""

    lock: Lock
    registry: Callable[[], Registry]
    channel: Callable[[str, Arch], list[Version]]
    """Returns the versions in a channel of the update graph."""
    releases: ImageRef | None = None
    """Repository of the images of releases, instead of the usual ones."""

    def release(self, wanted: Wanted, choice: Choice) -> Answer:
        """Resolve a release. Raises NotFoundError, NotAllowedError, UnreachableError, RunFailedError."""
        if choice.via == REDHAT:
            return self._redhat(wanted, choice)
        version, how = self._version(wanted, choice)
        rows = self.lock.find(version, choice.arch)
        row = _of_stream(rows, choice.stream, version)
        if row and row.withdrawn:
            near = ", ".join(map(str, nearest(version, self.lock.versions(version.line), 2)))
            how = (*how, f"OpenShift {version} was withdrawn ({row.withdrawn}); nearest that stand: {near or 'none'}")
        if row and row.toolkit and choice.via != PAYLOAD and (_knows(row, choice.variant) or choice.via == LOCK):
            return self._locked(row, rows, choice, how)
        if choice.via == LOCK:
            raise self._unknown(version, choice, row)
        if row and row.toolkit and choice.via != PAYLOAD:
            names = tuple(one.stream for one in rows)
            return self._inspected(_stream(row), row, names, choice, (*how, _from_lock(row)))
        payload, place = self._payload(version, choice, row)
        return self._of_payload(payload, choice, (*how, f"toolkit from the release payload {place}"))

    def release_image(self, image: ImageRef, choice: Choice) -> Answer:
        """Resolve the image of a release."""
        from dtkpipe.releases.payload import read

        payload = read(self.registry(), image, choice.arch)
        return self._of_payload(payload, choice, (f"toolkit from the release payload {payload.image}",))

    def kernel(self, kernel: Kernel, choice: Choice) -> Answer:
        """Find a release whose toolkit is for a kernel. Raises NotFoundError with the nearest kernels."""
        told = Kernel(kernel.release.removesuffix("+64k"))  # no row has those with 64k pages: they are derived
        rows = self.lock.with_kernel(told)
        if not rows:
            near = ", ".join(self.lock.kernels_near(kernel))
            raise NotFoundError(
                f"no release is known to have kernel {kernel}", f"nearest in the lock: {near or 'none'}",
                hint="name its release with --release, or its toolkit with --toolkit IMAGE",
            )  # fmt: skip
        best = max(rows, key=lambda row: (not row.withdrawn, bool(row.toolkit), row.order))
        words = f"kernel {kernel} is that of OpenShift {', '.join(dict.fromkeys(str(row.version) for row in rows))}"
        asked = replace(choice, arch=best.arch, variant=kernel.variant, stream=best.stream)
        answer = self.release(Wanted(str(best.version), exact=best.version), asked)
        return replace(answer, how=(words, *answer.how))

    def toolkit(self, image: ImageRef, choice: Choice) -> Answer:
        """Tell the kernel of a toolkit image, without pulling it."""
        from dtkpipe.releases.inspect import toolkit_kernels

        registry = self.registry()
        manifest = registry.manifest(image, choice.arch)
        here = image.at(manifest.digest)
        kernels, where = toolkit_kernels(registry, here, choice.arch, _variants(choice))
        kernel, derived = choose_kernel(kernels, choice.variant, choice.arch, str(image))
        rows = [row for row in self.lock if row.toolkit in (here.digest, image.digest)]
        how = ("toolkit image given by hand", f"kernel {where}", *_some(derived))
        return Answer(
            arch=choice.arch, toolkit=here, kernel=kernel, kernels=kernels, how=how,
            release=str(rows[-1].version) if rows else "", stream=rows[-1].stream if rows else "",
        )  # fmt: skip

    def _version(self, wanted: Wanted, choice: Choice) -> tuple[Version, tuple[str, ...]]:
        """Return the one version that is meant, and in words why that one."""
        if wanted.exact:
            return wanted.exact, ()
        if wanted.channel:
            version = wanted.pick(self.channel(wanted.channel, choice.arch))
            if not version:
                raise NotFoundError(f"channel {wanted} has no release of its own line", hint="dtkpipe catalog list")
            return version, (f"{wanted} is {version}: the newest in that channel of the update graph",)
        version = self.lock.newest(wanted)
        if not version:
            lines = ", ".join(f"{major}.{minor}" for major, minor in self.lock.lines)
            raise NotFoundError(
                f"no release is known that is {wanted}", f"looked in: {self.lock.folder}",
                f"it has releases of: {lines or 'nothing'}",
                hint=f"name the release in full, e.g. {_example(wanted)}, or a channel, e.g. stable-4.16",
            )  # fmt: skip
        kind = "pre-release" if version.pre else "release"
        return version, (f"{wanted} is {version}: the newest such {kind} that the lock knows",)

    def _locked(self, row: Row, rows: list[Row], choice: Choice, how: tuple[str, ...]) -> Answer:
        streams = tuple(one.stream for one in rows)
        answer = _answer(_stream(row), row, streams, choice, (*how, _from_lock(row)))
        if not row.kernels:
            return replace(answer, missing=NotFoundError(f"the lock does not know the kernel of {row.name}"))
        kernel, derived = choose_kernel(row.kernels, choice.variant, choice.arch, row.name)
        answer = replace(answer, how=(*answer.how, *_some(derived)))
        standard = row.kernels.get("std")
        system = row.os_kernel or (standard if row.complete else None)
        return self._gated(replace(answer, kernel=kernel, kernels=row.kernels, os_kernel=system), choice)

    def _of_payload(self, payload: Payload, choice: Choice, how: tuple[str, ...]) -> Answer:
        names = tuple(stream.name for stream in payload.streams)
        name = choose_stream(names, choice.stream, payload.version.major, f"OpenShift {payload.version}")
        stream = next(one for one in payload.streams if one.name == name)
        rows = [row for row in self.lock.find(payload.version, payload.arch) if row.stream == name]
        row = Row(
            version=payload.version, arch=payload.arch, stream=name, toolkit=stream.toolkit.digest, rhcos=stream.rhcos,
            os_image=stream.os_image.digest if stream.os_image else "", source=("registry",),
        )  # fmt: skip
        return self._inspected(stream, rows[0].merged(row) if rows else row, names, choice, how)

    def _inspected(
        self, stream: Stream, row: Row, names: tuple[str, ...], choice: Choice, how: tuple[str, ...]
    ) -> Answer:
        """Read the kernels of a stream; where its registry does not let us, the lock's word counts."""
        from dtkpipe.releases.inspect import kernels

        found = kernels(self.registry(), stream, choice.arch, _variants(choice))
        if isinstance(found.toolkit_error, RunFailedError):
            raise found.toolkit_error
        read = replace(row, kernels=found.told, source=("registry",), date="")
        told: Mapping[str, Kernel] = row.merged(read).kernels
        if found.told:
            how = (*how, f"kernel {found.where}, read at {stream.toolkit.name}")
        elif told:
            how = (*how, f"kernel from the lock ({row.origin})")
        if found.os_error:
            how = (*how, f"operating system not read: {found.os_error.what}")
        answer = replace(_answer(stream, row, names, choice, how), kernels=told, os_kernel=found.os_kernel)
        if found.toolkit_error and not _knows(row, choice.variant):
            return replace(answer, missing=found.toolkit_error)
        kernel, derived = choose_kernel(told, choice.variant, choice.arch, row.name)
        return self._gated(replace(answer, kernel=kernel, how=(*how, *_some(derived))), choice)

    def _gated(self, answer: Answer, choice: Choice) -> Answer:
        """Compare the kernels of toolkit and operating system. Raises RunFailedError where they differ."""
        system = answer.os_kernel
        standard = next((one for name, one in answer.kernels.items() if name not in ("rt", "64k")), None)
        if not standard or not system:
            return replace(answer, gate=NOT_CHECKED)
        if standard == system:
            return replace(answer, gate=EQUAL)
        if choice.allow_mismatch:
            words = f"overridden: the operating system has kernel {system}, the toolkit is for {standard}"
            return replace(answer, gate=OVERRIDDEN, how=(*answer.how, words))
        closest = self._closest(Version.parse(answer.release), system, choice.arch)
        raise RunFailedError(
            f"the toolkit of OpenShift {answer.release} {answer.arch} is not for the kernel of its operating system",
            f"toolkit: {standard}",
            f"operating system: {system}",
            f"closest good release: {closest or 'none is known'}",
            hint="modules built with it would not load; to build anyway: --allow-kernel-mismatch",
        )

    def _closest(self, version: Version, kernel: Kernel, arch: Arch) -> str:
        """Return the nearest release whose toolkit is for `kernel`, or else one whose kernels are known to be equal."""
        good = [row for row in self.lock.rows(version.line) if row.arch == arch and row.toolkit and not row.os_kernel
                and row.version != version]  # fmt: skip
        same = [row.version for row in good if row.kernels.get("std") == kernel]
        near = nearest(version, same or [row.version for row in good if row.complete], 1)
        return f"{near[0]}{f' (toolkit for {kernel})' if same else ''}" if near else ""

    def _payload(self, version: Version, choice: Choice, row: Row | None) -> tuple[Payload, ImageRef]:
        """Read the payload of a release. An error tells what the lock knows, and what exists nearby."""
        from dtkpipe.releases.payload import NoToolkitError, read

        image = release_image(version, choice.arch, self.releases)
        registry = self.registry()
        failed: DtkpipeError = NotFoundError(f"nobody has {image}")
        # oc-mirror puts the images of releases, with their tags, where the mirrors for digests are.
        for place in (*registry.access.mirrors.digest_mirrors(image), image):
            try:
                return read(registry, place, choice.arch, version), place
            except NoToolkitError:
                raise
            except (NotFoundError, NotAllowedError, UnreachableError) as error:
                failed = error
        known = [one for line in self.lock.lines for one in self.lock.versions(line)]
        near = ", ".join(map(str, nearest(version, known)))
        if isinstance(failed, NotFoundError) and not row:
            raise NotFoundError(
                f"there is no OpenShift {version} for {choice.arch}", failed.what, f"nearest that are known: {near}",
                hint=f"dtkpipe catalog list --minor {version.major}.{version.minor}",
            ) from failed  # fmt: skip
        knows = f"the lock knows of it: {row.knowledge}" if row else "the lock does not know it"
        raise type(failed)(failed.what, *failed.details, knows, hint=failed.hint) from failed

    def _redhat(self, wanted: Wanted, choice: Choice) -> Answer:
        """Take the toolkit of Red Hat's catalogue. Its tags move: they say which line, never which release."""
        major, minor = wanted.line or (0, 0)
        if not minor:
            raise NotFoundError(
                f"Red Hat's catalogue has toolkits of minor versions, not of {wanted}",
                hint="--release 4.14 --via redhat",
            )
        rhel = choice.stream or ("rhel-8" if (major, minor) <= (4, 12) else "rhel-9" if major < 5 else "rhel-10")
        image = ImageRef(
            "registry.redhat.io", f"openshift{major}/driver-toolkit-{rhel.replace('-', '')}", tag=f"v{major}.{minor}"
        )
        answer = self.toolkit(image, choice)
        words = f"toolkit from {image}: it is that of the newest release of {wanted}, and moves with it"
        return replace(answer, stream=answer.stream or rhel, how=(words, *answer.how[1:]))

    def _unknown(self, version: Version, choice: Choice, row: Row | None) -> NotFoundError:
        known = self.lock.versions(version.line) or [one.version for one in self.lock]
        return NotFoundError(
            f"the lock does not know the toolkit of OpenShift {version} for {choice.arch}",
            f"it knows: {row.knowledge}" if row else f"nearest: {', '.join(map(str, nearest(version, known)))}",
            hint=f"ask the registry: dtkpipe resolve --release {version} --arch {choice.arch} --via payload",
        )


def resolver_for(
    folder: Path, registry: Callable[[], Registry], graph: str = "", releases: ImageRef | None = None
) -> Resolver:
    """Return a resolver for the lock in `folder`; `registry` is only called when the lock does not know.

    `graph` is the URL of the update graph, "" for the public one; `releases` the repository of the images of releases.
    """

    def channel(name: str, arch: Arch) -> list[Version]:
        from dtkpipe.clients.graph import PUBLIC, read

        return list(read(registry().access, name, arch, graph or PUBLIC).nodes)

    return Resolver(lock=Lock(folder), registry=registry, channel=channel, releases=releases)


def _of_stream(rows: list[Row], asked: str, version: Version) -> Row | None:
    if not rows or (asked and asked not in [row.stream for row in rows]):
        return None
    name = choose_stream(tuple(row.stream for row in rows), asked, version.major, str(version))
    return next(row for row in rows if row.stream == name)


def _knows(row: Row, variant: str) -> bool:
    return variant in row.kernels or (variant == "64k" and "std" in row.kernels)


def _stream(row: Row) -> Stream:
    return Stream(
        name=row.stream, toolkit=CONTENT.at(row.toolkit), rhcos=row.rhcos,
        os_image=CONTENT.at(row.os_image) if row.os_image else None,
    )  # fmt: skip


def _answer(stream: Stream, row: Row, streams: tuple[str, ...], choice: Choice, how: tuple[str, ...]) -> Answer:
    return Answer(
        arch=choice.arch, toolkit=stream.toolkit, kernel=None, release=str(row.version), stream=stream.name,
        streams=streams, os_image=stream.os_image, rhcos=stream.rhcos, how=how,
    )  # fmt: skip


def _from_lock(row: Row) -> str:
    return f"toolkit from the lock ({row.origin})"


def _variants(choice: Choice) -> tuple[str, ...]:
    return ("rt",) if choice.variant == "rt" else ()


def _some(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _example(wanted: Wanted) -> str:
    return f"{wanted}.0" if wanted.text.count(".") == 1 else "4.16.3"
