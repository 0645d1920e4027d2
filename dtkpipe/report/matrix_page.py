"""A matrix as one HTML page: modules down, kernels across, what is red and why above.

One file that needs nothing else: no script, no font, no picture. It is filtered by check boxes and CSS (`:has()`),
follows the reader's light or dark theme, and says with a sign what it says with a colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from dtkpipe.matrix.causes import Group, headline
from dtkpipe.matrix.plan import Plan, Planned
from dtkpipe.report.matrix import folded, summary
from dtkpipe.report.matrix_style import STYLE
from dtkpipe.values.cell import State, Target

_LOG_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What a page knows besides the plan."""

    groups: Sequence[Group] = ()
    logs: Mapping[str, str] = field(default_factory=dict)
    """Image reference of a record -> where its log is, relative to the page."""
    when: str = ""
    title: str = "Kernel modules"


@dataclass(frozen=True)
class _Look:
    """How a kind of state is shown."""

    css: str
    sign: str
    name: str


_GREEN, _RED, _STALE = _Look("g", "✓", "current"), _Look("r", "✗", "failed"), _Look("s", "○", "stale")
_SET_ASIDE, _UNKNOWN = _Look("q", "–", "quarantined"), _Look("u", "?", "unknown")
_LOOKS = (_GREEN, _RED, _STALE, _SET_ASIDE, _UNKNOWN)


_LOOK = {state: _STALE for state in State if state.stale} | {
    State.CURRENT: _GREEN, State.FAILED_BEFORE: _RED, State.QUARANTINED: _SET_ASIDE, State.UNKNOWN: _UNKNOWN
}  # fmt: skip


def page(plan: Plan, extra: Extra) -> str:
    """Write the page. Whatever a module's author wrote is text in it and nothing else."""
    parts = [
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(extra.title)}: {escape(headline(extra.groups))}</title>\n<style>{STYLE}</style>",
        f"<header><h1>{escape(extra.title)}</h1>",
        f"<p class=lead>{escape(headline(extra.groups))}</p><p class=when>{escape(summary(plan))}"
        + (f" · {escape(extra.when)}" if extra.when else "") + "</p>",
        *_bar(plan), "</header>", *_filter(plan), "<main>", *_causes(extra), *_tables(plan, extra), *_rest(plan),
        "</main>", "</html>\n",
    ]  # fmt: skip
    return "\n".join(parts)


def _bar(plan: Plan) -> Iterator[str]:
    total = len(plan.cells) or 1
    counts = [(look, sum(_LOOK[one.state] is look for one in plan.cells)) for look in _LOOKS]
    yield "<div class=bar aria-hidden=true>"
    yield "".join(f'<i class={look.css} style="flex:{count / total:.4f}"></i>' for look, count in counts if count)
    yield "</div>"


def _filter(plan: Plan) -> Iterator[str]:
    yield "<form class=filter><fieldset><legend>Show</legend>"
    for look in _LOOKS:
        if count := sum(_LOOK[one.state] is look for one in plan.cells):
            yield (
                f"<label><input type=checkbox id=f-{look.css} checked autocomplete=off>"
                f"<b class={look.css}>{look.sign}</b> {look.name} <small>{count:,}</small></label>"
            )
    yield "<label><input type=checkbox id=f-only autocomplete=off>only modules with something red</label>"
    yield "</fieldset></form>"


# What is red


def _causes(extra: Extra) -> Iterator[str]:
    if not extra.groups:
        return
    yield "<section class=causes><h2>What is red, by cause</h2><ol>"
    for group in extra.groups:
        first, green = group.first_bad, group.last_green
        cells = len(group.cells)
        yield f"<li id=c-{group.fingerprint.id}><h3><b>{cells}</b> <code>{escape(group.fingerprint.text)}</code></h3>"
        yield (
            f"<p>{escape(group.fingerprint.kind)} · {escape(', '.join(group.modules[:6]))}"
            + (f" and {len(group.modules) - 6} more" if len(group.modules) > 6 else "")
            + f" · first bad kernel <code>{escape(first.target.name)}</code>"
            + (
                f" · last green before it <code>{escape(green.target.name)}</code>"
                if green
                else " · none green before it"
            )
            + "</p>"
        )
        said = "\n".join(group.sample.lines[:_LOG_LINES])
        yield f"<details><summary>what was said, and where</summary><pre>{escape(said)}</pre><ul>"
        yield from (_red(one, extra) for one in group.cells)
        yield "</ul></details></li>"
    yield "</ol></section>"


def _red(one: Planned, extra: Extra) -> str:
    name = f"{one.module} · {one.target.name} · {one.target.serves}"
    log = extra.logs.get(one.image, "")
    link = f' <a href="{escape(log)}">log</a>' if log else ""
    return f"<li>{escape(name)}{link}<br><small><code>{escape(one.image)}</code></small></li>"


