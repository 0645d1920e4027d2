"""Which pushes ring, and which part of a matrix is planned then: what triggers on pushes are put together from."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Sequence
from dataclasses import dataclass

from dtkpipe.app.schedules import Planner
from dtkpipe.engines.triggers.bell import Bell
from dtkpipe.errors import NothingSelectedError, UsageError
from dtkpipe.matrix.modules import choose, in_git
from dtkpipe.values.forge import Repository, place_of
from dtkpipe.values.source import Source

PUSH, CATALOG = "push", "catalog"
"""What rings: a push to a module's repository, or to the one that has the module specs."""


@dataclass(frozen=True, kw_only=True)
class Rings:
    """A bell, and the planner that it starts."""

    on: str
    bell: Bell
    planner: Planner


def on_push(planner: Planner, repository: Repository, paths: Sequence[str], secret: str) -> Rings:
    """Return what rings on pushes to a repository: of the matrix, it plans the modules that are built from it.

    Raises NothingSelectedError where there is none, UsageError for specs that are in another repository.
    """
    there = (repository.host, repository.path)
    fetched = {one: found[0] for one in planner.matrix.request.modules if (found := in_git(one))}
    if elsewhere := [one for one, source in fetched.items() if place_of(source.repo) != there]:
        raise UsageError(
            f"`{elsewhere[0][:80]}` is not here", "a push plans specs that go along, or that the repository itself has",
            hint="--modules with files, or --on catalog for that repository",
        )  # fmt: skip
    local = [one for one in planner.matrix.request.modules if one not in fetched]
    files, refs = _built_from(there, local, planner) if local else ([], [])
    every = dict.fromkeys([*refs, *(source.ref for source in fetched.values())])
    bell = Bell(repository=repository, refs=tuple(every), paths=paths, secret=secret)
    return Rings(on=PUSH, bell=bell, planner=_of_modules(planner, [*files, *fetched]))


def _built_from(there: tuple[str, str], patterns: Sequence[str], planner: Planner) -> tuple[list[str], list[str]]:
    """Return the specs of modules that are built from a repository, and the branches or tags that they name."""
    chosen = choose(patterns, planner.here)
    built = [one for one in chosen.good if place_of(one.source.repo) == there]
    if not built and not chosen.broken:
        repos = sorted({one.source.repo for one in chosen.good})
        raise NothingSelectedError(
            f"no module is built from {'/'.join(there)}",
            f"they are from: {', '.join(repos[:5])}{' ...' if len(repos) > 5 else ''}",
            hint="the repository as the module specs have it: source.repo",
        )
    files = [glob.escape(str(one.file.absolute())) for one in built] or list(patterns)
    return files, [one.source.ref for one in built]


def on_catalog(planner: Planner, url: str, repository: Repository, secret: str) -> Rings:
    """Return what rings on pushes that change module specs: patterns of them are relative to the repository.

    Raises UsageError for patterns that lead out of it.
    """
    patterns = planner.matrix.request.modules
    if out := [one for one in patterns if one.startswith("/") or ".." in one.split("/") or in_git(one)]:
        raise UsageError(f"`{out[0][:80]}` is not in the repository", hint="--modules 'modules/*', as it has them")
    repo = Source.parse(url, here=planner.here).repo
    bell = Bell(repository=repository, paths=patterns, secret=secret)
    return Rings(on=CATALOG, bell=bell, planner=_of_modules(planner, [f"{repo}//{pattern}" for pattern in patterns]))


def _of_modules(planner: Planner, patterns: Sequence[str]) -> Planner:
    request = dataclasses.replace(planner.matrix.request, modules=patterns)
    return dataclasses.replace(planner, matrix=dataclasses.replace(planner.matrix, request=request))
