"""The modules of a matrix: module specs chosen by patterns of file names. One that is broken stops no other."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dtkpipe.errors import DtkpipeError, InvalidError, NothingSelectedError
from dtkpipe.source.recognise import SPEC_NAMES
from dtkpipe.tools import git
from dtkpipe.values.module import ModuleSpec
from dtkpipe.values.source import Source


@dataclass(frozen=True, kw_only=True)
class MatrixModule:
    """A module spec that names its source, and the file that it is from."""

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

    Of what a `*` finds only .yaml and .yml files count. Raises NothingSelectedError for a pattern that finds nothing.
    """
    files: dict[Path, None] = {}
    for pattern in patterns:
        # Path.glob takes neither absolute patterns nor `..`.
        found = [here / path for path in sorted(glob.glob(pattern, root_dir=here))]  # noqa: PTH207
        chosen = [path for path in found if path.is_file() and (path.suffix in (".yaml", ".yml") or len(found) == 1)]
        if not chosen:
            raise NothingSelectedError(
                f"`{pattern}` finds no module spec", f"looked in: {here}", "expected .yaml files",
                hint="quote the pattern, so that the shell leaves it alone: --modules 'catalog/modules/*'",
            )  # fmt: skip
        files |= dict.fromkeys(chosen)
    good: dict[str, MatrixModule] = {}
    broken: list[Broken] = []
    for file in files:
        try:
            module = _read(file)
            if first := good.get(module.name):
                raise InvalidError(f"{file.name}: `{module.name}` is in {first.file.name} already")
            good[module.name] = module
        except DtkpipeError as error:
            broken.append(Broken(file=file, error=error))
    return Modules(good=tuple(good.values()), broken=tuple(broken))


def _read(file: Path) -> MatrixModule:
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
        return MatrixModule(spec=spec, source=source, file=file)
    if file.name not in SPEC_NAMES or origin.ref or origin.path:
        raise InvalidError(
            f"{file.name}: source.repo: is required", "a matrix builds the module from its source",
            hint=f"only {SPEC_NAMES[0]} describes the folder that it is in",
        )  # fmt: skip
    # The source has it, so it is part of the commit: the key is that of a catalogue which only names the source.
    return MatrixModule(spec=spec.pointer, source=_around(file), file=file)


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
