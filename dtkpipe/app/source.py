"""Look at the source of a module without building it: fetch, recognise, find hazards, write its dtkpipe.yaml."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import InvalidError, NotFoundError, UsageError
from dtkpipe.source import hazards
from dtkpipe.source.fetch import Fetched, fetch
from dtkpipe.source.hazards import Finding
from dtkpipe.source.recognise import SPEC_NAMES, Recognised, recognise
from dtkpipe.values.module import ModuleSpec
from dtkpipe.values.source import FOLDER, Source


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a source is, and what is wrong with it."""

    title: str
    found: Recognised
    findings: tuple[Finding, ...]


@contextmanager
def _fetched(source: Source) -> Iterator[Fetched]:
    with tempfile.TemporaryDirectory(prefix="dtkpipe-") as folder:
        yield fetch(source, Path(folder) / "source")


def _name(source: Source) -> str:
    return Path(source.path).name or source.name


def look(repo: str, ref: str, path: str, spec: Path | None, here: Path) -> Looked:
    """Find the hazards of a source. `spec` is a dtkpipe.yaml to use instead of the source's own.

    Raises InvalidError for what is no module, and what fetching raises.
    """
    source = Source.parse(repo, ref, path, here=here)
    if spec and not spec.is_file():
        raise NotFoundError(f"there is no file {spec}")
    text = spec.read_text(errors="replace") if spec else ""
    with _fetched(source) as fetched:
        found = recognise(fetched.folder, _name(source), text)
        return Looked(title=fetched.title, found=found, findings=tuple(hazards.find(fetched.folder, found)))


def infer(repo: str, here: Path) -> Recognised:
    """Return what can be inferred about a folder, whatever dtkpipe.yaml it has. Raises InvalidError."""
    source = Source.parse(repo, here=here)
    if source.kind != FOLDER:
        raise UsageError(f"`{repo}` is not a folder on this machine", hint="clone it first, then `dtkpipe init FOLDER`")
    with _fetched(source) as fetched:
        for name in SPEC_NAMES:
            (fetched.folder / name).unlink(missing_ok=True)
        return recognise(fetched.folder, _name(source))


def write_spec(found: Recognised, folder: Path, *, force: bool) -> Path:
    """Write the dtkpipe.yaml of a folder, and read it back. Raises InvalidError where there is one already."""
    path = folder / SPEC_NAMES[0]
    there = [name for name in SPEC_NAMES if (folder / name).exists() or (folder / name).is_symlink()]
    if there and not force:
        raise InvalidError(f"{folder / there[0]} exists", hint="`--force` writes it anew")
    text = spec_text(found)
    if ModuleSpec.from_text(text) != found.spec:
        raise InvalidError("what was inferred cannot be written as a dtkpipe.yaml", text)
    partial = path.with_name(f".{path.name}.new")
    partial.write_text(text)
    partial.replace(path)
    return path


def spec_text(found: Recognised) -> str:
    """Return a dtkpipe.yaml for people: the spec, and what to know about each part that is not obvious."""
    from dtkpipe.engines.dump import dump

    lines = [
        "# How this kernel module is built, loaded and checked. Every key: docs/reference/dtkpipe-yaml.md",
        f"# Inferred from {found.how}.",
        *(f"# Known only to the build: {point}." for point in found.open_points),
    ]
    if not found.spec.modules:
        lines.append("# `modules` is left out: whatever the build gives, in the order of its dependencies.")
    return "\n".join(lines) + "\n" + dump([found.spec.to_mapping()])
