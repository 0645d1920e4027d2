"""What a module is and how it is built, loaded and checked: the document dtkpipe.yaml, parsed once.

Where Kernel Module Management (KMM) has a word for something, it is the word here too. A module's name is kept with
underscores, as the kernel shows it: `simple-kmod` and `simple_kmod` are the same module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from dtkpipe.errors import InvalidError
from dtkpipe.values.arch import Arch
from dtkpipe.values.constraint import KernelConstraint, version_numbers
from dtkpipe.values.document import Document, load
from dtkpipe.values.kernel import Kernel

API_VERSION = "dtkpipe/v1"
RECIPES = ("kbuild", "dkms", "make")
REQUIRED, NEVER = UNLOADS = ("required", "never")

_SPEC_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
# The kernel's MODULE_NAME_LEN is 56 on 64 bit, the end mark included: include/linux/moduleparam.h.
_MODULE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,54}")
_PARAMETER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:=[^\x00-\x1f]*)?")
_ARG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._:=~-]*")
_DURATION = re.compile(r"(\d{1,5})(s|m|)")


def module_name(text: str) -> str:
    """Return a module's name as the kernel shows it: `-` becomes `_`. Raises InvalidError."""
    if not _MODULE_NAME.fullmatch(text):
        raise InvalidError(f"`{text}` is not the name of a kernel module")
    return text.replace("-", "_")


