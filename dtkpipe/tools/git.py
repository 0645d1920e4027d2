"""git: resolve a ref, fetch one commit, list the files of a work tree.

The user's own configuration counts (credentials, proxies, url.insteadOf). Nothing that comes with a repository is
run: no hooks, no file system monitor, no transport but the usual ones, no question to the terminal.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import DtkpipeError, InvalidError, NotAllowedError, NotFoundError, UnreachableError
from dtkpipe.tools import process
from dtkpipe.tools.process import Finished, ProcessFailedError, ProcessTimeoutError

FETCH_LIMIT = 900
"""Seconds that one fetch may take."""

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT = re.compile(r"[0-9a-f]{7,63}")
_SAFE = (
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never",
    "-c", "safe.bareRepository=explicit", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
    "-c", "advice.detachedHead=false", "-c", "init.defaultBranch=main",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TreeEntry:
    """One entry of a commit: mode as git writes it (100644, 100755, 120000, 160000), size in bytes."""

    mode: str
    object: str
    size: int
    path: str


def _git(argv: Sequence[str | Path], *, folder: Path | None = None, timeout: float | None = None) -> Finished:
    env = {
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }
    if "GIT_SSH_COMMAND" not in os.environ:
        env["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes"
    where: list[str | Path] = ["-C", folder] if folder else []
    return process.run(["git", *where, *_SAFE, *argv], env=env, timeout=timeout)


def _remote(argv: Sequence[str | Path], url: str, *, folder: Path | None = None) -> Finished:
    try:
        return _git(argv, folder=folder, timeout=FETCH_LIMIT)
    except ProcessTimeoutError as error:
        raise UnreachableError(f"{url} did not answer within {FETCH_LIMIT} s") from error
    except ProcessFailedError as error:
        raise about_remote(error, url) from error


def about_remote(error: ProcessFailedError, url: str) -> DtkpipeError:
    """Say in the user's words why a remote repository could not be read."""
    said = error.finished.errors
    lines = [line for line in said.splitlines() if line.startswith(("fatal:", "error:", "ssh:", "remote:"))][-3:]
    if re.search(
        r"Authentication failed|Permission denied|could not read (?:Username|Password)|HTTP 40[13]|\b403\b", said
    ):
        return NotAllowedError(
            f"{url} does not exist, or needs credentials", *lines, hint=f"try `git ls-remote {url}` in your shell"
        )
    if re.search(r"not found|does not exist|does not appear to be a git repository|No such file", said, re.IGNORECASE):
        return NotFoundError(f"there is no git repository at {url}", *lines)
    if re.search(r"transport '.*' not allowed", said):
        return InvalidError(f"sources are not fetched that way: {url}", *lines)
    return UnreachableError(f"{url} cannot be read", *lines)


def resolve(url: str, ref: str = "") -> str:
    """Return the commit that `ref` (branch, tag, commit, also shortened; default: HEAD) is now.

    A tag goes before a branch of the same name, as in git. A full commit is returned as it is: whether it exists
    shows when it is fetched. Raises NotFoundError, NotAllowedError, UnreachableError.
    """
    if _COMMIT.fullmatch(ref):
        return ref
    wanted = [f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref] if ref else ["HEAD"]
    listed = _remote(["ls-remote", "--", url], url).output
    refs = {name: commit for commit, _, name in (line.partition("\t") for line in listed.splitlines())}
    for name in wanted:
        if name in refs:
            return refs[name]
    if _SHORT.fullmatch(ref) and (found := _from_short(url, ref)):
        return found
    names = [re.sub(r"^refs/(heads|tags)/", "", name) for name in refs if re.match(r"refs/(heads|tags)/[^^]*$", name)]
    if not ref:
        raise NotFoundError(f"{url} has no default branch", f"branches and tags: {', '.join(names[:10]) or 'none'}")
    import difflib

    near = difflib.get_close_matches(ref, names, n=3, cutoff=0.5)
    raise NotFoundError(
        f"{url} has no branch, tag or commit `{ref}`",
        f"it has {len(names)} branches and tags" + (f", e.g. {', '.join(names[:8])}" if names else ""),
        hint=f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "",
    )


