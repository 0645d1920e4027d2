"""A private copy of the source, at one commit that is known: where all work on a module begins."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from dtkpipe.errors import InvalidError, NotFoundError
from dtkpipe.source import package, tarball, tree
from dtkpipe.tools import git
from dtkpipe.values.source import FOLDER, GIT, PACKAGE, Source

_MAX_DEPTH = 5
"""Submodules in submodules."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A copy of a source. `root` is all of it, `folder` the module's own part; `commit` is what it is a copy of."""

    root: Path
    folder: Path
    commit: str
    title: str
    """For the user: what was fetched, and whether it has changes that no commit holds."""


def fetch(source: Source, into: Path) -> Fetched:
    """Copy `source` into the new folder `into`.

    Raises NotFoundError, NotAllowedError, UnreachableError, and InvalidError for a source that is not a plain tree.
    """
    if source.kind == GIT:
        commit = git.resolve(source.repo, source.ref)
        _check_out(source.repo, commit, into, tree.Budget(), depth=0)
        title = _git_title(source, commit)
    elif source.kind == FOLDER:
        root = Path(source.repo)
        entries, note = _listed(root)
        commit, title = tree.digest(root, entries), f"folder {root}{note}"
        into.mkdir(parents=True)
        tree.copy(root, entries, into)
    elif source.kind == PACKAGE:
        commit, title = package.unpack(*source.package, into)
    else:
        _unpack(source, into)
        commit, title = tree.digest(into, tree.scan(into)), f"tarball {source.repo}"
    folder = into / source.path
    if not folder.is_dir():
        raise NotFoundError(f"the source has no folder `{source.path}`", f"source: {title}")
    return Fetched(root=into, folder=folder, commit=commit, title=title)


def resolve_commit(source: Source) -> str:
    """Return what `fetch` would record: the commit of a git repository, else `sha256:...` over all that it holds."""
    return identify(source)[0]


def identify(source: Source) -> tuple[str, str]:
    """Return the commit and the title that `fetch` would record, without a copy. Raises what `fetch` raises."""
    if source.kind == GIT:
        commit = git.resolve(source.repo, source.ref)
        return commit, _git_title(source, commit)
    if source.kind == FOLDER:
        root = Path(source.repo)
        entries, note = _listed(root)
        return tree.digest(root, entries), f"folder {root}{note}"
    if source.kind == PACKAGE:
        return package.identify(*source.package)
    with tempfile.TemporaryDirectory() as name:
        into = Path(name) / "source"
        _unpack(source, into)
        return tree.digest(into, tree.scan(into)), f"tarball {source.repo}"


def _git_title(source: Source, commit: str) -> str:
    what = source.ref if source.ref and not commit.startswith(source.ref) else ""
    return f"{source.repo} {what and what + ' = '}{commit[:12]}"


def _listed(root: Path) -> tuple[list[tree.Entry], str]:
    """List a local folder: what git sees in it (new files included, ignored ones not), or all of it."""
    if not root.is_dir():
        raise NotFoundError(f"there is no folder {root}", hint="a git repository needs its host: github.com/org/kmod")
    under_git = git.work_tree(root)
    if not under_git:
        return tree.scan(root), ""
    note = f" at {under_git.commit[:12]}" if under_git.commit else ""
    return tree.scan(root, under_git.files), note + (" with uncommitted changes" if under_git.changed else "")


def _unpack(source: Source, into: Path) -> None:
    if not source.remote:
        tarball.unpack(Path(source.repo), into)
        return
    with tempfile.TemporaryDirectory() as name:
        tarball.unpack(tarball.download(source.repo, Path(name)), into)


def _check_out(url: str, commit: str, into: Path, budget: tree.Budget, *, depth: int) -> None:
    """Fetch one commit and what it has submodules for; everything is checked before it is written."""
    if depth > _MAX_DEPTH:
        raise InvalidError(f"submodules are nested more than {_MAX_DEPTH} deep")
    into.mkdir(parents=True, exist_ok=True)
    git.fetch_commit(url, commit, into)
    modules = []
    for entry in git.entries(into, commit):
        if entry.mode == "160000":
            modules.append(entry)
            continue
        link = git.content(into, entry.object) if entry.mode == "120000" else ""
        budget.add(tree.Entry(entry.path, entry.size, entry.mode == "100755", link))
    urls = git.submodule_urls(into, commit) if modules else {}
    git.check_out(into, commit)
    shutil.rmtree(into / ".git")
    for module in modules:
        if not (inner := urls.get(module.path)):
            raise InvalidError(f"submodule `{tree.shown(module.path)}` has no URL in .gitmodules")
        _check_out(_submodule_url(module.path, inner, url), module.object, into / module.path, budget, depth=depth + 1)


def _submodule_url(path: str, url: str, parent: str) -> str:
    """Return where a submodule is. Raises InvalidError for one that would read this machine's own files."""
    if url.startswith(("./", "../")):
        if "://" in parent:
            base = urlsplit(parent)
            url = base._replace(path=urljoin(base.path.rstrip("/") + "/", url)).geturl()
        else:
            return urljoin(parent.rstrip("/") + "/", url)
    if not url.startswith(("https://", "http://", "ssh://", "git://")):
        raise InvalidError(
            f"submodule `{tree.shown(path)}` is at `{tree.shown(url)}`",
            "submodules are fetched through https, http, ssh and git only, or from beside their repository",
        )
    return url
