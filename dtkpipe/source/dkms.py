"""dkms.conf, read as data on this machine: it is a shell script, and nothing in it is run here.

Assignments are evaluated as far as text alone allows; what depends on commands or conditions is left open, and said.
The build evaluates the file as DKMS does, inside the build container, where the module's own code runs anyway.
Format: dkms(8), section "DKMS.CONF".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.source.tree import read_text

NAME = "dkms.conf"

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[([^\]]*)\])?(\+?=)", re.DOTALL)
_OPENS = {"if", "case", "for", "while", "until", "{", "("}
_CLOSES = {"fi", "esac", "done", "}", ")"}
_GIVEN = ("kernelver", "kernel_source_dir", "dkms_tree", "source_tree", "install_tree", "arch")


@dataclass(frozen=True)
class Assigned:
    """The value of a variable; `text` is None where it cannot be known without running something."""

    text: str | None
    line: int


@dataclass(frozen=True, kw_only=True)
class DkmsModule:
    """One module: its name as built, its folder, and the name it is installed under."""

    built: str
    location: str = ""
    installed: str = ""


@dataclass(frozen=True, kw_only=True)
class DkmsConf:
    """What a dkms.conf says. `modules` is None where only running it would tell."""

    name: str
    version: str
    modules: tuple[DkmsModule, ...] | None
    values: Mapping[str, Assigned]
    open_points: tuple[str, ...]
    """What could not be evaluated, for the user, with the line."""


def read(path: Path) -> DkmsConf:
    """Read a dkms.conf."""
    values, notes = _evaluate(read_text(path))

    def text(name: str) -> str:
        assigned = values.get(f"{name}[0]") or values.get(name)
        return (assigned.text or "") if assigned else ""

    return DkmsConf(
        name=text("PACKAGE_NAME"),
        version=text("PACKAGE_VERSION"),
        modules=_modules(values),
        values=values,
        open_points=tuple(notes),
    )


def _modules(values: Mapping[str, Assigned]) -> tuple[DkmsModule, ...] | None:
    """DKMS takes PACKAGE_NAME where a single module has no name of its own."""
    if any(name.startswith("BUILT_MODULE_NAME[?") for name in values):
        return None
    indices = sorted(
        {int(found[1]) for name in values if (found := re.fullmatch(r"(?:BUILT|DEST)_MODULE_\w+\[(\d+)\]", name))}
    )
    result = []
    for n in indices or [0]:
        built = values.get(f"BUILT_MODULE_NAME[{n}]") or (values.get("PACKAGE_NAME[0]") if n == 0 else None)
        location = values.get(f"BUILT_MODULE_LOCATION[{n}]", Assigned("", 0))
        installed = values.get(f"DEST_MODULE_NAME[{n}]", built)
        if not built or not built.text or location.text is None or not installed or installed.text is None:
            return None
        result.append(DkmsModule(built=built.text, location=location.text.strip("/"), installed=installed.text))
    return tuple(result)


def _evaluate(text: str) -> tuple[dict[str, Assigned], list[str]]:
    values: dict[str, Assigned] = {}
    notes: list[str] = []
    depth = 0
    for line, words in _statements(text):
        first = words[0]
        if first in _OPENS:
            depth += 1
        assignments = [word for word in words if _ASSIGNMENT.match(word)]
        if not depth and first not in {*_CLOSES, "export", "declare"} and not assignments:
            notes.append(f"line {line}: the command `{first[:40]}` is not run")
        for word in assignments:
            found = _ASSIGNMENT.match(word)
            assert found is not None  # noqa: S101 - it matched above
            name, index, sign = found.groups()
            where = _expand(index, values) if index is not None else "0"
            value = _expand(word[found.end() :], values) if not depth else None
            key = f"{name}[{where}]" if where is not None and where.isdigit() else f"{name}[?{line}]"
            before = values.get(key)
            if sign == "+=" and before:
                value = None if value is None or before.text is None else before.text + value
            if value is None:
                notes.append(f"line {line}: the value of `{name}` depends on where it runs")
            values[key] = Assigned(value, line)
        if first in _CLOSES:
            depth = max(0, depth - 1)
    return values, list(dict.fromkeys(notes))


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Split into simple commands, each a list of raw words; quotes, substitutions and comments are respected."""
    words: list[str] = []
    word, quote, nested, line, begun = "", "", 0, 1, 1
    position = 0
    while position < len(text):
        letter = text[position]
        pair = text[position : position + 2]
        if pair == "\\\n" and quote != "'":
            line, position = line + 1, position + 2
            continue
        if letter == "\\" and quote != "'":
            word, position = word + pair, position + 2
            continue
        if letter == "\n":
            line += 1
        if quote:
            quote = "" if letter == quote else quote
            word += letter
        elif letter in "'\"`":
            quote, word = letter, word + letter
        elif pair in ("$(", "${") or (nested and letter in "({"):
            nested += 1
            word += pair if letter == "$" else letter
            position += 1 if letter == "$" else 0
        elif nested:
            nested -= letter in ")}"
            word += letter
        elif letter == "#" and not word:
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
            continue
        elif letter in " \t\n;&|":
            if word:
                words.append(word)
                word = ""
            if letter not in " \t" and words:
                yield begun, words
                words = []
        else:
            if not word and not words:
                begun = line
            word += letter
        if quote and len(word) == 1 and not words and word in "'\"`":
            begun = line
        position += 1
    if word:
        words.append(word)
    if words:
        yield begun, words


_PIECE = re.compile(
    r"""'(?P<single>[^']*)'|\\(?P<escaped>.)|\$\{(?P<braced>[A-Za-z_]\w*)(?::?-(?P<default>[^}]*))?\}"""
    r"""|\$(?P<name>[A-Za-z_]\w*)|(?P<double>")|(?P<run>`|\$\(|\$\{|\$)|(?P<plain>[^'"\\$`]+)""",
    re.DOTALL,
)


def _expand(word: str, values: Mapping[str, Assigned]) -> str | None:
    """Return a word's value, or None where a command or an unknown variable is part of it.

    What DKMS itself sets (`$kernelver` and others) stays in the text as `${kernelver}`.
    """
    result, inside, position = "", False, 0
    while position < len(word):
        letter = word[position]
        if inside and letter == "'":
            result, position = result + letter, position + 1
            continue
        found = _PIECE.match(word, position)
        if not found or found["run"]:
            return None
        position = found.end()
        if found["double"]:
            inside = not inside
        elif name := found["braced"] or found["name"]:
            known = values.get(f"{name}[0]")
            if name in _GIVEN:
                result += f"${{{name}}}"
            elif known:
                if known.text is None:
                    return None
                result += known.text
            else:
                result += found["default"] or ""
        elif found["escaped"] is not None:
            result += found["escaped"] if not inside or found["escaped"] in '"$`\\' else f"\\{found['escaped']}"
        else:
            result += found["single"] if found["single"] is not None else found["plain"]
    return result