@dataclass(frozen=True, kw_only=True)
class Module:
    """One module: its name (with underscores), parameters as modprobe takes them, firmware below /lib/firmware."""

    name: str
    parameters: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Check:
    """A command that must end with 0 once the modules are loaded; `timeout` in seconds."""

    run: tuple[str, ...]
    timeout: int = 10


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A patch (path inside the source, applied with -p1) and the kernels it is for."""

    file: str
    kernel: KernelConstraint = KernelConstraint()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the source is, when the document does not lie in the source itself."""

    repo: str = ""
    ref: str = ""
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class BuildSpec:
    """How to compile: either the module's own Containerfile, or one of RECIPES."""

    containerfile: str = ""
    recipe: str = ""
    make: tuple[str, ...] = ()
    """More arguments for make. KMM's variables (`${KERNEL_VERSION}`, ...) are replaced."""
    packages: tuple[str, ...] = ()
    """Packages of the toolkit's distribution to install before; the only thing that needs network."""
    patches: tuple[Patch, ...] = ()
    args: Mapping[str, str] = field(default_factory=dict)
    """Build arguments of a Containerfile; variables of make in a recipe."""


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The kernels a module is for. `min` and `max` are included: `max: 6.1` takes 6.1.90."""

    min: str = ""
    max: str = ""
    variants: tuple[str, ...] = ()

    def refuses(self, kernel: Kernel) -> str:
        """Return why `kernel` is not among them, or an empty string."""
        if self.min and not KernelConstraint(f">={self.min}").holds(kernel):
            return f"needs kernel {self.min} or newer"
        if self.max and not KernelConstraint(f"<={self.max}").holds(kernel):
            return f"is for kernels up to {self.max}"
        if self.variants and kernel.variant not in self.variants:
            return f"is for the kernel flavours {', '.join(self.variants)}, not {kernel.variant}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """Kernels that are set aside until a day: a matrix does not build for them, and says why. No bound takes all."""

    kernel: KernelConstraint = KernelConstraint()
    variants: tuple[str, ...] = ()
    arches: tuple[Arch, ...] = ()
    reason: str
    until: date
    """The first day on which it does not count any more."""

    def covers(self, kernel: Kernel, arch: Arch) -> bool:
        """Tell whether `kernel` on `arch` is set aside, whatever the day."""
        return (
            self.kernel.holds(kernel)
            and (not self.variants or kernel.variant in self.variants)
            and (not self.arches or arch in self.arches)
        )


@dataclass(frozen=True, kw_only=True)
class ModuleSpec:
    """One dtkpipe.yaml. `modules` are in loading order; none means: whatever the build gives."""

    name: str
    source: Origin = Origin()
    build: BuildSpec = BuildSpec()
    modules: tuple[Module, ...] = ()
    in_tree_modules_to_remove: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    unload: str = REQUIRED
    kernels: Kernels = Kernels()
    arches: tuple[Arch, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()

    @property
    def pointer(self) -> ModuleSpec:
        """What it says of where a module is and which kernels it is for, and nothing of how it is built."""
        return ModuleSpec(
            name=self.name, source=self.source, kernels=self.kernels, arches=self.arches, exclusions=self.exclusions
        )

    @property
    def is_pointer(self) -> bool:
        """Whether it says nothing of how the module is built."""
        return self == self.pointer

    @property
    def names(self) -> tuple[str, ...]:
        """The modules' names in loading order."""
        return tuple(module.name for module in self.modules)

    @property
    def firmware(self) -> tuple[str, ...]:
        """Every firmware file that a module names, once."""
        return tuple(dict.fromkeys(file for module in self.modules for file in module.firmware))

    @classmethod
    def from_text(cls, text: str, *, where: str = "dtkpipe.yaml") -> ModuleSpec:
        """Parse YAML or JSON text. `where` names it in errors. Raises InvalidError."""
        return cls.parse(load(text, where), where=where)

    @classmethod
    def parse(cls, data: Any, *, where: str = "dtkpipe.yaml") -> ModuleSpec:
        """Parse the document's mapping. Raises InvalidError with `where`, the key's path and the nearest key."""
        top = Document(data, where)
        version = top.text("apiVersion", API_VERSION)
        if version != API_VERSION:
            raise top.error("apiVersion", f"`{version}` is not a version this dtkpipe reads", f"expected {API_VERSION}")
        name = top.matching("name", _SPEC_NAME, "up to 63 letters, digits, `.`, `_` and `-`", required=True)
        origin = top.section("source")
        kernels = top.section("kernels")
        spec = cls(
            name=name,
            source=Origin(repo=origin.text("repo"), ref=origin.text("ref"), path=origin.path("path")),
            build=_build(top.section("build")),
            modules=tuple(_module(one) for one in top.sections("modules", short="name")),
            in_tree_modules_to_remove=tuple(
                top.converted("inTreeModulesToRemove", module_name, also="inTreeModuleToRemove")
            ),
            checks=tuple(_check(one) for one in top.sections("checks", short="run")),
            unload=top.choice("unload", UNLOADS, REQUIRED),
            kernels=Kernels(
                min=kernels.text("min"), max=kernels.text("max"), variants=tuple(kernels.texts("variants"))
            ),
            arches=tuple(top.converted("arches", Arch.parse)),
            exclusions=tuple(_exclusion(one) for one in top.sections("exclusions", short="kernel")),
        )
        for section in (origin, kernels, top):
            section.done()
        _consistent(spec, top)
        return spec

    def to_mapping(self) -> dict[str, Any]:
        """Return the document, with the keys in their usual order and nothing that is empty."""
        build = self.build
        document: dict[str, Any] = _without_empty(
            {
                "apiVersion": API_VERSION,
                "name": self.name,
                "source": {"repo": self.source.repo, "ref": self.source.ref, "path": self.source.path},
                "build": {
                    "containerfile": build.containerfile,
                    "recipe": build.recipe,
                    "make": list(build.make),
                    "packages": list(build.packages),
                    "patches": [{"kernel": str(one.kernel), "file": one.file} for one in build.patches],
                    "args": dict(sorted(build.args.items())),
                },
                "modules": [
                    {"name": one.name, "parameters": list(one.parameters), "firmware": list(one.firmware)}
                    for one in self.modules
                ],
                "inTreeModulesToRemove": list(self.in_tree_modules_to_remove),
                "checks": [{"run": list(one.run), "timeout": f"{one.timeout}s"} for one in self.checks],
                "unload": self.unload if self.unload != REQUIRED else "",
                "kernels": {
                    "min": self.kernels.min, "max": self.kernels.max, "variants": list(self.kernels.variants)
                },
                "arches": [arch.name for arch in self.arches],
                "exclusions": [
                    {
                        "kernel": str(one.kernel), "variants": list(one.variants),
                        "arches": [arch.name for arch in one.arches],
                        "reason": one.reason, "until": one.until.isoformat(),
                    }
                    for one in self.exclusions
                ],
            }
        )  # fmt: skip
        return document

    def refuses(self, kernel: Kernel, arch: Arch) -> str:
        """Return why the module is not for `kernel` on `arch`, or an empty string."""
        if self.arches and arch not in self.arches:
            return f"is for {', '.join(one.name for one in self.arches)}, not {arch}"
        return self.kernels.refuses(kernel)

    def to_json(self) -> str:
        """Return the document as one line of JSON; equal specs give equal text."""
        return json.dumps(self.to_mapping(), ensure_ascii=False, separators=(",", ":"))


