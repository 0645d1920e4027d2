"""Containerfiles of module authors, read as far as a build needs to know: stages, bases, declared arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.source.kbuild import lines
from dtkpipe.source.tree import read_text

NAMES = ("Containerfile", "Dockerfile")
TOOLKIT_NAMES = ("DTK_AUTO", "DTK")
KERNEL_NAMES = ("KERNEL_FULL_VERSION", "KERNEL_VERSION", "KVER")
"""Build arguments for the toolkit and the kernel: KMM's first, then those of the Driver Toolkit's README."""
_FINAL = "dtkpipe-author"

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::-([^}]*))?\}|([A-Za-z_]\w*))")


@dataclass(frozen=True)
class Instruction:
    """One instruction: where it begins, its word in capitals, the rest."""

    line: int
    word: str
    rest: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: its name (or its number as text) and what it is based on, with arguments not yet replaced."""

    name: str
    base: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Containerfile:
    """One Containerfile."""

    text: str
    instructions: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    declared: Mapping[str, str | None]
    """ARG name -> its default."""

    @property
    def is_for_modules(self) -> bool:
        """Whether it asks for a toolkit or a kernel the way KMM gives them."""
        return any(name in self.declared for name in (*TOOLKIT_NAMES, *KERNEL_NAMES)) or "DTK_AUTO" in self.text

    def final_base(self, args: Mapping[str, str]) -> str:
        """Return the image that the final stage is based on, through all stages, with `args` put in."""
        if not self.stages:
            return ""
        bases = {stage.name.lower(): stage.base for stage in self.stages}
        base, seen = self._filled(self.stages[-1].base, args), set()
        while base.lower() in bases and base.lower() not in seen:
            seen.add(base.lower())
            base = self._filled(bases[base.lower()], args)
        return base

    def bases(self, args: Mapping[str, str]) -> list[str]:
        """Return the images that stages are based on, with `args` put in; neither stages nor scratch."""
        names = {stage.name.lower() for stage in self.stages}
        filled = [self._filled(stage.base, args) for stage in self.stages]
        return [base for base in dict.fromkeys(filled) if base.lower() not in {*names, "scratch"}]

    def continued(self, more: str) -> str:
        """Return the text with `more` behind it, where `${AUTHOR}` stands for the name of the final stage so far."""
        number, last = len(self.stages) - 1, self.stages[-1]
        if last.name != str(number):
            return f"{self.text.rstrip()}\n{more.replace('${AUTHOR}', last.name)}"
        rows = self.text.splitlines()
        end = last.line - 1
        while rows[end].endswith("\\") and end + 1 < len(rows):
            end += 1
        rows[end] += f" AS {_FINAL}"
        return "\n".join([*rows, more.replace("${AUTHOR}", _FINAL)])

    def _filled(self, text: str, args: Mapping[str, str]) -> str:
        def value(found: re.Match[str]) -> str:
            name = found[1] or found[3]
            return args.get(name) or self.declared.get(name) or found[2] or ""

        return _VARIABLE.sub(value, text)


def parse(text: str) -> Containerfile:
    """Parse a Containerfile. Format: containers/common, Containerfile(5)."""
    kept: list[str] = []
    for line in text.splitlines():
        # A comment between continued lines does not end them.
        blank = "\\" if kept and kept[-1].endswith("\\") else ""
        kept.append(blank if re.match(r"\s*#", line) else line.rstrip())
    instructions = []
    for number, line in lines("\n".join(kept)):
        if found := re.match(r"\s*([A-Za-z]+)\s+(.*)", line, re.DOTALL):
            instructions.append(Instruction(number, found[1].upper(), re.sub(r"[ \t]+", " ", found[2]).strip()))
    stages: list[Stage] = []
    declared: dict[str, str | None] = {}
    for one in instructions:
        if one.word == "FROM":
            words = [word for word in one.rest.split() if not word.startswith("--")]
            named = len(words) == 3 and words[1].lower() == "as"
            if words:
                stages.append(Stage(name=words[2] if named else str(len(stages)), base=words[0], line=one.line))
        elif one.word == "ARG":
            for item in re.findall(r"[A-Za-z_]\w*(?:=(?:\"[^\"]*\"|'[^']*'|\S*))?", one.rest):
                name, sign, default = item.partition("=")
                if declared.get(name) is None:
                    declared[name] = default.strip("\"'") if sign else None
    return Containerfile(text=text, instructions=tuple(instructions), stages=tuple(stages), declared=declared)


def find(folder: Path) -> Path | None:
    """Return the Containerfile in `folder` that is for modules."""
    for name in NAMES:
        path = folder / name
        if path.is_file() and parse(read_text(path)).is_for_modules:
            return path
    return None
