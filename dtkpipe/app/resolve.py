"""Resolve: from a release, a kernel, an image or a cluster to a toolkit and its kernel, without pulling anything."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dtkpipe.errors import NotAllowedError, UsageError
from dtkpipe.releases.answer import Answer
from dtkpipe.releases.resolver import Choice, Resolver, resolver_for
from dtkpipe.resources import cache_dir, shipped
from dtkpipe.toolkits.distribution import distribution_names
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.mirrors import Mirrors, parse_mirrors
from dtkpipe.values.release import DistributionRelease, parse_release

if TYPE_CHECKING:
    from dtkpipe.clients.cluster import Cluster
    from dtkpipe.clients.registry import Registry
    from dtkpipe.values.access import RegistryAccess

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked: exactly one of the questions, and what is wanted of the answer."""

    release: str = ""
    release_image: str = ""
    toolkit: str = ""
    kernel: str = ""
    from_cluster: bool = False
    node: str = ""
    kubeconfig: Path | None = None
    context: str = ""
    arch: str = ""
    variant: str = ""
    stream: str = ""
    via: str = ""
    release_repo: str = ""
    """Repository of the images of releases, instead of the usual one."""
    allow_mismatch: bool = False


def lock_folder(given: Path | None) -> Path:
    """Return the folder of the lock: the one that was given, or the one that ships with dtkpipe."""
    return given or shipped("catalog/releases")


def resolve(
    request: Request,
    folder: Path,
    access: Callable[[], RegistryAccess],
    graph: str,
    environ: Mapping[str, str],
    say: Say,
) -> Answer:
    """Answer a request. Raises UsageError, NotFoundError, InvalidError, and what registries and the graph raise."""
    _check(request)
    kernel = Kernel.parse(request.kernel) if request.kernel else None
    arch = Arch.parse(request.arch) if request.arch else (kernel and kernel.arch) or Arch.host()
    if kernel and kernel.arch not in (None, arch):
        raise UsageError(f"kernel {kernel} is not of architecture {arch}")
    choice = Choice(
        arch=arch, variant=request.variant or "std", stream=request.stream, via=request.via,
        allow_mismatch=request.allow_mismatch,
    )  # fmt: skip

    @functools.cache
    def registry() -> Registry:
        from dtkpipe.clients.registry import Registry

        return Registry(access())

    repo = ImageRef.parse(request.release_repo) if request.release_repo else None
    resolver = resolver_for(folder, registry, graph, repo)
    if kernel:
        return resolver.kernel(kernel, choice)
    if request.from_cluster or request.node:
        return _cluster(request, resolver, choice, access(), say)
    if request.release_image:
        return resolver.release_image(ImageRef.parse(request.release_image), choice)
    if request.toolkit:
        return resolver.toolkit(ImageRef.parse(request.toolkit), choice)
    release = parse_release(request.release, distribution_names())
    if isinstance(release, DistributionRelease):
        if idle := [name for name in ("stream", "via", "release_repo", "allow_mismatch") if getattr(request, name)]:
            raise UsageError(f"{_flag(idle[0])} is about OpenShift", f"asked: {release}")
        return _distribution(release, choice, environ, say)
    return resolver.release(release, choice)


_OPTIONS = ("arch", "variant", "stream", "via", "release_repo", "allow_mismatch", "kubeconfig", "context")
_QUESTIONS = {
    "release": ("arch", "variant", "stream", "via", "release_repo", "allow_mismatch"),
    "release_image": ("arch", "variant", "stream", "allow_mismatch"),
    "toolkit": ("arch", "variant"),
    "kernel": ("arch", "via", "release_repo", "allow_mismatch"),
    "from_cluster": ("arch", "variant", "stream", "kubeconfig", "context"),
    "node": ("allow_mismatch", "kubeconfig", "context"),
}
"""What can be asked, and which options say more of it."""


def _check(request: Request) -> None:
    """Raise UsageError unless there is one question, and every option belongs to it."""
    given = [name for name in _QUESTIONS if getattr(request, name)]
    if len(given) != 1:
        flags = [_flag(name) for name in given or _QUESTIONS]
        raise UsageError(
            f"{', '.join(flags)} ask for different things" if given else "nothing says what to resolve",
            hint=f"give one of {', '.join(flags)}",
        )
    if idle := [name for name in _OPTIONS if getattr(request, name) and name not in _QUESTIONS[given[0]]]:
        taken = ", ".join(map(_flag, _QUESTIONS[given[0]]))
        raise UsageError(f"{_flag(idle[0])} has no meaning beside {_flag(given[0])}", f"options that have: {taken}")


def _flag(name: str) -> str:
    return "--allow-kernel-mismatch" if name == "allow_mismatch" else f"--{name.replace('_', '-')}"


def _cluster(request: Request, resolver: Resolver, choice: Choice, access: RegistryAccess, say: Say) -> Answer:
    from dtkpipe.clients.cluster import Cluster
    from dtkpipe.clients.registry import Registry
    from dtkpipe.releases.cluster import NAMESPACE, STREAM, Node, of_cluster, of_node

    cluster = Cluster(request.kubeconfig, request.context)
    stream = cluster.image_stream(NAMESPACE, STREAM)
    if not access.mirrors.sets and (mirrors := _mirrors(cluster, say)):
        registry = Registry(replace(access, mirrors=mirrors))
        resolver = replace(resolver, registry=lambda: registry)
    if request.node:
        return of_node(resolver, stream, Node.parse(request.node, cluster.node(request.node)), choice)
    return of_cluster(resolver, stream, choice)


def _mirrors(cluster: Cluster, say: Say) -> Mirrors | None:
    """Return the mirror sets of a cluster, if it has any and lets us see them."""
    try:
        sets = cluster.mirror_sets()
    except NotAllowedError as error:
        say(f"note: mirrors are not known: {error.what}; name them with --registry-mirrors")
        return None
    if not sets:
        return None
    say(f"registries are read by the {len(sets)} mirror sets of the cluster")
    return parse_mirrors(json.dumps({"items": sets}), "what the cluster says of mirrors")


def _distribution(release: DistributionRelease, choice: Choice, environ: Mapping[str, str], say: Say) -> Answer:
    """Tell the newest kernel of a distribution. Its toolkit is made by the run that needs it."""
    from dtkpipe.toolkits.distribution import distributions
    from dtkpipe.toolkits.plan import Suite

    distribution = next(one for one in distributions() if one.name == release.name)
    kernel = Suite(distribution, choice.arch, Arch.host(), cache_dir(environ), say).newest(choice.variant)
    return Answer(
        arch=choice.arch, toolkit=None, kernel=kernel, kernels={choice.variant: kernel}, release=release.name,
        how=(f"newest {choice.variant} kernel of {release.name}; its toolkit is made when a run needs it",),
    )  # fmt: skip
