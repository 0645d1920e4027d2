"""The run card as people read it: a headline, facts, tables. Every report format is made from these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dtkpipe.values.run import FAILED, RunCard, StepRecord


@dataclass(frozen=True)
class Table:
    """A table of plain text: no markup, no escapes, one line per cell."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def seconds(value: float) -> str:
    """Write a duration: `0.4 s`, `12.3 s`, `2 min 05 s`; nothing for none."""
    if value <= 0:
        return ""
    whole = round(value)
    return f"{value:.1f} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def headline(card: RunCard) -> str:
    """Return the run in one line: its name, its outcome, how long it took, why it failed."""
    took = seconds(card.finished - card.created)
    return f"{card.name} {card.state}" + (f" in {took}" if took else "") + (f": {card.cause}" if card.cause else "")


def facts(card: RunCard) -> tuple[tuple[str, str], ...]:
    """Return what the run took and gave, as (name, value); what is not known is left out."""
    return tuple((name, value) for name, value in _facts(card) if value)


def _facts(card: RunCard) -> Iterator[tuple[str, str]]:
    yield "namespace", card.namespace
    yield "source", card.inputs.get("repo", "")
    yield "commit", card.result("build", "COMMIT")
    yield "release", card.result("resolve", "RELEASE") or card.inputs.get("release", "")
    yield "kernel", card.result("resolve", "KERNEL")
    yield "toolkit", image_of(card, "resolve", "TOOLKIT")
    yield "signer", card.result("sign", "SIGNER")
    yield "verdict", card.result("verify", "VERDICT")
    yield "image", image_of(card, "publish")
    yield "tags", card.result("publish", "TAGS")


def image_of(card: RunCard, task: str, image: str = "IMAGE") -> str:
    """Return an image that `task` gave, by digest, or an empty string."""
    url, digest = card.result(task, f"{image}_URL"), card.result(task, f"{image}_DIGEST")
    return f"{url}@{digest}" if url and digest else ""


def steps(card: RunCard) -> Table:
    """Return the tasks in their order: how each ended, how long it took, and why it failed."""
    return Table(("task", "state", "time", "note"), tuple(_step(step) for step in card.steps))


def _step(step: StepRecord) -> tuple[str, str, str, str]:
    note = step.cause or ("reused" if step.reused else "")
    return step.name, step.state, seconds(step.seconds), " ".join(note.split())


def proofs(card: RunCard) -> Table:
    """Return what verify proved, in its order; the last one may have failed. Schema: dtkpipe/verdict/v1."""
    found = card.verdict.get("proofs", ()) if card.verdict else ()
    rows = ((one["name"], one["result"], seconds(one["seconds"]), " ".join(one["summary"].split())) for one in found)
    return Table(("proof", "result", "time", "what it found"), tuple(rows))


def nodes(card: RunCard) -> Table:
    """Return the verdict of each node."""
    return Table(("node", "verdict"), tuple(card.nodes.items()))


def failures(card: RunCard) -> tuple[StepRecord, ...]:
    """Return the tasks that failed."""
    return tuple(step for step in card.steps if step.state == FAILED)


def aligned(table: Table) -> str:
    """Write a table in columns for a terminal, without trailing blanks; an empty text for a table without rows."""
    if not table.rows:
        return ""
    return "\n".join(columns([tuple(name.upper() for name in table.head), *table.rows]))


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Put rows of equal length into columns, two blanks apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def text(card: RunCard) -> str:
    """Write the whole card for a terminal, ending in a newline."""
    blocks = [headline(card), "\n".join(columns(facts(card))), *map(aligned, (steps(card), proofs(card), nodes(card)))]
    return "\n\n".join(block for block in blocks if block) + "\n"
