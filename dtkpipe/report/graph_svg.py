"""The pipeline as an SVG picture that follows the reader's light or dark theme. Nothing in it is loaded or run."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from dtkpipe.model.pipeline import Pipeline, Task
from dtkpipe.report.graph import layout

_WIDTH, _HEIGHT = 132, 48
_GAP_X, _GAP_Y, _MARGIN = 34, 18, 16
_STYLE = """
  .task { fill: #f6f8fa; stroke: #57606a; } .always { fill: none; stroke: #8c959f; stroke-dasharray: 4 3; }
  .edge { fill: none; stroke: #57606a; stroke-width: 1.3; } .tip { fill: #57606a; }
  text { font-family: ui-sans-serif, system-ui, sans-serif; fill: #1f2328; text-anchor: middle; }
  .name { font-size: 13px; font-weight: 600; } .note { font-size: 9.5px; fill: #57606a; }
  @media (prefers-color-scheme: dark) {
    .task { fill: #161b22; stroke: #8b949e; } .always { stroke: #6e7681; } .edge { stroke: #8b949e; }
    .tip { fill: #8b949e; } text { fill: #e6edf3; } .note { fill: #9da7b3; }
  }
"""


@dataclass(frozen=True)
class _Box:
    task: Task
    x: int
    y: int

    @property
    def middle(self) -> int:
        return self.y + _HEIGHT // 2


def svg(pipeline: Pipeline) -> str:
    """Return the picture: tasks from left to right, below each name the secrets that this task alone can read."""
    order = layout(pipeline.tasks)
    rows = max(len(stage) for stage in order.stages)
    boxes = {
        task.name: _Box(task, _MARGIN + column * (_WIDTH + _GAP_X), _row(row, len(stage), rows))
        for column, stage in enumerate(order.stages)
        for row, task in enumerate(stage)
    }
    body = [_edge(boxes[start], boxes[end]) for start, end in order.edges]
    body += [_task(box) for box in boxes.values()]
    right = max(box.x for box in boxes.values()) + _WIDTH
    bottom = max(box.y for box in boxes.values()) + _HEIGHT
    if pipeline.finally_:
        body += _always(pipeline, bottom + _GAP_Y + 14)
        right = max(right, _MARGIN + len(pipeline.finally_) * (_WIDTH + _GAP_X) + 4)
        bottom += _HEIGHT + _GAP_Y + 32
    width, height = right + _MARGIN, bottom + _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="Pipeline {escape(pipeline.name)}">'
    )
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0 8 4 0 8z"/></marker>'
    )
    return "\n".join([head, f"<style>{_STYLE}</style>", f"<defs>{tip}</defs>", *body, "</svg>", ""])


def _row(row: int, used: int, rows: int) -> int:
    return _MARGIN + (rows - used) * (_HEIGHT + _GAP_Y) // 2 + row * (_HEIGHT + _GAP_Y)


def _task(box: _Box) -> str:
    task, centre = box.task, box.x + _WIDTH // 2
    secrets = ", ".join(secret.name for secret in task.secrets) or "no secrets"
    return (
        f"<g><title>{escape(task.description)}</title>"
        f'<rect class="task" x="{box.x}" y="{box.y}" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>'
        f'<text class="name" x="{centre}" y="{box.y + 21}">{escape(task.name)}</text>'
        f'<text class="note" x="{centre}" y="{box.y + 36}">{escape(_cut(secrets))}</text></g>'
    )


def _cut(words: str) -> str:
    return words if len(words) <= 26 else f"{words[:25]}…"


def _edge(start: _Box, end: _Box) -> str:
    x, to = start.x + _WIDTH, end.x
    bend = (to - x) // 2
    return (
        f'<path class="edge" marker-end="url(#tip)" '
        f'd="M{x} {start.middle}C{x + bend} {start.middle} {to - bend} {end.middle} {to} {end.middle}"/>'
    )


def _always(pipeline: Pipeline, top: int) -> list[str]:
    step = _WIDTH + _GAP_X
    width = len(pipeline.finally_) * step + 2
    lines = [
        f'<rect class="always" x="{_MARGIN - 8}" y="{top - 16}" width="{width}" height="{_HEIGHT + 34}" rx="10"/>',
        f'<text class="note" x="{_MARGIN + width // 2 - 8}" y="{top - 3}">always, at the end</text>',
    ]
    boxes = [_Box(task, _MARGIN + 8 + number * step, top + 6) for number, task in enumerate(pipeline.finally_)]
    return lines + [_task(box) for box in boxes]
