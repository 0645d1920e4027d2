"""Run cards as GitHub-flavoured Markdown: the summary of a CI job, a comment on a merge request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dtkpipe.report.card import Table, facts, failures, headline, image_of, nodes, proofs, seconds, steps
from dtkpipe.values.run import CANCELLED, FAILED, SUCCEEDED, RunCard

LIMIT = 1024 * 1024
"""Bytes that GitHub takes for one job summary (docs: Workflow commands, step isolation and limits)."""

_MARKS = {SUCCEEDED: "✅", FAILED: "❌", CANCELLED: "⏹"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~@!:])")


def markdown(cards: Sequence[RunCard]) -> str:
    """Write one summary: a table of the runs, what failed first, then the detail of each run.

    Details that would make the text longer than LIMIT are left out, and that is said.
    """
    ordered = sorted(cards, key=lambda card: card.state == SUCCEEDED)
    overview = Table(
        ("", "run", "release", "kernel", "verdict", "time", "image"),
        tuple(
            (
                _MARKS.get(card.state, "·"),
                card.name,
                card.result("resolve", "RELEASE") or card.inputs.get("release", ""),
                card.result("resolve", "KERNEL"),
                card.result("verify", "VERDICT") or card.state,
                seconds(card.finished - card.created),
                image_of(card, "publish"),
            )
            for card in ordered
        ),
    )
    parts = [table(overview)]
    left_out = 0
    size = len(parts[0].encode())
    for card in ordered:
        detail = _detail(card)
        size += len(detail.encode()) + 1
        if size > LIMIT - 200:
            left_out += 1
        else:
            parts.append(detail)
    if left_out:
        parts.append(f"The details of {left_out} runs are left out: the summary would be too long.\n")
    return "\n".join(parts)


def _detail(card: RunCard) -> str:
    lines = [f"### {escape(headline(card))}", ""]
    lines += [f"- {escape(name)}: {code(value)}" for name, value in facts(card)]
    lines += ["", table(steps(card))]
    for step in failures(card):
        lines += [f"**{escape(step.name)}**: {escape(step.cause or 'failed')}", ""]
    lines += [table(one) for one in (proofs(card), nodes(card)) if one.rows]
    return "\n".join(lines)


def table(content: Table) -> str:
    """Write a table; empty text for a table without rows."""
    if not content.rows:
        return ""
    lines = [content.head, tuple("---" for _ in content.head), *(tuple(map(escape, row)) for row in content.rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escape(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no link, no mention, one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Return text as a code span, whatever backticks it holds (CommonMark 0.31, 6.1)."""
    line = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    blank = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{blank}{line}{blank}{fence}"
