"""Part of build: the image in the staging repository, its modules compared with what was promised, and its labels."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dtkpipe.clients.image import ImageFiles, read_image
from dtkpipe.clients.manifest import Descriptor, canonical
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import DtkpipeError, RunFailedError
from dtkpipe.proof.module import KernelModule, is_module_file, read_module
from dtkpipe.source.recipe import Target
from dtkpipe.source.recognise import Recognised
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.module import Module, ModuleSpec

_LOADER = {"sh": ("bin/sh", "usr/bin/sh"), "cp": ("bin/cp", "usr/bin/cp")}


def inspect(registry: Registry, image: ImageRef, target: Target, into: Path) -> ImageFiles:
    """Read the modules of a candidate."""
    places = _places(target)
    return read_image(registry, image, None, lambda path: path.startswith(places) and is_module_file(path), into)


def _places(target: Target) -> tuple[str, ...]:
    """Where modules lie: KMM's place first."""
    return tuple(f"{root}lib/modules/{target.kernel}/" for root in ("opt/", "", "usr/"))


def modules_of(files: ImageFiles, target: Target) -> dict[str, KernelModule]:
    """Return the modules of a candidate by name, as they lie in /opt, or else in /lib.

    Raises RunFailedError when there is none for the kernel.
    """
    release = target.kernel.release
    for place in _places(target):
        here = {path: file for path, file in sorted(files.contents.items()) if path.startswith(place)}
        if here:
            modules = [read_module(file, f"/{path}") for path, file in here.items()]
            return {module.name: module for module in modules}
    others = sorted(
        {path.split("/lib/modules/", 1)[1].split("/")[0] for path in files.paths if "/lib/modules/" in path}
    )
    raise RunFailedError(
        f"the image holds no kernel module for {release}",
        f"looked in: /opt/lib/modules/{release}, /lib/modules/{release}",
        *([f"it has modules for {', '.join(others[:5])}"] if others else []),
        hint="`dtkpipe lint` finds Makefiles and Containerfiles that build for the wrong kernel",
    )


def settle(found: Recognised, built: Mapping[str, KernelModule]) -> ModuleSpec:
    """Return the spec with the modules that were built, in loading order.

    Raises RunFailedError where its author listed others.
    """
    spec = found.spec
    if found.listed:
        missing = [name for name in spec.names if name not in built]
        surplus = sorted(set(built) - set(spec.names))
        if missing:
            raise RunFailedError(
                f"listed but not built: {', '.join(missing)}",
                f"{found.how} built: {', '.join(sorted(built))}",
                f"`modules` lists: {', '.join(spec.names)}",
            )
        if surplus:
            raise RunFailedError(
                f"built but not listed: {', '.join(surplus)}",
                f"{found.how} built: {', '.join(sorted(built))}",
                f"`modules` lists: {', '.join(spec.names)}",
                hint="add it to `modules`, or let the build leave it out",
            )
    known = {module.name: module for module in spec.modules}
    order = _loading_order(built, spec.names if found.listed else sorted(built))
    return replace(spec, modules=tuple(known.get(name, Module(name=name)) for name in order))


def _loading_order(built: Mapping[str, KernelModule], wished: Sequence[str]) -> list[str]:
    """Sort modules so that each comes after what it depends on; else as wished."""
    result: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in built and name not in result and name not in above:
            for needed in sorted({*built[name].depends, *built[name].softdeps}):
                visit(needed.replace("-", "_"), (*above, name))
            result.append(name)

    for name in wished:
        visit(name, ())
    return result


def lacks(files: ImageFiles) -> list[str]:
    """Return the programs that KMM's worker needs in an image and this one does not have."""
    return [name for name, places in _LOADER.items() if not any(files.entry(place) for place in places)]


def finish(registry: Registry, image: ImageRef, files: ImageFiles, labels: Mapping[str, str], arch: Arch | None) -> str:
    """Give the candidate its labels: the same layers under a new config. Return the new digest.

    `image` has the tag that shall point at it, and the digest that it replaces there. `arch` is given where the image
    is laid out by us, and for another architecture than it was built on.
    """
    config = dict(files.config.data)
    inner = dict(config.get("config") or {})
    inner["Labels"] = {**(inner.get("Labels") or {}), **labels}
    config["config"] = inner
    if arch:
        config["architecture"] = arch.oci
    body = canonical(config)
    descriptor = replace(files.manifest.config, digest=Descriptor.of(body, "").digest, size=len(body))
    registry.push_blob(image, body, descriptor)
    manifest = {**files.manifest.data, "config": descriptor.to_dict()}
    digest = registry.push_manifest(image, canonical(manifest), files.manifest.media_type, image.tag)
    if digest != image.digest:
        with contextlib.suppress(DtkpipeError):  # only space: nothing points at it any more
            registry.delete(image.at(image.digest))
    return digest
