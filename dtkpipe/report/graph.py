"""The pipeline as a picture in text: Mermaid, Graphviz dot, or plain lines. Pure functions to strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtkpipe.model.pipeline import Pipeline, Task


@dataclass(frozen=True)
class Layout:
    """Where tasks stand: those of one stage can run at the same time. Edges that others imply are left out."""

    stages: tuple[tuple[Task, ...], ...]
    edges: tuple[tuple[str, str], ...]


def layout(tasks: Sequence[Task]) -> Layout:
    """Order tasks that have no circle, as a checked pipeline has none."""
    known = {task.name: task for task in tasks}
    stage: dict[str, int] = {}
    before: dict[str, frozenset[str]] = {}

    def visit(name: str) -> None:
        if name not in stage:
            needs = known[name].needs
            for need in needs:
                visit(need)
            stage[name] = max((stage[need] + 1 for need in needs), default=0)
            before[name] = frozenset(needs).union(*(before[need] for need in needs))

    for task in tasks:
        visit(task.name)
    stages = tuple(
        tuple(task for task in tasks if stage[task.name] == number) for number in range(max(stage.values()) + 1)
    )
    edges = tuple(
        (need, task.name)
        for task in tasks
        for need in task.needs
        if not any(need in before[other] for other in task.needs)
    )
    return Layout(stages, edges)


def mermaid(pipeline: Pipeline) -> str:
    """Return a Mermaid flowchart: GitHub and GitLab draw it where Markdown has a `mermaid` block."""
    ids = {task.name: f"t{number}" for number, task in enumerate(pipeline.all_tasks)}
    lines = ["flowchart LR"]
    lines += [f'  {ids[task.name]}["{task.name}"]' for task in pipeline.tasks]
    lines += [f"  {ids[start]} --> {ids[end]}" for start, end in layout(pipeline.tasks).edges]
    if pipeline.finally_:
        lines += ['  subgraph always["always, at the end"]', "    direction TB"]
        lines += [f'    {ids[task.name]}["{task.name}"]' for task in pipeline.finally_]
        lines += ["  end"]
        lines += [f"  {ids[task.name]} -.-> always" for task in layout(pipeline.tasks).stages[-1]]
    return "\n".join(lines) + "\n"


def dot(pipeline: Pipeline) -> str:
    """Return a graph for Graphviz."""
    lines = [f'digraph "{pipeline.name}" {{', "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    lines += [f'  "{task.name}";' for task in pipeline.tasks]
    lines += [f'  "{start}" -> "{end}";' for start, end in layout(pipeline.tasks).edges]
    if pipeline.finally_:
        lines += ["  subgraph cluster_always {", '    label="always, at the end"; style=dashed;']
        lines += [f'    "{task.name}";' for task in pipeline.finally_]
        lines += ["  }"]
        ends = layout(pipeline.tasks).stages[-1]
        lines += [f'  "{end.name}" -> "{last.name}" [style=dotted];' for end in ends for last in pipeline.finally_]
    return "\n".join([*lines, "}"]) + "\n"


def text(pipeline: Pipeline) -> str:
    """Return one line for each task: its stage, its name, and what it waits for."""
    width = max(len(task.name) for task in pipeline.all_tasks)
    order = layout(pipeline.tasks)
    waits = {task.name: [start for start, end in order.edges if end == task.name] for task in pipeline.tasks}
    lines = [f"{pipeline.name}: {pipeline.description}", ""]
    for number, stage in enumerate(order.stages, 1):
        for task in stage:
            after = f"after {', '.join(waits[task.name])}" if waits[task.name] else ""
            lines.append(f"{number:3}  {task.name:{width}}  {after}".rstrip())
    lines += [f"  *  {task.name:{width}}  always, at the end" for task in pipeline.finally_]
    return "\n".join(lines) + "\n"
