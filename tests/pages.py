"""Reads the project's Markdown pages: their links, and the commands that they tell people to type."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_SHELL = ("sh", "console", "bash")


@dataclass(frozen=True)
class Block:
    """One fenced block. `info` is what stands behind the fence, e.g. `sh` or `sh run`."""

    page: Path
    line: int
    info: str
    body: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, without their indentation."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        lines = found["body"].splitlines()
        body = "\n".join(line.removeprefix(found["indent"]) for line in lines)
        yield Block(page, text[: found.start()].count("\n") + 1, found["info"].strip(), body)


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every simple command in the shell blocks of a page: (where, words). In a `console` block: the `$` lines."""
    for block in blocks(page):
        kind = block.info.partition(" ")[0]
        if kind not in _SHELL:
            continue
        body = re.sub(r"<<'?(\w+)'?.*?^\1$", "", block.body.replace("\\\n", " "), flags=re.MULTILINE | re.DOTALL)
        for line in body.splitlines():
            if kind == "console" and not line.startswith("$ "):
                continue
            for words in _simple(line.removeprefix("$ ")):
                yield block.where, words


def _simple(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    rest = iter(lexer)
    for word in rest:
        if set(word) <= set("|&;()"):
            yield words
            words = []
        elif set(word) <= set("<>"):
            next(rest, "")
        else:
            words.append(word)
    yield words


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links and pictures, code left out."""
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text()))
    for found in re.finditer(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        yield found[1]
    yield from re.findall(r'\bsrc(?:set)?="([^"]+)"', text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
