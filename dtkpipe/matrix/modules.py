"""The modules of a matrix: module specs chosen by patterns of file names. One that is broken stops no other."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import DtkpipeError, InvalidError, NothingSelectedError
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
    if not origin.repo:
        raise InvalidError(f"{file.name}: source.repo: is required", "a matrix builds the module from its source")
    source = Source.parse(origin.repo, origin.ref, origin.path, here=file.parent)
    return MatrixModule(spec=spec, source=source, file=file)
