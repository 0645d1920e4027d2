"""What is known to go wrong with module sources, found without building: each with file, line and a fix.

A rule is a pattern on lines of some kinds of files, or a function over what was recognised. None runs anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from dtkpipe.source import containerfile, dkms, kbuild
from dtkpipe.source.containerfile import Containerfile, Instruction
from dtkpipe.source.recognise import SPEC_NAMES, Recognised
from dtkpipe.source.tree import MAX_TEXT, read_text

ERROR, WARNING = "error", "warning"
MAKEFILE, CONTAINERFILE, SCRIPT = "makefile", "containerfile", "script"
_LONGEST = 4096
"""Characters of a line that are looked at."""


@dataclass(frozen=True, order=True)
class Finding:
    """One hazard. `file` is relative to the module's folder; `line` counts from 1."""

    file: str
    line: int
    rule: str
    severity: str
    message: str
    fix: str

    def to_mapping(self) -> dict[str, str | int]:
        """Return the finding for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Rule:
    """One rule: its name, how bad it is, what is wrong and how to mend it."""

    name: str
    severity: str
    message: str
    fix: str

    def at(self, file: str, line: int, **values: str) -> Finding:
        """Return a finding of this rule."""
        return Finding(
            file, line, self.name, self.severity, self.message.format(**values), self.fix.format(**values)
        )  # fmt: skip


BUILDERS_KERNEL = Rule(
    "builders-kernel", WARNING,
    "`uname -r` is the kernel of the machine that builds, not the one that is built for",
    "take the kernel as a variable that can be given: `KVER ?= ...`, and pass it: `make KVER=${{KERNEL_FULL_VERSION}}`",
)  # fmt: skip
BUILDERS_KERNEL_IN_IMAGE = Rule(
    "builders-kernel", ERROR,
    "`uname -r` in a container build is the kernel of the build host",
    "use `${{KERNEL_FULL_VERSION}}`, and declare it with ARG in this stage",
)  # fmt: skip
FIXED_KERNEL = Rule(
    "fixed-kernel", WARNING, "`{found}` fits one kernel only", "use /lib/modules/$(KVER)/build, with KVER as a variable"
)
UNPINNED_CLONE = Rule(
    "unpinned-clone", WARNING, "git clone takes whatever the branch holds that day",
    "check out a commit after it: `git -C <folder> checkout <commit>`, or COPY the source",
)  # fmt: skip
SUDO = Rule(
    "sudo", WARNING, "`sudo` is not there in a build container, and not needed: builds run as root",
    "leave sudo out; whoever installs by hand can say `sudo make install`",
)  # fmt: skip
UNDECLARED = Rule(
    "undeclared-argument", ERROR, "build argument `{name}` is not declared in {where}: its value is ignored",
    "add `ARG {name}`",
)  # fmt: skip
ASKS = Rule(
    "asks-questions", ERROR, "`{tool} install` without -y asks a question that nobody can answer", "`{tool} install -y`"
)
UNPINNED_BASE = Rule(
    "unpinned-base",
    WARNING,
    "base image `{image}` is another one every time it is built",
    "name it by digest: @sha256:...",
)
LOADS = Rule(
    "loads-in-build", ERROR, "`{tool}` in a build would load into the build host's kernel", "leave loading to the node"
)
DEPMOD = Rule(
    "depmod-without-kernel", ERROR, "depmod without a kernel release works on the build host's",
    "`depmod -b /opt ${{KERNEL_FULL_VERSION}}`",
)  # fmt: skip
NO_LICENSE = Rule(
    "license-missing", ERROR, "module `{name}` has no MODULE_LICENSE: it does not link",
    'add `MODULE_LICENSE("GPL")` or what applies',
)  # fmt: skip
PROPRIETARY = Rule(
    "license-proprietary", WARNING, 'MODULE_LICENSE("{license}") taints the kernel and cannot use GPL-only symbols',
    "nothing, if it is meant",
)  # fmt: skip
NOT_DECLARED = Rule(
    "module-not-declared",
    ERROR,
    "module `{name}` is listed, and {where} does not build it",
    "add it there, or unlist it",
)
RULES = (BUILDERS_KERNEL, BUILDERS_KERNEL_IN_IMAGE, FIXED_KERNEL, UNPINNED_CLONE, SUDO, UNDECLARED, ASKS, UNPINNED_BASE,
         LOADS, DEPMOD, NO_LICENSE, PROPRIETARY, NOT_DECLARED)  # fmt: skip

_UNAME = re.compile(r"\buname\s+(?:-[a-z]*r|--kernel-release)")
_FIXED = re.compile(
    r"/(?:lib/modules|usr/src/(?:kernels|linux-headers-?))/?\d+\.\d+[^\s\"')]*|/usr/src/linux(?=[/\s\"')]|$)"
)
_CLONE = re.compile(r"\bgit\s+(?:-\S+\s+)*clone\b")
_PINNED = re.compile(r"\bgit\b[^;&|]*\b(?:checkout|reset\s+--hard|fetch)\b[^;&|]*(?:\b[0-9a-f]{7,64}\b|\$)")
_SUDO = re.compile(r"(?:^|[\s;&|@(])sudo\s")
_INSTALL = re.compile(r"\b(microdnf|dnf|yum|apt-get|apt|zypper)\s+((?:-\S+\s+)*)(install|in)\b([^;&|]*)")
_YES = re.compile(r"(?:^|\s)(?:-[a-z]*y[a-z]*|--yes|--assumeyes|--assume-yes|-n|--non-interactive)(?:\s|$)")
_LOAD = re.compile(r"(?:^|[\s;&|])(modprobe|insmod)\s")
_DEPMOD = re.compile(r"(?:^|[\s;&|])depmod\b([^;&|]*)")


def find(folder: Path, found: Recognised) -> list[Finding]:
    """Return the hazards of the module in `folder`, sorted by file and line."""
    result = set[Finding]()
    for path in _files(folder):
        name, text = str(path.relative_to(folder)), read_text(path)
        kind = _kind(path)
        if kind == CONTAINERFILE:
            result.update(_containerfile(name, containerfile.parse(text)))
        elif kind:
            result.update(_script(name, text))
    result.update(_licenses(folder))
    result.update(_spec(folder, found))
    return sorted(result)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if _kind(path) and path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_TEXT:
            yield path


def _kind(path: Path) -> str:
    name = path.name
    if re.fullmatch(r"(?:Containerfile|Dockerfile)(?:\..*)?|.*\.(?:Containerfile|Dockerfile)", name):
        return CONTAINERFILE
    if re.fullmatch(r"(?:GNUm|m|M)akefile(?:\..*)?|Kbuild(?:\..*)?|.*\.mk", name):
        return MAKEFILE
    if name in (dkms.NAME, "configure", "configure.ac") or name.endswith(".sh"):
        return SCRIPT
    return ""


def _script(file: str, text: str) -> Iterator[Finding]:
    """Find what is wrong in makefiles and scripts."""
    logical = [(number, line[:_LONGEST]) for number, line in kbuild.lines(text)]
    pinned = any(_PINNED.search(line) for _, line in logical)
    for number, line in logical:
        if line.lstrip("\t @-").startswith("#"):
            continue
        if _UNAME.search(line):
            yield BUILDERS_KERNEL.at(file, number)
        if fixed := _FIXED.search(line):
            yield FIXED_KERNEL.at(file, number, found=fixed[0])
        if _SUDO.search(line):
            yield SUDO.at(file, number)
        if _CLONE.search(line) and not pinned:
            yield UNPINNED_CLONE.at(file, number)


def _containerfile(file: str, parsed: Containerfile) -> Iterator[Finding]:
    stages = {stage.name.lower() for stage in parsed.stages}
    for stage in parsed.stages:
        image = stage.base
        if "$" in image or image.lower() in {*stages, "scratch"} or "@sha256:" in image:
            continue
        yield UNPINNED_BASE.at(file, stage.line, image=image)
    for one in parsed.instructions:
        if one.word == "RUN":
            yield from _run(file, one)
    yield from _invisible(file, parsed)


def _run(file: str, one: Instruction) -> Iterator[Finding]:
    text = one.rest[:_LONGEST]
    if _UNAME.search(text):
        yield BUILDERS_KERNEL_IN_IMAGE.at(file, one.line)
    if _SUDO.search(text):
        yield SUDO.at(file, one.line)
    if _CLONE.search(text) and not _PINNED.search(text):
        yield UNPINNED_CLONE.at(file, one.line)
    for tool, before, _, after in _INSTALL.findall(text):
        if not _YES.search(f" {before} {after} "):
            yield ASKS.at(file, one.line, tool=tool)
    if loads := _LOAD.search(f"{text} "):
        yield LOADS.at(file, one.line, tool=loads[1])
    for given in _DEPMOD.findall(text):
        words = [word for word in given.split() if not word.startswith("-")]
        takes = len(re.findall(r"(?:^|\s)-(?:b|F|E|C|o)(?=\s)", given))
        if len(words) <= takes:
            yield DEPMOD.at(file, one.line)


def _invisible(file: str, parsed: Containerfile) -> Iterator[Finding]:
    """Find KMM's arguments used in a stage that does not declare them: each FROM forgets what came before."""
    declared: set[str] = set()
    stage = 0
    for one in parsed.instructions:
        if one.word == "FROM":
            declared, stage = set(), stage + 1
        elif one.word in ("ARG", "ENV"):
            declared.update(re.findall(r"[A-Za-z_]\w*", one.rest))
        elif stage:
            for name in (*containerfile.KERNEL_NAMES, "MOD_NAME", "MOD_NAMESPACE"):
                used = re.search(rf"\$(?:\{{{name}\b|{name}\b)", one.rest)
                if used and name not in declared and not re.search(rf"(?:^|[\s;&]){name}=", one.rest):
                    yield UNDECLARED.at(file, one.line, name=name, where="this stage")


