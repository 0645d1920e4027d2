"""A run as lines of text: its name and state, then a line for each task. Live, at the end, and in `describe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dtkpipe.cli.output import Look
from dtkpipe.report.card import seconds
from dtkpipe.values.run import CANCELLED, FAILED, PENDING, RUNNING, SKIPPED, SUCCEEDED, RunCard, StepRecord

MARKS = {SUCCEEDED: "✔", FAILED: "✖", RUNNING: "●", PENDING: "○", SKIPPED: "-", CANCELLED: "✖"}
_COLOURS = {SUCCEEDED: "green", FAILED: "red", RUNNING: "cyan", PENDING: "dim", SKIPPED: "dim", CANCELLED: "yellow"}
# What says most about a task that went well, the first that it has.
_TELLING = ("VERDICT", "SIGNER", "TAGS", "KERNEL", "IMAGE_DIGEST", "WORKLOAD", "REMOVED", "OUTCOME")


def lines(card: RunCard, now: float, look: Look, said: Mapping[str, str] | None = None, width: int = 0) -> list[str]:
    """Return the run as lines. `said` is the last line that each running task wrote; `width` cuts the lines."""
    took = seconds((card.finished or now) - card.created)
    found = [f"{card.name}   {look.paint(card.state, _COLOURS[card.state])}   {took}   {card.engine}"]
    longest = max((len(step.name) for step in card.steps), default=0)
    for step in card.steps:
        mark = MARKS[step.state] if look.unicode else step.state[0].upper()
        text = _text(step, longest, now, (said or {}).get(step.name, ""))
        found.append(f" {look.paint(mark, _COLOURS[step.state])} {text[: max(width - 4, 10)] if width else text}")
    return found


def note(step: StepRecord) -> str:
    """Return what is worth saying about a task that has ended: its cause, or its most telling result."""
    if step.cause:
        return step.cause
    telling = next((step.results[name] for name in _TELLING if step.results.get(name)), "")
    short = telling[:19] if telling.startswith("sha256:") else telling
    return " ".join(filter(None, ("reused" if step.reused else "", short)))


def _text(step: StepRecord, longest: int, now: float, said: str) -> str:
    took = seconds(now - step.started) if step.state == RUNNING else "" if step.reused else seconds(step.seconds)
    return f"{step.name:<{longest}}  {took:>9}   {_plain(said if step.state == RUNNING else note(step))}".rstrip()


def _plain(text: str) -> str:
    """Drop what could move the cursor: the text may come from a module's own build."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def columns(rows: Sequence[tuple[str, str]]) -> str:
    """Write name and value pairs in two columns."""
    longest = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{longest}}   {value}" for name, value in rows)
