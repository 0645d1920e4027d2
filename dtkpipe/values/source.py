"""Where the source of a module is: a folder, tarball, git repository or package, told apart by how it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dtkpipe.errors import InvalidError

FOLDER, TARBALL, GIT, PACKAGE = "folder", "tarball", "git", "package"

_SCHEMES = ("https", "http", "ssh", "git", "file")
_TARBALL = re.compile(r"\.(?:tar(?:\.(?:gz|xz|bz2|zst))?|tgz|txz|tbz2?)$")
# Debian Policy 5.6.7 (names of packages), and apt's own way to write a package of a suite: apt-get(8).
_PACKAGE = re.compile(r"apt:(?P<name>[a-z0-9][a-z0-9+.-]+)/(?P<suite>[a-z][a-z0-9-]*)")
_SCP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9.-]+:(?!//).+")
_HOST = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?/.+")
# git-check-ref-format(1), and nothing that git or a shell could read as an option.
_REF = re.compile(r"(?!-)(?!.*(?:\.\.|@\{|//))[^\x00-\x20\x7f~^:?*\[\\]{1,255}(?<![/.])")


@dataclass(frozen=True)
class Source:
    """One source. `repo` is a URL, an absolute path, or `apt:NAME/SUITE`; `path` is the module's folder inside it."""

    kind: str
    repo: str
    ref: str = ""
    path: str = ""

    def __str__(self) -> str:
        return self.repo + (f" {self.ref}" if self.ref else "")

    @property
    def remote(self) -> bool:
        """Whether it is fetched over the network."""
        return "://" in self.repo or self.kind in (GIT, PACKAGE)

    @property
    def name(self) -> str:
        """The last part of the repository's name, without `.git` and the like."""
        if self.kind == PACKAGE:
            return self.package[0].removesuffix("-dkms")
        last = re.split(r"[/:]", self.repo.rstrip("/"))[-1]
        return _TARBALL.sub("", last).removesuffix(".git") or "module"

    @property
    def package(self) -> tuple[str, str]:
        """Name and suite of a package."""
        name, _, suite = self.repo.removeprefix("apt:").partition("/")
        return name, suite

    @classmethod
    def parse(cls, repo: str, ref: str = "", path: str = "", *, here: Path) -> Source:
        """Parse what the user wrote. `here` is what relative paths are relative to.

        `github.com/org/kmod` means https; `apt:evdi-dkms/trixie` is a package of that suite of Debian; what begins with
        `.` or `/`, or has no host, is a path. Only how it is written decides, so that a laptop and a pod agree. Raises
        InvalidError.
        """
        if not repo or repo.startswith("-") or re.search(r"[\x00-\x1f\x7f]", repo):
            raise InvalidError(f"`{repo[:80]!r}` is not a source".replace("`'", "`").replace("'`", "`"), _EXPECTED)
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if path.startswith("/") or ".." in parts:
            raise InvalidError(f"`{path}` is not a folder inside the source")
        if ref and not _REF.fullmatch(ref):
            raise InvalidError(f"`{ref}` is not a branch, tag or commit")
        kind, where = _kind(repo, here)
        if ref and kind != GIT:
            raise InvalidError(
                f"a {kind} has no branches, tags or commits: {ref}",
                f"source: {where}",
                hint=f"leave --ref out, or give the repository as a URL: file://{where}" if kind == FOLDER else "",
            )
        return cls(kind, where, ref, "/".join(parts))


_EXPECTED = "expected a folder, a tarball, a git URL such as github.com/org/kmod, or apt:NAME/SUITE"


def _kind(repo: str, here: Path) -> tuple[str, str]:
    if repo.startswith("apt:"):
        if not _PACKAGE.fullmatch(repo):
            raise InvalidError(f"`{repo}` is not a package of a suite", "expected apt:NAME/SUITE",
                               hint="for example apt:v4l2loopback-dkms/bookworm")  # fmt: skip
        return PACKAGE, repo
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(://|::)", repo):
        if scheme[2] == "::" or scheme[1].lower() not in _SCHEMES:
            raise InvalidError(
                f"sources are not fetched through `{scheme[0]}`", f"expected one of: {', '.join(_SCHEMES)}"
            )
        _no_password(repo)
        if _TARBALL.search(urlsplit(repo).path):
            if scheme[1].lower() == "file":
                return TARBALL, urlsplit(repo).path
            if scheme[1].lower() != "https":
                raise InvalidError(f"tarballs are fetched through https only: {repo}")
            return TARBALL, repo
        return GIT, repo
    if _SCP.fullmatch(repo):
        return GIT, repo
    if "::" in repo:
        raise InvalidError(f"`{repo}` is not a source", _EXPECTED)
    if not repo.startswith((".", "/")) and _HOST.fullmatch(repo):
        return _kind(f"https://{repo}", here)
    local = str((here / repo).resolve())
    return (TARBALL if _TARBALL.search(local) else FOLDER), local


def _no_password(url: str) -> None:
    """A password in a URL would be in process lists, logs and run cards."""
    parts = urlsplit(url)
    if parts.password is not None or (parts.username and parts.scheme in ("http", "https")):
        raise InvalidError(
            f"the URL of the source holds credentials: {parts.scheme}://***@{parts.hostname}{parts.path}",
            "they would show up in logs and process lists",
            hint="let git find them: `git config credential.helper`, or ~/.netrc",
        )
