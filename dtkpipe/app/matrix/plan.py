"""The matrix: which modules, for which kernels, and what the registry says of each cell."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from dtkpipe.app.resolve import lock_folder
from dtkpipe.errors import DtkpipeError, NotFoundError, NothingSelectedError
from dtkpipe.matrix.modules import MatrixModule, choose
from dtkpipe.matrix.plan import Known, Plan, plan
from dtkpipe.matrix.targets import Places, Selection, Targets, select
from dtkpipe.releases.lock import Lock
from dtkpipe.resources import cache_dir
from dtkpipe.toolkits.distribution import distribution_names
from dtkpipe.values.arch import Arch
from dtkpipe.values.cell import Target
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.version import Version

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry
    from dtkpipe.values.access import RegistryAccess

Say = Callable[[str], None]
_PARALLEL = 8
"""Repositories and sources that are asked at the same time."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the matrix is of, and where its images are."""

    modules: Sequence[str]
    """Patterns of file names."""
    releases: str
    arches: Sequence[Arch]
    variants: Sequence[str]
    signer: str
    """Who signs, as tags name signers."""
    push_to: str = ""
    """Registry and folder; each module's repository is below it. "" is the registry on loopback."""
    toolkit_repo: str = ""
    lock: Path | None = None
    graph: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the images of a matrix are."""

    registry: Registry
    push_to: str
    toolkit_repo: str

    def repo(self, module: str) -> ImageRef:
        """Return the repository of a module's images. Raises InvalidError."""
        return ImageRef.parse(f"{self.push_to}/{_label(module)}")


def _label(module: str) -> str:
    """Return the last part of a repository's name: what the grammar of references takes."""
    import re

    return re.sub(r"[^a-z0-9]+", "-", module.lower()).strip("-") or "module"


@contextmanager
def place(request: Request, access: RegistryAccess, environ: Mapping[str, str], say: Say) -> Iterator[Place]:
    """Have the registry at hand during the block: the one that was named, or the one on loopback."""
    from dtkpipe.app.registry import loopback_registry
    from dtkpipe.clients.registry import Registry

    if request.push_to:
        root = ImageRef.parse(request.push_to).name
        yield Place(registry=Registry(access), push_to=root, toolkit_repo=request.toolkit_repo or f"{root}/toolkits")
        return
    with loopback_registry(cache_dir(environ), say) as host:
        own = replace(access, insecure=(*access.insecure, host))
        yield Place(registry=Registry(own), push_to=host, toolkit_repo=request.toolkit_repo or f"{host}/toolkits")


def planned(request: Request, at: Place, here: Path, environ: Mapping[str, str], say: Say, today: date) -> Plan:
    """Return every cell and its state. Raises NothingSelectedError for a matrix without cells, and what is wrong."""
    chosen = choose(request.modules, here)
    targets = _targets(request, at, environ, say)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        made = tuple(pool.map(lambda target: _with_toolkit(target, at), targets.targets))
        known = tuple(pool.map(lambda module: _known(module, at), chosen.good))
    lost = [error for _, error in made if error]
    found = plan(known, [target for target, _ in made], request.signer, today)
    notices = (*targets.notices, *dict.fromkeys(error.what for error in lost), *found.notices)
    if not found.cells and not chosen.broken:
        raise NothingSelectedError("no cell is left: no module is for any of the kernels", *notices)
    return replace(found, notices=notices, broken=chosen.broken)


def _targets(request: Request, at: Place, environ: Mapping[str, str], say: Say) -> Targets:
    selection = Selection.parse(request.releases, distribution_names())
    access = at.registry.access

    @functools.cache
    def channel(name: str, arch: Arch) -> list[Version]:
        from dtkpipe.clients.graph import PUBLIC, read

        return list(read(access, name, arch, request.graph or PUBLIC).nodes)

    def newest(name: str, variant: str, arch: Arch) -> tuple[Kernel, str]:
        from dtkpipe.toolkits.distribution import distributions
        from dtkpipe.toolkits.plan import Suite

        found = next(one for one in distributions() if one.name == name)
        suite = Suite(found, arch, Arch.host(), cache_dir(environ), say)
        kernel = suite.newest(variant)
        return kernel, suite.plan(kernel).tag

    places = Places(lock=Lock(lock_folder(request.lock)), channel=channel, newest=newest)
    return select(selection, request.arches, request.variants, places)


def _with_toolkit(target: Target, at: Place) -> tuple[Target, DtkpipeError | None]:
    """Add the digest of a toolkit that is made from packages; one that is not made yet has none."""
    if not target.toolkit_tag:
        return target, None
    try:
        digest = at.registry.digest(ImageRef.parse(at.toolkit_repo).tagged(target.toolkit_tag))
        return replace(target, toolkits=(digest,)), None
    except NotFoundError:
        return target, None
    except DtkpipeError as error:
        return replace(target, toolkit_tag=""), error


def _known(module: MatrixModule, at: Place) -> Known:
    """Ask for the commit of a module's source and for the tags of its images."""
    from dtkpipe.source.fetch import resolve_commit

    repo = at.repo(module.name)
    try:
        commit = resolve_commit(module.source)
        return Known(module=module, repo=repo, commit=commit, tags=at.registry.tags(repo))
    except DtkpipeError as error:
        return Known(module=module, repo=repo, problem=error)