# The matrix


def _tables(plan: Plan, extra: Extra) -> Iterator[str]:
    """A table for each architecture, side by side where there is room; flavours of kernels are groups of columns."""
    causes = {one.image: group.fingerprint.id for group in extra.groups for one in group.cells}
    sections: dict[str, list[Planned]] = {}
    for one in plan.cells:
        sections.setdefault(one.target.arch.name, []).append(one)
    yield "<div class=arches>"
    for arch, cells in sorted(sections.items(), reverse=True):
        flavours = _flavours(cells)
        lines = list(_lines(flavours))
        kernels = f"{len(lines)} kernel{'s' if len(lines) > 1 else ''}"
        yield f"<section><h2>{escape(arch)} <small>{', '.join(map(escape, flavours))} · {kernels}</small></h2>"
        yield f'<div class=scroll tabindex=0 role=region aria-label="{escape(arch, quote=True)}">'
        yield f'<table class=m style="--n:{len(lines)}"><thead>'
        if len(flavours) > 1:
            spans = (f"<th colspan={len(mine)} scope=colgroup>{escape(name)}" for name, mine in flavours.items())
            yield f"<tr class=f><th>{''.join(spans)}</tr>"
        yield "<tr><th></th>" + "".join(_head(target, new) for target, new in lines) + "</tr></thead><tbody>"
        by_module: dict[str, dict[str, Planned]] = {}
        for one in cells:
            by_module.setdefault(one.module, {})[one.target.name] = one
        for module in sorted(by_module):
            yield _row(module, by_module[module], lines, causes)
        yield "</tbody></table></div></section>"
    yield "</div>"


def _flavours(cells: Sequence[Planned]) -> dict[str, list[Target]]:
    """Return flavour -> its kernels, the newest first: a narrow screen shows these."""
    targets = list({one.target.name: one.target for one in cells}.values())
    targets.sort(key=lambda one: one.kernel.order, reverse=True)
    found: dict[str, list[Target]] = {}
    for target in sorted(targets, key=lambda one: (one.kernel.variant != "std", one.kernel.variant)):
        found.setdefault(target.kernel.variant, []).append(target)
    return found


def _lines(flavours: Mapping[str, Sequence[Target]]) -> Iterator[tuple[Target, bool]]:
    """Give each kernel, and whether it is the first of another build than the one before: 5.14.0-503 after -427."""
    before: object = None
    for flavour, targets in flavours.items():
        for target in targets:
            build = flavour, target.kernel.order[:4]
            yield target, before is not None and build != before
            before = build


def _head(target: Target, new: bool) -> str:
    kernel = target.kernel.release.removesuffix(f".{target.arch}")
    mark = " class=n" if new else ""
    return f"<th{mark} scope=col><div>{escape(kernel)}<small>{escape(_short(target.serves))}</small></div>"


def _short(serves: str, most: int = 28) -> str:
    return serves if len(serves) <= most else f"{serves[: most - 1].rsplit(',', 1)[0]}, …"


def _row(
    module: str, cells: Mapping[str, Planned], lines: Sequence[tuple[Target, bool]], causes: Mapping[str, str]
) -> str:  # fmt: skip
    green = sum(one.state is State.CURRENT for one in cells.values())
    red = any(one.state is State.FAILED_BEFORE for one in cells.values())
    mark = " class=red" if red else ""
    parts = [f"<tr{mark}><th scope=row>{escape(module)} <small>{green}/{len(cells)}</small>"]
    for target, new in lines:
        one = cells.get(target.name)
        edge = " n" if new else ""
        if one is None:
            parts.append(f'<td class="x{edge}">')
            continue
        look = _LOOK[one.state]
        sign = look.sign
        if cause := causes.get(one.image) if look is _RED else None:
            sign = f'<a href="#c-{cause}">{sign}</a>'
        title = escape(f"{module}, {target.kernel}: {one.state}", quote=True)
        parts.append(f'<td class="{look.css}{edge}" title="{title}">{sign}')
    return "".join(parts)


# The rest


def _rest(plan: Plan) -> Iterator[str]:
    rows = [row for row in folded(plan).rows if row[5] != State.CURRENT]
    if rows:
        yield "<section><h2>What is not current, and why</h2><div class=scroll tabindex=0><table class=l><thead><tr>"
        yield "".join(f"<th>{escape(name)}" for name in folded(plan).head) + "</tr></thead><tbody>"
        yield from (f"<tr>{''.join(f'<td>{escape(cell)}' for cell in row)}" for row in rows)
        yield "</tbody></table></div></section>"
    if plan.notices:
        yield "<section><h2>Notes</h2><ul>"
        yield from (f"<li>{escape(notice)}" for notice in plan.notices)
        yield "</ul></section>"
