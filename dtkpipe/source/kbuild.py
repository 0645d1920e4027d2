"""Makefiles, read as far as they can be without running them: which modules, and which rule builds them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.source.tree import read_text

FILES = ("Kbuild", "Makefile", "GNUmakefile", "makefile")
"""Kbuild itself prefers Kbuild over Makefile: Documentation/kbuild/makefiles.rst."""

KERNEL_RELEASE_NAMES = ("KVER", "KVERS", "KVERSION", "KERNELVER", "KERNEL_VERSION", "KERNEL_UNAME",
                        "KERNEL_RELEASE", "KERNVER", "UNAME_R", "kernelver", "KERNEL_FULL_VERSION")  # fmt: skip
KERNEL_FOLDER_NAMES = ("KDIR", "KERNELDIR", "KERNEL_DIR", "KERNEL_PATH", "KERNEL_SRC", "KERNEL_SOURCE", "KSRC",
                       "KERN_DIR", "KERNEL_BUILD", "KBUILD_DIR", "LINUX_DIR", "LINUX_SRC", "KERNEL_SOURCE_DIR",
                       "KERNELPATH", "SYSSRC", "KERNEL_BUILD_DIR")  # fmt: skip
"""What authors call the kernel's release and its build folder."""

_LONGEST = 16 * 1024
"""Characters of a variable's value that are still looked at."""
_DEEPEST = 10
_ASSIGNMENT = re.compile(
    r"^(?:override\s+|export\s+)?(?P<name>[A-Za-z0-9_.$(){}-]+)\s*(?P<op>\?=|\+=|::?=|=)\s*(?P<value>.*)$"
)
_REFERENCE = re.compile(r"\$[({]([A-Za-z0-9_]+)[)}]")
_RULE = re.compile(r"^(?P<targets>[^\s#:=][^:=#]*?)\s*::?(?!=)\s*(?P<needs>[^=]*?)(?:;(?P<first>.*))?$")
_KERNEL_BUILD = re.compile(
    r"(?:\bmake\b|\$[({]MAKE[)}])(?=.*\s(?:-C|--directory))(?=.*(?:\bM=|\bSUBDIRS=|\bmodules\b))"
)
_OTHER_GOAL = re.compile(r"\b(?:clean|mrproper|modules_install|help|install)\s*(?:[;&|#]|$)")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule: its targets, what they need, its commands."""

    targets: tuple[str, ...]
    needs: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def builds_modules(self) -> bool:
        """Whether it calls the kernel's own build."""
        return any(_KERNEL_BUILD.search(line) and not _OTHER_GOAL.search(line) for line in self.commands)


@dataclass(frozen=True, kw_only=True)
class Makefile:
    """One makefile. `objects` are the obj-m entries (`foo.o`, `sub/`) with all their conditions taken as true."""

    path: Path
    objects: tuple[str, ...]
    complete: bool
    """False where an obj-m entry depends on what only make knows."""
    rules: tuple[Rule, ...]
    words: frozenset[str]
    """Every variable it refers to."""
    variables: Mapping[str, str]

    def kernel_arguments(self, release: str) -> list[str]:
        """Return what make has to be told about the kernel: variables left open, or set to one fixed place.

        What follows from `uname -r` needs nothing: in a build it answers the kernel that is built for.
        """

        def is_open(name: str) -> bool:
            return name in self.words and "$" not in self.variables.get(name, "")

        folder = f"/lib/modules/{release}/build"
        given = [f"{name}={release}" for name in KERNEL_RELEASE_NAMES if is_open(name)]
        return given + [f"{name}={folder}" for name in KERNEL_FOLDER_NAMES if is_open(name)]

    @property
    def goal(self) -> str | None:
        """What to ask make for: nothing (the default) where that leads to the kernel's build, else the rule that does.

        None where no rule builds modules.
        """
        builders = [rule for rule in self.rules if rule.builds_modules]
        if not builders:
            return None
        real = [rule for rule in self.rules if not rule.targets[0].startswith((".", "%"))]
        if real and any(self._leads(real[0].targets[0], builder) for builder in builders):
            return ""
        named = [one for builder in builders for one in builder.targets if re.fullmatch(r"[A-Za-z0-9_.-]+", one)]
        return named[0] if named else ""

    def _leads(self, target: str, builder: Rule) -> bool:
        seen, waiting = set(), [target]
        while waiting:
            name = waiting.pop()
            for rule in self.rules:
                if name in rule.targets and name not in seen:
                    if rule is builder:
                        return True
                    waiting += rule.needs
            seen.add(name)
        return False


