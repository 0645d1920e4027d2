"""What a source is: which recipe builds it, and what its module spec says or can be inferred.

Looked for in this order: dtkpipe.yaml, a Containerfile as KMM takes them, dkms.conf, Kbuild. The first one wins, and
what else was found is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dtkpipe.errors import DtkpipeError, InvalidError
from dtkpipe.source import containerfile, dkms, kbuild
from dtkpipe.source.tree import read_text
from dtkpipe.values.module import BuildSpec, Kernels, Module, ModuleSpec, module_name

SPEC_NAMES = ("dtkpipe.yaml", "dtkpipe.yml")


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A module spec whose `build` is complete. `how` is the file that said how to build; `notes` are for the user."""

    spec: ModuleSpec
    how: str
    listed: bool = False
    """Whether the spec's modules were listed by its author: then just these have to come out of the build."""
    notes: tuple[str, ...] = ()
    open_points: tuple[str, ...] = ()
    """What only the build itself will know, since nothing of the source is run before."""


def recognise(folder: Path, name: str, spec: str = "") -> Recognised:
    """Find out what the module in `folder` is. `spec` is the text of a dtkpipe.yaml to use instead of the folder's.

    One that says nothing of how to build, but only where the source is and for which kernels, leaves that to the
    folder's own. `name` is the name that a source without one gets. Raises InvalidError for a folder that is no
    module, and for a dtkpipe.yaml that is not valid or asks for what is not there.
    """
    given = _given(folder, spec)
    found = _recipes(folder)
    if given and (given.build.containerfile or given.build.recipe):
        how = _asked_for(folder, given, set(found))
        build, notes = given.build, tuple[str, ...]()
    else:
        if not found:
            raise _no_module(folder, name)
        how, find = next(iter(found.items()))
        build = find()
        if given and build.containerfile and (given.build.make or given.build.packages or given.build.patches):
            raise InvalidError(
                f"dtkpipe.yaml says how to compile, and {how} says it too",
                hint=f"add `containerfile: {how}` or `recipe: kbuild` below `build:`",
            )
        if given:
            build = replace(given.build, containerfile=build.containerfile, recipe=build.recipe)
        others = [other for other in found if other != how and other not in kbuild.FILES]
        notes = (f"{how} says how to build; {', '.join(others)} is there too, and is not used",) if others else ()
    open_points, inferred = _inferred(folder, build)
    inferred_name, modules = inferred
    if given:
        return Recognised(spec=replace(given, build=build), how=how, listed=bool(given.modules), notes=notes)
    result = ModuleSpec(name=_clean(inferred_name or name), build=build, modules=modules)
    return Recognised(spec=result, how=how, notes=notes, open_points=open_points)


def _given(folder: Path, text: str) -> ModuleSpec | None:
    given = ModuleSpec.from_text(text, where="--spec") if text else None
    file = next((folder / name for name in SPEC_NAMES if (folder / name).is_file()), None)
    if file is None or (given and not given.is_pointer):
        return given
    own = ModuleSpec.from_text(read_text(file), where=file.name)
    if given is None:
        return own
    return replace(
        own, name=given.name, source=given.source, arches=given.arches or own.arches, exclusions=given.exclusions,
        kernels=own.kernels if given.kernels == Kernels() else given.kernels,
    )  # fmt: skip


def _recipes(folder: Path) -> dict[str, Callable[[], BuildSpec]]:
    """Return file name -> what it means for the build, in the order in which they count."""
    found: dict[str, Callable[[], BuildSpec]] = {}
    if path := containerfile.find(folder):
        found[path.name] = lambda name=path.name: BuildSpec(containerfile=name)  # type: ignore[misc]
    if (folder / dkms.NAME).is_file():
        found[dkms.NAME] = lambda: BuildSpec(recipe="dkms")
    makefile = kbuild.find(folder)
    if makefile and makefile.goal is not None:
        found[makefile.path.name] = lambda: BuildSpec(recipe="make")
    elif makefile and (makefile.objects or not makefile.complete):
        found[makefile.path.name] = lambda: BuildSpec(recipe="kbuild")
    return found


def _asked_for(folder: Path, spec: ModuleSpec, found: set[str]) -> str:
    """Check that what a dtkpipe.yaml asks for is there; return the file's name."""
    if file := spec.build.containerfile:
        if not (folder / file).is_file():
            raise InvalidError(f"dtkpipe.yaml names the Containerfile `{file}`, and there is no such file",
                               f"found: {', '.join(sorted(found)) or 'no recipe'}")  # fmt: skip
        return file
    if spec.build.recipe == "dkms":
        if dkms.NAME not in found:
            raise InvalidError("dtkpipe.yaml asks for the recipe dkms, and there is no dkms.conf")
        return dkms.NAME
    makefile = kbuild.find(folder)
    if not makefile:
        raise InvalidError(f"dtkpipe.yaml asks for the recipe {spec.build.recipe}, and there is no makefile",
                           f"looked for: {', '.join(kbuild.FILES)}")  # fmt: skip
    return makefile.path.name


def _inferred(folder: Path, build: BuildSpec) -> tuple[tuple[str, ...], tuple[str, tuple[Module, ...]]]:
    """Return notes, and the name and modules that the recipe's own files tell."""
    if build.recipe == "dkms":
        conf = dkms.read(folder / dkms.NAME)
        notes = tuple(f"{dkms.NAME} {point}" for point in conf.open_points)
        return notes, (conf.name, _modules([one.built for one in conf.modules or ()]))
    if build.recipe:
        names = [Path(one).name for one in kbuild.modules(folder) or ()]
        return (), (names[0] if len(names) == 1 else "", _modules(names))
    return (), ("", ())


def _modules(names: list[str]) -> tuple[Module, ...]:
    try:
        return tuple(Module(name=name) for name in dict.fromkeys(module_name(name) for name in names))
    except DtkpipeError:
        return ()


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-")[:63].strip("._-") or "module"


def _no_module(folder: Path, name: str) -> InvalidError:
    there = sorted(path.name for path in folder.iterdir())
    looked = "dtkpipe.yaml, Containerfile or Dockerfile with KMM's build arguments, dkms.conf, Kbuild or Makefile"
    deeper = sorted(
        str(path.parent.relative_to(folder))
        for pattern in (dkms.NAME, *kbuild.FILES)
        for path in folder.glob(f"*/{pattern}")
        if _recipes(path.parent)
    )
    return InvalidError(
        f"`{name}` is not the source of a kernel module",
        f"looked for: {looked} with obj-m",
        f"found: {', '.join(there[:12]) or 'nothing'}{', ...' if len(there) > 12 else ''}",
        hint=f"`--path {deeper[0]}` looks like one"
        if deeper
        else "write a dtkpipe.yaml, or point --path at the module",
    )