def _from_short(url: str, ref: str) -> str:
    """Look for a shortened commit in the history; file contents stay where they are, if the server can do that."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _git(["init", "--quiet", "--bare", "--template=", folder])
        _remote(["--git-dir", folder, "fetch", "--quiet", "--filter=tree:0", "--no-tags", "--", url,
                 "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"], url)  # fmt: skip
        try:
            return _git(["--git-dir", folder, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"]).output.strip()
        except ProcessFailedError:
            return ""


def fetch_commit(url: str, commit: str, folder: Path) -> None:
    """Fetch one commit into a new repository at `folder`, without a work tree. Raises NotFoundError and others."""
    _git(["init", "--quiet", "--template=", folder])
    fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"]
    try:
        _remote([*fetch, "--depth=1", "--", url, commit], url, folder=folder)
    except DtkpipeError:
        # Servers may refuse single commits, or shallow copies: then the whole history has to come.
        _remote(
            [*fetch, "--", url, "+refs/heads/*:refs/fetched/heads/*", "+refs/tags/*:refs/fetched/tags/*"],
            url,
            folder=folder,
        )
    try:
        _git(["cat-file", "-e", f"{commit}^{{commit}}"], folder=folder)
    except ProcessFailedError as error:
        raise NotFoundError(f"{url} has no commit {commit}") from error


def entries(folder: Path, commit: str) -> list[TreeEntry]:
    """List what a commit holds, without touching the work tree."""
    listed = _git(["ls-tree", "-r", "-l", "-z", "--full-tree", commit], folder=folder).output
    result = []
    for line in filter(None, listed.split("\0")):
        facts, _, path = line.partition("\t")
        mode, _, name, size = facts.split()
        result.append(TreeEntry(mode=mode, object=name, size=0 if size == "-" else int(size), path=path))
    return result


def content(folder: Path, name: str) -> str:
    """Return an object's content as text."""
    return _git(["cat-file", "blob", name], folder=folder).output


def check_out(folder: Path, commit: str) -> None:
    """Write the work tree of a fetched commit. Raises InvalidError for a tree that git refuses."""
    try:
        _git(["checkout", "--quiet", "--force", "--detach", commit], folder=folder)
    except ProcessFailedError as error:
        raise InvalidError(f"commit {commit[:12]} cannot be checked out", *error.details) from error


def submodule_urls(folder: Path, commit: str) -> dict[str, str]:
    """Return path -> URL from the commit's .gitmodules."""
    listed = _git(["config", "--blob", f"{commit}:.gitmodules", "--null", "--list"], folder=folder).output
    facts: dict[str, dict[str, str]] = {}
    for item in filter(None, listed.split("\0")):
        key, _, value = item.partition("\n")
        if named := re.fullmatch(r"submodule\.(.*)\.(path|url)", key, re.DOTALL):
            facts.setdefault(named[1], {})[named[2]] = value
    return {one["path"]: one.get("url", "") for one in facts.values() if "path" in one}


@dataclass(frozen=True, kw_only=True)
class WorkTree:
    """A folder under git: its files (relative paths, ignored ones left out), its commit, whether it was changed."""

    files: tuple[str, ...]
    commit: str
    changed: bool


def top_level(folder: Path) -> Path | None:
    """Return the folder of the work tree that `folder` is in; None as `work_tree` gives it."""
    try:
        return Path(_git(["rev-parse", "--show-toplevel"], folder=folder).output.removesuffix("\n"))
    except ProcessFailedError:
        return None


def work_tree(folder: Path) -> WorkTree | None:
    """Return what git sees in `folder`; None where it is not under git, or git does not trust its owner."""
    try:
        listed = _git(["ls-files", "-z", "--cached", "--others", "--exclude-standard"], folder=folder).output
        changes = _git(["status", "--porcelain", "-z", "--untracked-files=normal", "--", "."], folder=folder).output
    except ProcessFailedError:
        return None
    try:
        commit = _git(["rev-parse", "--verify", "--quiet", "HEAD"], folder=folder).output.strip()
    except ProcessFailedError:
        commit = ""
    return WorkTree(files=tuple(sorted(set(filter(None, listed.split("\0"))))), commit=commit, changed=bool(changes))
