"""The modules of a matrix: module specs chosen by patterns of file names. One that is broken stops no other.

A pattern names files here, or in a git repository as Kustomize writes it: `github.com/org/catalog//modules/*?ref=main`.
"""

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from dtkpipe.errors import DtkpipeError, InvalidError, NothingSelectedError
from dtkpipe.source.fetch import fetch
from dtkpipe.source.recognise import SPEC_NAMES
from dtkpipe.tools import git
from dtkpipe.values.module import ModuleSpec
from dtkpipe.values.source import GIT, Source

_REMOTE = re.compile(r"(?P<repo>(?:[A-Za-z]+://)?[^?]+?)//(?P<inside>.+?)(?:\?ref=(?P<ref>[^?]+))?")


@dataclass(frozen=True, kw_only=True)
class MatrixModule:
    """A module spec that names its source, and the file that it is from (of a git repository: its path in there)."""

    spec: ModuleSpec
    source: Source
    file: Path

    @property
    def name(self) -> str:
        """The name of the module set."""
        return self.spec.name


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A file that is no module spec for a matrix, and why."""

    file: Path
    error: DtkpipeError


@dataclass(frozen=True, kw_only=True)
class Modules:
    """What was chosen, by name."""

    good: tuple[MatrixModule, ...]
    broken: tuple[Broken, ...] = ()


def choose(patterns: Sequence[str], here: Path) -> Modules:
    """Read the specs that `patterns` (of a shell: `catalog/modules/*`) name; relative ones are relative to `here`.

    Of what a `*` finds only .yaml and .yml files count. Raises NothingSelectedError for a pattern that finds nothing,
    and for a git repository what fetching it raises.
    """
    read: dict[Path, MatrixModule | Broken] = {}
    for pattern in patterns:
        if catalogue := in_git(pattern):
            read |= _fetched(*catalogue)
        else:
            read |= {file: _told(file) for file in _files(pattern, pattern, here, str(here)) if file not in read}
    good: dict[str, MatrixModule] = {}
    broken: list[Broken] = []
    for file, one in read.items():
        if isinstance(one, Broken):
            broken.append(one)
        elif first := good.get(one.name):
            error = InvalidError(f"{file.name}: `{one.name}` is in {first.file.name} already")
            broken.append(Broken(file=file, error=error))
        else:
            good[one.name] = one
    return Modules(good=tuple(good.values()), broken=tuple(broken))


def in_git(pattern: str) -> tuple[Source, str] | None:
    """Return the git repository that a pattern is for, and the pattern inside it; None where it is for files here.

    Raises InvalidError for a repository that cannot be one.
    """
    found = _REMOTE.fullmatch(pattern)
    if not found:
        return None
    source = Source.parse(found["repo"], here=Path("/"))
    if source.kind != GIT:
        return None
    if ".." in found["inside"].split("/"):
        raise InvalidError(f"`{found['inside']}` is not inside the repository {source.repo}")
    return Source.parse(found["repo"], found["ref"] or "", here=Path("/")), found["inside"].lstrip("/")


def _files(pattern: str, said: str, folder: Path, where: str) -> Iterator[Path]:
    """Give the files in `folder` that a pattern finds. `said` and `where` are for the user."""
    # Path.glob takes neither absolute patterns nor `..`.
    found = [folder / path for path in sorted(glob.glob(pattern, root_dir=folder))]  # noqa: PTH207
    chosen = [path for path in found if path.is_file() and (path.suffix in (".yaml", ".yml") or len(found) == 1)]
    if not chosen:
        raise NothingSelectedError(
            f"`{said}` finds no module spec", f"looked in: {where}", "expected .yaml files",
            hint="quote the pattern, so that the shell leaves it alone: --modules 'catalog/modules/*'",
        )  # fmt: skip
    yield from chosen


@dataclass(frozen=True)
class _Catalogue:
    """A git repository at a commit, and where it is checked out."""

    repo: str
    commit: str
    root: Path

    def around(self, file: Path) -> Source:
        """Return the source that a file lies in."""
        return Source.parse(self.repo, self.commit, file.parent.relative_to(self.root).as_posix(), here=self.root)


def _fetched(source: Source, pattern: str) -> dict[Path, MatrixModule | Broken]:
    """Read the specs of a git repository, at the commit that its branch or tag is now."""
    with tempfile.TemporaryDirectory(prefix="dtkpipe-") as name:
        fetched = fetch(source, Path(name) / "catalogue")
        catalogue = _Catalogue(source.repo, fetched.commit, fetched.root)
        files = _files(pattern, f"{source.repo}//{pattern}", fetched.root, fetched.title)
        read = {Path(source.repo, file.relative_to(fetched.root)): _told(file, catalogue) for file in files}
        return {path: replace(one, file=path) for path, one in read.items()}


def _told(file: Path, catalogue: _Catalogue | None = None) -> MatrixModule | Broken:
    try:
        return _read(file, catalogue)
    except DtkpipeError as error:
        return Broken(file=file, error=error)


def _read(file: Path, catalogue: _Catalogue | None = None) -> MatrixModule:
    """Read a spec. `catalogue` is the git repository that it is from, where it is from one."""
    try:
        text = file.read_text()
    except OSError as error:
        raise InvalidError(f"{file.name} cannot be read", str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise InvalidError(f"{file.name} is not a text file") from error
    spec = ModuleSpec.from_text(text, where=file.name)
    origin = spec.source
    if origin.repo:
        source = Source.parse(origin.repo, origin.ref, origin.path, here=file.parent)
        if catalogue and not source.remote:
            raise InvalidError(f"{file.name}: source.repo: `{origin.repo}` is a path, and this file is read out of git",
                               hint="give a git URL, a tarball's or apt:NAME/SUITE")  # fmt: skip
        return MatrixModule(spec=spec, source=source, file=file)
    if file.name not in SPEC_NAMES or origin.ref or origin.path:
        raise InvalidError(
            f"{file.name}: source.repo: is required", "a matrix builds the module from its source",
            hint=f"only {SPEC_NAMES[0]} describes the folder that it is in",
        )  # fmt: skip
    # The source has it, so it is part of the commit: the key is that of a catalogue which only names the source.
    source = catalogue.around(file) if catalogue else _around(file)
    return MatrixModule(spec=spec.pointer, source=source, file=file)


def _around(file: Path) -> Source:
    """Return the source that a file lies in: the commit that is checked out, or the folder as it has been changed."""
    folder = file.absolute().parent
    root = git.top_level(folder)
    if root is None:
        return Source.parse(str(folder), here=folder)
    path, tree = folder.relative_to(root).as_posix(), git.work_tree(root)
    if tree is None or tree.changed or not tree.commit:
        return Source.parse(str(root), path=path, here=root)
    return Source.parse(f"file://{quote(str(root))}", tree.commit, path, here=root)
