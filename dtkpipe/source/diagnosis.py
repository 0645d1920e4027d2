"""What went wrong in a build log: the first cause, in the compiler's words, not the page of make around it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_COMPILER = re.compile(r"^(?P<file>[^\s:][^:]*):(?P<line>\d+)(?::\d+)?: (?:fatal )?error: (?P<text>.*)$")
_CONTEXT = re.compile(r"^(?P<file>[^\s:][^:]*): (?P<text>In function .*|At top level):$")
_INCLUDED = re.compile(r"^In file included from (?P<file>[^:]+):(?P<line>\d+)")
_ASSEMBLER = re.compile(r"^(?P<file>[^\s:][^:]*):(?P<line>\d+): Error: (?P<text>.*)$")
_OURS = re.compile(r"^dtkpipe-(?P<kind>[a-z]+): (?P<text>.*)$")
_FALLBACKS = tuple(
    re.compile(pattern)
    for pattern in (
        r"^ERROR: (?:modpost: )?(?P<text>.*)$",
        r"^WARNING: modpost: (?P<text>.*(?:undefined!|uses symbol .*))$",
        r"^(?:.*/)?ld(?:\.\w+)?: (?P<text>.*(?:undefined reference|cannot find|error).*)$",
        r"^(?P<text>.*undefined reference to .*)$",
        r"^(?:/bin/)?(?:ba)?sh: (?:line )?(?:\d+: )?(?P<text>.*(?:command )?not found)$",
        r"^make(?:\[\d+\])?: (?P<text>[^:]*: (?:No such file or directory|Command not found|Permission denied))$",
        r"^(?P<text>.*No space left on device.*)$",
        r"^(?:error: )?(?P<text>patch failed: .*)$",
        r"^make(?:\[\d+\])?: \*\*\* (?P<text>No rule to make target .*)$",
        r"^(?:[^ ]*Makefile[^ ]*: ?\d+: )?\*\*\* (?P<text>.*?)\.?\s+Stop\.$",
        r"^(?:[^ ]*[Mm]akefile[^ ]*:\d+: )(?P<text>\*\*\* .*)$",
        r"^(?:[\w./-]+: |\W+)?(?:[Ee]rror(?:\[\w+\])?|ERROR|fatal|E): (?P<text>.*)$",
        r"^make(?:\[\d+\])?: \*\*\* (?P<text>.*)$",
    )
)  # fmt: skip
_BUILDER = re.compile(r'^(?:subprocess exited with status|(?:Error: |error )building at STEP "(?P<step>.*)": )|level=')
_STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+/\d+: ")
_PREFIX = re.compile(r"(?:/var/lib/dkms/[^/\s]+/[^/\s]+/build|/src)/")


@dataclass(frozen=True)
class Cause:
    """The first cause. `lines` are for the user, the most telling one first; `kind` is set by our own scripts."""

    lines: tuple[str, ...]
    kind: str = ""


def first_cause(log: str) -> Cause:
    """Find the first cause in a build's output. Never empty: the last lines are the answer of last resort."""
    said = [_PREFIX.sub("", line.rstrip()) for line in log.splitlines() if line.strip()]
    lines = [line for line in said if not _BUILDER.match(line)]
    for line in lines:
        if found := _OURS.match(line):
            return Cause((found["text"],), found["kind"])
    for number, line in enumerate(lines):
        if found := _COMPILER.match(line) or _ASSEMBLER.match(line):
            return Cause((line, *_around(lines, number, found["file"])))
    steps = [found["step"] for line in said if (found := _BUILDER.match(line)) and found["step"]]
    where = tuple(f"in: {step}" for step in steps[-1:] if "/dtkpipe/" not in step)
    for pattern in _FALLBACKS:
        hits = [found["text"] for line in lines if (found := pattern.match(line))]
        if hits:
            return Cause((*dict.fromkeys(hits[:4]), *where))
    begun = max((number for number, line in enumerate(lines) if _STEP.match(line)), default=-1)
    *before, last = lines[begun + 1 :][-5:] or ["the builder said nothing"]
    return Cause((last, *before, *where))


def _around(lines: Sequence[str], number: int, file: str) -> list[str]:
    """Return the function the error is in, what included its file, and the source lines the compiler shows."""
    result = []
    for line in reversed(lines[max(0, number - 12) : number]):
        if (found := _CONTEXT.match(line)) and found["file"] == file and found["text"].startswith("In function"):
            result.append(found["text"][0].lower() + found["text"][1:])
            break
        if found := _INCLUDED.match(line):
            result.append(f"included from {found['file']}:{found['line']}")
            break
        if _COMPILER.match(line):
            break
    shown = []
    for line in lines[number + 1 : number + 4]:
        if not re.match(r"^\s*\d*\s*\|", line):
            break
        shown.append(line)
    return result + shown


_ADVICE = (
    (
        r"fatal error: .*\.h: No such file",
        "a header is missing: its package can go into `build.packages`, a kernel header's new place into a patch",
    ),
    (r"not found$|Command not found", "the toolkit lacks a program: list its package in `build.packages`"),
    (
        r"incompatible[- ]pointer|too (?:few|many) arguments|implicit declaration|has no member|undeclared",
        "the kernel's interface differs from what the source expects: `build.patches` can fix it for some kernels",
    ),
    (r"undefined!", "neither the kernel nor another module of this build exports it"),
    (r"No space left", "the folder of caches is full: set DTKPIPE_CACHE to one on a larger disk"),
)


def hint(cause: Cause) -> str:
    """Return what can be done about a cause that many modules meet, or an empty string."""
    text = "\n".join(cause.lines)
    return next((advice for pattern, advice in _ADVICE if re.search(pattern, text, re.MULTILINE)), "")