def _licenses(folder: Path) -> Iterator[Finding]:
    makefile = kbuild.find(folder)
    for name in kbuild.modules(folder) or ():
        source = folder / f"{name}.c"
        if not makefile or not source.is_file() or source.is_symlink():
            continue  # made of several files, or generated
        number = next((n for n, line in enumerate(source.read_text(errors="replace").splitlines(), 1)
                       if "MODULE_LICENSE" in line), 0)  # fmt: skip
        composite = re.compile(rf"^{re.escape(Path(name).name)}-(?:objs|y)\b", re.MULTILINE)
        if not number and not composite.search(read_text(makefile.path)):
            yield NO_LICENSE.at(f"{name}.c", 1, name=name)
    for path in sorted(folder.rglob("*.c")):
        if path.is_symlink() or path.stat().st_size > MAX_TEXT:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            license_ = re.search(r'MODULE_LICENSE\s*\(\s*"([^"]*)"', line)
            if license_ and "GPL" not in license_[1]:
                yield PROPRIETARY.at(str(path.relative_to(folder)), number, license=license_[1])


def _spec(folder: Path, found: Recognised) -> Iterator[Finding]:
    """Compare what dtkpipe.yaml says with the files it speaks of."""
    file = next((name for name in SPEC_NAMES if (folder / name).is_file()), "")
    if not file:
        return
    text = read_text(folder / file)
    build = found.spec.build
    if build.containerfile and (folder / build.containerfile).is_file():
        parsed = containerfile.parse(read_text(folder / build.containerfile))
        for name in build.args:
            if name not in parsed.declared:
                yield UNDECLARED.at(file, _line_of(name, text), name=name, where=build.containerfile)
    promised = _promised(folder, found)
    for name in found.spec.names if promised is not None else ():
        if promised is not None and name not in promised:
            yield NOT_DECLARED.at(file, _line_of(name, text), name=name, where=found.how)


def _promised(folder: Path, found: Recognised) -> set[str] | None:
    """Return the modules that the recipe's files say they build; None where only the build will tell."""
    names: list[str] | None = None
    if found.spec.build.recipe == "dkms":
        modules = dkms.read(folder / dkms.NAME).modules
        names = None if modules is None else [one.built for one in modules]
    elif found.spec.build.recipe == "kbuild":
        declared = kbuild.modules(folder)
        names = None if declared is None else [Path(one).name for one in declared]
    return None if names is None else {name.replace("-", "_") for name in names}


def _line_of(name: str, text: str) -> int:
    """Return the line of a document that speaks of `name`; the first one, if none does."""
    shape = re.compile(r"\b" + re.sub(r"\\?[_-]", "[_-]", re.escape(name)) + r"\b")
    return next((n for n, line in enumerate(text.splitlines(), 1) if shape.search(line)), 1)
