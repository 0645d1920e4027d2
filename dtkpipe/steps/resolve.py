"""resolve: from a release, a kernel or a toolkit image to one toolkit by digest and the exact kernel it is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtkpipe.errors import NotFoundError, UnsupportedError, UsageError
from dtkpipe.releases.answer import NOT_CHECKED
from dtkpipe.resources import shipped
from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.arch import BUILT, Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.release import DistributionRelease, parse_release
from dtkpipe.values.version import Wanted

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """What to build for. One of release, kernel and toolkit is enough."""

    release: str = arg("OpenShift release or distribution: 4.14, 4.14.38, debian-12", "")
    kernel: str = arg("Kernel release, as `uname -r` prints it", "")
    toolkit: str = arg("Driver Toolkit image to use instead of looking for one", "")
    arch: str = arg("Architecture of the target: x86_64, aarch64", "")
    variant: str = arg("Kernel flavour: std, rt, 64k, cloud", "")
    stream: str = arg("Stream of the operating system, where a release has several: rhel-9, rhel-10", "")
    allow_kernel_mismatch: bool = arg(
        "Take a release whose toolkit is not for the kernel of its operating system", False
    )
    toolkit_repo: str = arg("Repository for toolkits made from a distribution's kernel packages", "")


@dataclass(frozen=True, kw_only=True)
class Results:
    """One toolkit, one kernel."""

    kernel: str = result("Kernel release of the target")
    arch: str = result("Architecture of the target")
    toolkit_url: str = result("Repository of the toolkit image")
    toolkit_digest: str = result("Digest of the toolkit image")
    toolkit_arch: str = result("Architecture that the toolkit's own programs are for, as nodes name theirs: amd64")
    release: str = result("The release that was chosen, e.g. 4.14.38 for 4.14")
    gate: str = result(
        "Is the toolkit for the kernel of its operating system: equal, overridden (it is not, which was allowed), "
        "not checked",
        NOT_CHECKED,
    )
    how: str = result("How the answer was found, in words")


def run(args: Args, room: Room) -> Results:
    """Find or make the toolkit. Raises UsageError, NotFoundError, InvalidError, UnsupportedError, UnreachableError."""
    from dtkpipe.clients.registry import Registry
    from dtkpipe.toolkits.distribution import distribution_names

    registry = Registry(args.access(room.environ))
    kernel = Kernel.parse(args.kernel) if args.kernel else None
    arch = Arch.parse(args.arch) if args.arch else kernel.arch if kernel else None
    if kernel and kernel.arch not in (None, arch):
        raise UsageError(f"kernel {kernel} is not of architecture {arch}")
    if args.toolkit:
        return _given(args, kernel, arch, registry)
    if not (args.release or kernel):
        raise UsageError("nothing says what to build for", hint="give --release, --kernel or --toolkit")
    release = parse_release(args.release, distribution_names()) if args.release else None
    if isinstance(release, DistributionRelease) or (release is None and not (kernel and kernel.is_red_hat)):
        return _made(args, release, kernel, arch or Arch.host(), registry, room)
    return _released(args, release, kernel, arch or Arch.host(), registry)


def _released(args: Args, release: Wanted | None, kernel: Kernel | None, arch: Arch, registry: Registry) -> Results:
    """Look the toolkit of an OpenShift release up: in the lock, then in the payload of the release."""
    from dtkpipe.releases.resolver import Choice, resolver_for

    resolver = resolver_for(shipped("catalog/releases"), lambda: registry)
    choice = Choice(
        arch=arch, variant=args.variant or (kernel.variant if kernel else "std"), stream=args.stream,
        allow_mismatch=args.allow_kernel_mismatch,
    )  # fmt: skip
    answer = resolver.release(release, choice) if release else resolver.kernel(kernel, choice) if kernel else None
    if answer is None or answer.toolkit is None:
        raise NotFoundError(f"OpenShift {release} has no toolkit")
    if answer.kernel is None:
        raise answer.missing or NotFoundError(f"the kernel of {answer.toolkit} is not known")
    if kernel and answer.kernel != kernel:
        raise UsageError(f"OpenShift {answer.release} has kernel {answer.kernel}, not {kernel}", *answer.how)
    return Results(
        kernel=answer.kernel.release, arch=answer.arch.name, toolkit_url=answer.toolkit.name,
        toolkit_digest=answer.toolkit.digest, toolkit_arch=answer.arch.oci, release=answer.release,
        gate=answer.gate, how="; ".join(answer.how),
    )  # fmt: skip


def _given(args: Args, kernel: Kernel | None, arch: Arch | None, registry: Registry) -> Results:
    """Take the toolkit image that was named; its kernel is read from it."""
    from dtkpipe.toolkits.existing import kernel_of

    image = ImageRef.parse(args.toolkit)
    image = image.at(registry.manifest(image, arch).digest)
    kernel, how = kernel_of(registry, image, arch, args.variant, kernel)
    target = kernel.arch or arch or Arch.host()
    return Results(
        kernel=kernel.release, arch=target.name, toolkit_url=image.name, toolkit_digest=image.digest,
        toolkit_arch=registry.config(image, arch).architecture or target.oci, release=args.release,
        how=f"toolkit image given by hand; kernel {how}",
    )  # fmt: skip


def _made(
    args: Args, release: DistributionRelease | None, kernel: Kernel | None, arch: Arch, registry: Registry, room: Room
) -> Results:
    """Find the distribution whose archive has the kernel; find its toolkit in the repository, or make it."""
    from dtkpipe.toolkits.distribution import distributions
    from dtkpipe.toolkits.make import Maker
    from dtkpipe.toolkits.plan import Suite, nearest

    if not args.toolkit_repo:
        raise UsageError(
            "there is no repository for the toolkit", "a toolkit that is made has to be pushed somewhere",
            hint="give --toolkit-repo REGISTRY/REPOSITORY",
        )  # fmt: skip
    if arch not in BUILT:
        raise UnsupportedError(
            f"toolkits for {arch} cannot be made", f"they can for: {', '.join(one.name for one in BUILT)}"
        )
    repo = ImageRef.parse(args.toolkit_repo)
    known = distributions()
    if release:
        known = tuple(one for one in known if one.name == release.name)
    suites = [Suite(one, arch, Arch.host(), room.cache, room.say) for one in known]
    if kernel is None:
        suite = suites[0]
        kernel = suite.newest(args.variant or "std")
        how = f"newest {args.variant or 'std'} kernel of {suite.distribution.name}"
    else:
        if args.variant and args.variant != kernel.variant:
            raise UsageError(f"kernel {kernel} is of variant {kernel.variant}, not {args.variant}")
        having = [one for one in suites if kernel in one.kernels()]
        if not having:
            names = " or ".join(one.distribution.name for one in suites)
            everything = [one for suite in suites for one in suite.kernels()]
            raise NotFoundError(
                f"no kernel {kernel} in the archive of {names}",
                f"nearest: {', '.join(nearest(kernel, everything)) or 'none'}",
                hint="for a kernel of another origin give its toolkit image: --toolkit IMAGE",
            )
        suite = having[0]
        how = f"kernel found in the archive of {suite.distribution.name}"
    plan = suite.plan(kernel)
    try:
        digest = registry.digest(repo.tagged(plan.tag))
        how += "; its toolkit was there already"
    except NotFoundError:
        digest = Maker(suite, registry, room.cache, room.say).make(plan, repo)
        how += f"; toolkit made from packages of {suite.distribution.title}"
    return Results(
        kernel=kernel.release, arch=arch.name, toolkit_url=repo.name, toolkit_digest=digest,
        toolkit_arch=registry.config(repo.at(digest)).architecture or arch.oci, release=suite.distribution.name,
        how=how,
    )  # fmt: skip