def lines(text: str) -> list[tuple[int, str]]:
    """Return logical lines with the number each begins at; a backslash at the end joins two."""
    result, held, start = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start if held else number
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        result.append((start, held + line))
        held = ""
    return [*result, (start, held)] if held else result


def read(path: Path) -> Makefile:
    """Read one makefile. Nothing in it is run."""
    variables: dict[str, str] = {}
    objects: list[str] = []
    rules: list[Rule] = []
    words: set[str] = set()
    for _, line in lines(read_text(path)):
        words.update(_REFERENCE.findall(line))
        if line.startswith("\t"):
            if rules:
                last = rules[-1]
                rules[-1] = Rule(targets=last.targets, needs=last.needs, commands=(*last.commands, line.strip()))
            continue
        plain = line.split("#", 1)[0].strip()
        if found := _ASSIGNMENT.match(plain):
            name, value = _expand(found["name"], variables), found["value"].strip()
            if re.fullmatch(r"obj-(?:m|\$[({]CONFIG_[A-Z0-9_]+[)}])", name):
                objects += _expand(value, variables).split()
            elif found["op"] == "+=":
                variables[name] = f"{variables.get(name, '')} {value}".strip()[:_LONGEST]
            elif found["op"] != "?=" or name not in variables:
                variables[name] = value[:_LONGEST]
        elif found := _RULE.match(plain):
            targets = tuple(_expand(found["targets"], variables).split())
            first = (found["first"].strip(),) if found["first"] else ()
            if targets:
                rules.append(Rule(targets=targets, needs=tuple(found["needs"].split()), commands=first))
    known = tuple(dict.fromkeys(one for one in objects if "$" not in one))
    return Makefile(
        path=path,
        objects=known,
        complete=all("$" not in one for one in objects),
        rules=tuple(rules),
        words=frozenset(words),
        variables=variables,
    )


def _expand(text: str, variables: Mapping[str, str]) -> str:
    """Put in the variables whose values are plain text; a reference that is not stays as it is."""
    known: dict[str, str] = {}

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in known:
            known[name] = found[0]  # until it is known: a variable may refer to itself
            if name in variables and "$(shell" not in variables[name]:
                expanded = _REFERENCE.sub(value, variables[name])
                known[name] = expanded if len(expanded) <= _LONGEST else found[0]
        return known[name]

    return _REFERENCE.sub(value, text)


def find(folder: Path) -> Makefile | None:
    """Return the makefile of `folder` that declares modules, or the one that make would read."""
    found = [read(folder / name) for name in FILES if (folder / name).is_file()]
    return next((one for one in found if one.objects or not one.complete), found[-1] if found else None)


def modules(folder: Path, depth: int = 0) -> tuple[str, ...] | None:
    """Return the modules (`foo`, `sub/bar`) that the Kbuild files below `folder` declare; None if only make knows."""
    makefile = find(folder)
    if not makefile or not makefile.complete or depth > _DEEPEST:
        return None
    result: list[str] = []
    for one in makefile.objects:
        if one.endswith("/"):
            outside = one.startswith("/") or ".." in one.split("/")
            inner = modules(folder / one, depth + 1) if not outside and (folder / one).is_dir() else None
            if inner is None:
                return None
            result += [f"{one}{name}" for name in inner]
        elif one.endswith(".o"):
            result.append(one.removesuffix(".o"))
    return tuple(result)
