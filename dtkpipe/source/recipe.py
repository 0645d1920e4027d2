"""From a recognised module to what an image builder needs: a context folder and a Containerfile that never changes.

No value is pasted into an instruction or a script: values are files of one line each, read by the scripts of
catalog/recipes, or build arguments.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import InvalidError, RunFailedError
from dtkpipe.resources import shipped
from dtkpipe.source import containerfile, kbuild
from dtkpipe.source.recognise import Recognised
from dtkpipe.source.tree import read_text
from dtkpipe.values.arch import Arch
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.module import ModuleSpec, module_name

_SCRIPTS = ("compile", "collect", "adopt", "uname")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is built for."""

    kernel: Kernel
    arch: Arch

    def variables(self, spec: ModuleSpec) -> dict[str, str]:
        """Return KMM's variables: kernel-module-management, docs/mkdocs/documentation/kmod_image.md."""
        return {**self.kernel.build_args(), "MOD_NAME": spec.name, "MOD_NAMESPACE": "default"}


def refuse_kernel(spec: ModuleSpec, target: Target) -> None:
    """Raise RunFailedError where the spec excludes the kernel or the architecture."""
    if reason := spec.refuses(target.kernel, target.arch):
        raise excluded(spec, target, reason)


def excluded(spec: ModuleSpec, target: Target, reason: str) -> RunFailedError:
    """Return the error for a kernel that a module is not for: the run failed, since there is nothing to build."""
    return RunFailedError(f"`{spec.name}` excludes kernel {target.kernel}", f"the module's source says: {reason}")


def context(root: Path, folder: Path, found: Recognised, target: Target, extra: Mapping[str, str], into: Path) -> Path:
    """Write the build context of a recipe into the new folder `into`; return its Containerfile.

    `root` is the whole source, `folder` the module in it, `extra` are more variables, from the command line. The
    caller adds base.tar, and what packages/ shall hold.
    """
    spec, build = found.spec, found.spec.build
    variables = target.variables(spec)
    arguments = [f"{name}={fill(value, variables)}" for name, value in {**build.args, **extra}.items()]
    make = [fill(token, variables) for token in build.make]
    if build.recipe == "dkms" and make:
        raise InvalidError("`build.make` is not for the recipe dkms", hint="dkms.conf says how make is called: MAKE[0]")
    if build.recipe == "make":
        makefile = kbuild.find(folder)
        goal = [makefile.goal] if makefile and makefile.goal and not _has_goal(make) else []
        make = [*(makefile.kernel_arguments(target.kernel.release) if makefile else []), *arguments, *make, *goal]
    elif build.recipe == "kbuild":
        make = [*arguments, *make]
    patches = [patch.file for patch in build.patches if patch.kernel.holds(target.kernel)]
    _write_plan(
        into / "plan",
        path=[str(folder.relative_to(root))],
        recipe=[build.recipe],
        make=make,
        targets=_targets(folder, found) if build.recipe == "kbuild" and not _has_goal(build.make) else [],
        args=arguments,
        patches=patches,
        packages=[],
        firmware=list(spec.firmware),
    )
    shutil.copytree(root, into / "source", symlinks=True)
    (into / "packages").mkdir()
    return _tools(into, "Containerfile")


def repack(found: Recognised, file: containerfile.Containerfile, folder: Path) -> Path:
    """Change an author's context, our copy of it, so that not a toolkit with modules in it comes out, but a driver
    container; return its Containerfile. The caller adds .dtkpipe/base.tar.
    """
    own = folder / ".dtkpipe"
    _write_plan(own / "plan", path=["."], firmware=list(found.spec.firmware))
    more = _tools(own, "Containerfile.repack")
    for ignored in folder.glob(".*ignore"):
        if ignored.name in (".containerignore", ".dockerignore"):
            ignored.write_text(f"{read_text(ignored).rstrip()}\n!.dtkpipe\n!.dtkpipe/**\n")
    result = own / "Containerfile"
    result.write_text(file.continued(more.read_text()))
    return result


def fill(text: str, variables: Mapping[str, str]) -> str:
    """Replace KMM's variables, `${KERNEL_VERSION}` and so on, in a value; everything else stays as it is."""
    for name, value in variables.items():
        text = text.replace(f"${{{name}}}", value)
    return text


def _has_goal(make: Sequence[str]) -> bool:
    """Tell whether arguments of make name what to make."""
    return any(not token.startswith("-") and "=" not in token for token in make)


def _targets(folder: Path, found: Recognised) -> list[str]:
    """Return the files to ask Kbuild for, where the spec wants some of the declared modules and not all."""
    declared = kbuild.modules(folder)
    if not declared or not found.listed:
        return []
    wanted = set(found.spec.names)
    chosen = [name for name in declared if module_name(Path(name).name) in wanted]
    return [f"{name}.ko" for name in chosen] if 0 < len(chosen) < len(declared) else []


def _write_plan(folder: Path, **values: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for name, items in values.items():
        (folder / name).write_text("".join(f"{item}\n" for item in items))


def _tools(into: Path, name: str) -> Path:
    scripts = shipped("catalog/recipes")
    (into / "tools").mkdir()
    for script in _SCRIPTS:
        shutil.copy(scripts / script, into / "tools" / script)
        (into / "tools" / script).chmod(0o755)
    shutil.copy(scripts / name, into / name)
    return into / name


def arguments(
    file: containerfile.Containerfile, spec: ModuleSpec, target: Target, toolkit: str, given: Mapping[str, str]
) -> dict[str, str]:
    """Return the build arguments of an author's Containerfile: KMM's always, others only where they are declared.

    Raises InvalidError for a given argument that no ARG declares: buildah would only warn, and ignore it.
    """
    variables = target.variables(spec)
    for name in given:
        if name not in file.declared:
            import difflib

            near = difflib.get_close_matches(name, list(file.declared), n=1)
            raise InvalidError(
                f"the Containerfile declares no build argument `{name}`",
                f"declared: {', '.join(file.declared) or 'none'}",
                hint=f"did you mean `{near[0]}`?" if near else f"add `ARG {name}` to it, or leave the argument out",
            )
    result = {name: variables[name] for name in variables if name in file.declared}
    for name in containerfile.TOOLKIT_NAMES:
        if name in file.declared:
            result[name] = toolkit
    for name in containerfile.KERNEL_NAMES:
        if name in file.declared:
            result[name] = target.kernel.release
    return {**result, **{name: fill(value, variables) for name, value in given.items()}}


def pairs(given: Sequence[str]) -> dict[str, str]:
    """Parse NAME=value. Raises InvalidError."""
    result = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign or not name.isidentifier() or not name.isascii() or any(letter < " " for letter in value):
            raise InvalidError(f"`{item[:80]}` is not a build argument", "expected NAME=value")
        result[name] = value
    return result
