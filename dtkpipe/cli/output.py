"""How answers are printed: data on stdout in the form that `-o` names, colour only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TextIO

import typer

_HELP = "Form of the answer on stdout"
TableOrJson = Annotated[Literal["table", "json"], typer.Option("-o", "--output", help=_HELP)]
AnyForm = Annotated[Literal["table", "json", "yaml", "name"], typer.Option("-o", "--output", help=_HELP)]

_COLOURS = {"green": "32", "red": "31", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}


def emit(form: str, document: Any, text: Callable[[], str], names: Sequence[str] = ()) -> None:
    """Print `document` in one of the forms of `-o`; `text` writes the table, `names` are the lines of `name`."""
    if form == "json":
        import json

        print(json.dumps(document, indent=2, ensure_ascii=False))
    elif form == "yaml":
        from dtkpipe.engines.dump import dump

        print(dump(document if isinstance(document, list) else [document]), end="")
    elif form == "name":
        print(*names, sep="\n")
    else:
        print(text())


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align `rows` below `headers`, three spaces between columns, nothing behind the last."""
    widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headers, *rows)
    )


@dataclass(frozen=True)
class Look:
    """What a stream can show."""

    colour: bool
    """A terminal, and nobody set NO_COLOR (no-color.org)."""
    unicode: bool

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str] = os.environ) -> Look:
        """Look at `stream`."""
        colour = stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        return cls(colour, (stream.encoding or "").lower().replace("-", "") == "utf8")

    def paint(self, text: str, colour: str) -> str:
        """Return `text` in a colour, where the stream takes colours."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.colour else text


def say(line: str) -> None:
    """Tell the user one line: on stderr, because stdout is data."""
    print(line, file=sys.stderr, flush=True)
