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
from dtkpipe.matrix.modules import Broken, MatrixModule, choose
from dtkpipe.matrix.plan import Known, Plan, Planned, plan
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
    staging: str = ""
    lock: Path | None = None
    graph: str = ""
    kernels: Sequence[Kernel] = ()
    """Of the releases' kernels only these; none is all."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the images of a matrix are."""

    registry: Registry
    push_to: str
    toolkit_repo: str
    staging: str

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
        yield _place(request, Registry(access), root)
        return
    with loopback_registry(cache_dir(environ), say) as host:
        own = replace(access, insecure=(*access.insecure, host))
        yield _place(request, Registry(own), host)


def _place(request: Request, registry: Registry, root: str) -> Place:
    """Candidates and toolkits of all modules are together: a toolkit and a kernel are made once."""
    return Place(
        registry=registry, push_to=root, toolkit_repo=request.toolkit_repo or f"{root}/toolkits",
        staging=request.staging or f"{root}/staging",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was found out: of each module, and of each kernel."""

    known: tuple[Known, ...]
    targets: tuple[Target, ...]
    broken: tuple[Broken, ...] = ()
    notices: tuple[str, ...] = ()


def ask(request: Request, at: Place, here: Path, environ: Mapping[str, str], say: Say) -> Asked:
    """Ask the lock for kernels, sources for commits and the registry for tags. Raises NothingSelectedError and others.

    A source or a repository that does not answer is no error: its cells are unknown.
    """
    chosen = choose(request.modules, here)
    targets = _targets(request, at, environ, say)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        made = tuple(pool.map(lambda target: _with_toolkit(target, at), targets.targets))
        known = tuple(pool.map(lambda module: _known(module, at), chosen.good))
    lost = dict.fromkeys(error.what for _, error in made if error)
    return Asked(
        known=known, targets=tuple(target for target, _ in made), broken=chosen.broken,
        notices=(*targets.notices, *lost),
    )  # fmt: skip


def judged(asked: Asked, request: Request, today: date) -> Plan:
    """Return every cell and its state. Raises NothingSelectedError for a matrix without cells."""
    found = plan(asked.known, asked.targets, request.signer, today)
    notices = (*asked.notices, *found.notices)
    if not found.cells and not asked.broken:
        raise NothingSelectedError("no cell is left: no module is for any of the kernels", *notices)
    return replace(found, notices=notices, broken=asked.broken)


def judged_again(one: Planned, known: Known, at: Place, request: Request, today: date) -> Planned:
    """Ask the registry once more for one cell: somebody else may have built it meanwhile."""
    target, error = _with_toolkit(one.target, at)
    try:
        fresh = replace(known, tags=at.registry.tags(known.repo), problem=error)
    except DtkpipeError as problem:
        fresh = replace(known, problem=problem)
    return plan([fresh], [target], request.signer, today).cells[0]


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
    return select(selection, request.arches, request.variants, places, request.kernels)


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
