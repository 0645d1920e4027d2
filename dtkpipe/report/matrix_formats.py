"""A matrix as Markdown (the summary of a CI job), as JUnit XML and as a badge."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as escape_xml
from xml.etree import ElementTree

from dtkpipe.matrix.causes import Group, headline
from dtkpipe.matrix.plan import Plan, Planned
from dtkpipe.report.card import Table
from dtkpipe.report.junit import clean
from dtkpipe.report.markdown import LIMIT, code, escape, table
from dtkpipe.report.matrix import folded, said, summary
from dtkpipe.values.cell import State

_MARGIN = 1000
"""Bytes that are left for the words around the tables."""


def markdown(plan: Plan, groups: Sequence[Group]) -> str:
    """Write GitHub-flavoured Markdown: causes first, then what is not current. It stays below GitHub's limit."""
    causes = Table(
        ("cells", "cause", "kind", "modules", "first bad kernel", "last green"),
        tuple(
            (
                str(len(group.cells)), group.fingerprint.text, group.fingerprint.kind, ", ".join(group.modules[:6]),
                group.first_bad.target.name, group.last_green.target.name if group.last_green else "none",
            )
            for group in groups
        ),
    )  # fmt: skip
    rest = Table(folded(plan).head, tuple(row for row in folded(plan).rows if row[5] != State.CURRENT))
    parts = [f"## {escape(headline(groups))}\n", f"{escape(summary(plan))}\n"]
    left = LIMIT - _MARGIN - sum(len(part.encode()) for part in parts)
    for one in (causes, rest):
        text, missing = _fitting(one, left)
        left -= len(text.encode())
        if text:
            parts.append(text)
        if missing:
            parts.append(f"{missing} more rows are left out: the summary would be too long.\n")
    parts += [f"- {code(notice)}" for notice in plan.notices[:20]]
    return "\n".join(parts).rstrip("\n") + "\n"


def _fitting(content: Table, limit: int) -> tuple[str, int]:
    """Write as many rows as there is room for; return how many are left out."""
    rows = content.rows
    while rows and len((text := table(Table(content.head, rows))).encode()) > limit:
        rows = rows[: len(rows) // 2]
    return (text if rows else ""), len(content.rows) - len(rows)


def junit(plan: Plan, groups: Sequence[Group]) -> str:
    """Write JUnit XML: a suite for each module, a case for each kernel.

    Red cells and broken specs are failures, what is not known is an error, what is stale or set aside is skipped.
    """
    causes = {one.image: group for group in groups for one in group.cells}
    root = ElementTree.Element("testsuites")
    by_module: dict[str, list[Planned]] = {}
    for one in plan.cells:
        by_module.setdefault(one.module, []).append(one)
    for module, cells in by_module.items():
        states = [one.state for one in cells]
        red, unknown = states.count(State.FAILED_BEFORE), states.count(State.UNKNOWN)
        suite = ElementTree.SubElement(
            root, "testsuite", name=clean(module), tests=str(len(cells)), failures=str(red), errors=str(unknown),
            skipped=str(len(cells) - red - unknown - states.count(State.CURRENT)),
        )  # fmt: skip
        for one in cells:
            case = ElementTree.SubElement(suite, "testcase", classname=clean(module), name=clean(one.target.name))
            if one.state is State.FAILED_BEFORE:
                group = causes.get(one.image)
                message = str(group.fingerprint) if group else one.reason
                failure = ElementTree.SubElement(case, "failure", message=clean(message))
                failure.text = clean(f"{one.reason}\nrecord: {one.image}")
            elif one.state is State.UNKNOWN:
                ElementTree.SubElement(case, "error", message=clean(one.reason))
            elif one.state is not State.CURRENT:
                ElementTree.SubElement(case, "skipped", message=clean(f"{said(one)}: {one.reason}"))
    for broken in plan.broken:
        suite = ElementTree.SubElement(root, "testsuite", name=clean(broken.file.name), tests="1", failures="1",
                                       errors="0", skipped="0")  # fmt: skip
        case = ElementTree.SubElement(suite, "testcase", classname="spec", name=clean(broken.file.name))
        ElementTree.SubElement(case, "failure", message=clean(broken.error.what))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def badge(plan: Plan) -> str:
    """Write a badge as SVG: how many cells are current, in the colour of the worst of them."""
    green, total = plan.count(State.CURRENT), len(plan.cells)
    red = plan.count(State.FAILED_BEFORE) or plan.broken
    colour = "#cf222e" if red else "#1a7f37" if green == total and total else "#9a6700"
    label, value = (
        "kernels",
        f"{green} of {total} current" + (f", {plan.count(State.FAILED_BEFORE)} red" if red else ""),
    )
    left, right = _width(label), _width(value)
    words = escape_xml(f"{label}: {value}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{words}">'
        f"<title>{words}</title>"
        f'<rect width="{left + right}" height="20" rx="3" fill="#57606a"/>'
        f'<path d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3H{left}z" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,Geneva,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="6" y="14">{escape_xml(label)}</text><text x="{left + 6}" y="14">{escape_xml(value)}</text>'
        "</g></svg>\n"
    )


def _width(text: str) -> int:
    """Return the width of 11 px text with its margins, for a wide font: rather too much than too little."""
    return 12 + round(len(text) * 6.8)