def _build(data: Document) -> BuildSpec:
    build = BuildSpec(
        containerfile=data.path("containerfile", also="dockerfile"),
        recipe=data.choice("recipe", RECIPES, ""),
        make=tuple(data.texts("make")),
        packages=tuple(data.each("packages", _PACKAGE, "a package name")),
        patches=tuple(_patch(one) for one in data.sections("patches", short="file")),
        args=data.pairs("args", _ARG_NAME, also="buildArgs"),
    )
    data.done()
    if build.containerfile and (build.recipe or build.make or build.packages or build.patches):
        raise data.error(
            "containerfile", "says itself how to build: recipe, make, packages and patches cannot be given with it"
        )
    return build


def _module(data: Document) -> Module:
    module = Module(
        name=data.convert("name", module_name, also="moduleName"),
        parameters=tuple(data.each("parameters", _PARAMETER, "a module parameter such as `debug=1`")),
        firmware=tuple(data.paths("firmware")),
    )
    data.done()
    return module


def _check(data: Document) -> Check:
    run = tuple(data.texts("run"))
    if not run or not run[0]:
        raise data.error("run", "a check needs a command", "expected a list, e.g. [test, -c, /dev/hello]")
    amount, unit = data.groups("timeout", _DURATION, "a time such as 10s or 2m", "10s")
    data.done()
    seconds = int(amount) * (60 if unit == "m" else 1)
    if not 1 <= seconds <= 600:
        raise data.error("timeout", f"`{amount}{unit}` is out of range", "expected 1s to 10m")
    return Check(run=run, timeout=seconds)


def _patch(data: Document) -> Patch:
    file = data.path("file")
    if not file:
        raise data.error("file", "a patch needs a file")
    patch = Patch(file=file, kernel=data.convert("kernel", KernelConstraint.parse, default=""))
    data.done()
    return patch


def _exclusion(data: Document) -> Exclusion:
    exclusion = Exclusion(
        kernel=data.convert("kernel", KernelConstraint.parse, default=""),
        variants=tuple(data.texts("variants")),
        arches=tuple(data.converted("arches", Arch.parse)),
        reason=data.matching("reason", re.compile(r".*\S.*"), "why these kernels are set aside", required=True),
        until=data.convert("until", _day),
    )
    data.done()
    return exclusion


def _day(text: str) -> date:
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise InvalidError(f"`{text}` is not a day", "expected YYYY-MM-DD, e.g. 2027-03-31")


def _consistent(spec: ModuleSpec, top: Document) -> None:
    """Refuse a document that contradicts itself."""
    twice = sorted({name for name in spec.names if spec.names.count(name) > 1})
    if twice:
        raise top.error("modules", f"`{twice[0]}` is listed twice", "`-` and `_` are the same in a module's name")
    for key, bound in (("kernels.min", spec.kernels.min), ("kernels.max", spec.kernels.max)):
        if bound and not re.fullmatch(r"\d+(?:[.-]\d+)*", bound):
            raise top.error(key, f"`{bound}` is not a kernel version", "expected numbers such as 5.14 or 5.14.0-427")
    low, high = version_numbers(spec.kernels.min), version_numbers(spec.kernels.max)
    if low and high and low > high[: len(low)] and low[: len(high)] > high:
        raise top.error("kernels", f"no kernel is both {spec.kernels.min} or newer and {spec.kernels.max} or older")
    for number, one in enumerate(spec.exclusions):
        for key, chosen, known in (
            ("variants", one.variants, spec.kernels.variants),
            ("arches", [arch.name for arch in one.arches], [arch.name for arch in spec.arches]),
        ):
            if wrong := [name for name in chosen if known and name not in known]:
                raise top.error(f"exclusions[{number}].{key}", f"the module is not for {wrong[0]} anyway",
                                f"it is for: {', '.join(known)}")  # fmt: skip


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ("", {}, [])}
    if isinstance(value, list):
        return [_without_empty(item) if isinstance(item, dict) else item for item in value]
    return value
