"""What the pages say about accounts, rights and secrets, from the table of rights and the model (`make docs`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from dtkpipe.app.pipelines import load
from dtkpipe.engines.rbac import NAMESPACE, TARGET_NAMESPACE
from dtkpipe.engines.rights import ACCOUNTS, PEOPLE, Right
from dtkpipe.model.pipeline import Task

_NAME, _CELL, _ROW, _TOP = 128, 112, 30, 56


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def page() -> Iterator[str | Table]:
    """The reference of RBAC: text, and tables as (head, rows)."""
    tasks = load("kmod").all_tasks
    yield "# Accounts and rights\n"
    yield (
        "Every task's pod runs as one of these ServiceAccounts. What is not listed, an account may not: end-to-end\n"
        "tests try it with each account's token. `dtkpipe install` makes them; as files they lie in\n"
        "[catalog/argo](../../catalog/argo) and [catalog/tekton](../../catalog/tekton), for runs in namespace\n"
        f"`{NAMESPACE}` and drivers in `{TARGET_NAMESPACE}`.\n"
    )
    yield "## Tasks\n"
    yield "What else each pod has: [pods](pods.md).\n"
    head = ("task", "account", "secrets")
    yield head, [(f"`{one.name}`", f"`{one.rights.service_account}`", _secrets(one)) for one in tasks]
    for account in ACCOUNTS:
        yield f"## {account.name}\n"
        where = "the namespace of the runs" if account.tasks else "the namespace of the drivers"
        yield f"In {where}. For {account.what}.\n"
        if account.rights:
            yield _table(account.rights)
        else:
            yield "No rights in the API; its pods get no token.\n"
    yield "## People who submit runs\n"
    yield (
        "`edit` of the runs' namespace holds all of this, with what Argo Workflows and Tekton add to that role when\n"
        "they are installed, and what `dtkpipe schedule` writes; `dtkpipe doctor --for cluster` asks the cluster.\n"
        "`dtkpipe label-nodes` also needs `get`, `list` and `patch` of nodes, `dtkpipe trigger test` of a trigger on\n"
        "kernels `list` of them; `dtkpipe deploy`, `rollback` and `smoke-test` by hand, what theirs have.\n"
    )
    yield _table(PEOPLE)


def _table(rights: Sequence[Right]) -> Table:
    rows = [
        (
            f"`{one.resource}`" + (f" `{one.name}`" if one.name else ""),
            ", ".join(one.verbs),
            one.scope.value,
            {"": "both"}.get(one.engine, one.engine),
            one.why,
        )
        for one in rights
    ]
    return ("resource", "verbs", "in", "engine", "why"), rows


def _secrets(task: Task) -> str:
    return ", ".join(f"`{name}`" for name in _held(task)) or "none"


def _held(task: Task) -> tuple[str, ...]:
    """The default names of the Secrets that a task's pod mounts."""
    defaults = {one.name: one.default or one.name for one in task.params}
    return tuple(defaults[one.param] for one in task.secrets)


def picture() -> str:
    """Which pod holds which secret, as SVG: a row for each task, a column for each secret, and its account."""
    tasks = load("kmod").all_tasks
    secrets = tuple(dict.fromkeys(name for task in tasks for name in _held(task)))
    width = _NAME + _CELL * len(secrets) + 190
    height = _TOP + _ROW * len(tasks) + 12
    body = [
        f'<text x="{_NAME + _CELL * number + _CELL // 2}" y="{_TOP - 14}" text-anchor="middle">{escape(name)}</text>'
        for number, name in enumerate(secrets)
    ]
    body.append(f'<text x="{_NAME + _CELL * len(secrets) + 16}" y="{_TOP - 14}">runs as</text>')
    for row, task in enumerate(tasks):
        y = _TOP + row * _ROW
        body.append(f'<line class="grid" x1="8" y1="{y}" x2="{width - 8}" y2="{y}"/>')
        body.append(f'<text class="name" x="14" y="{y + 19}">{escape(task.name)}</text>')
        for number, name in enumerate(secrets):
            x = _NAME + _CELL * number + _CELL // 2
            held = name in _held(task)
            body.append(f'<circle class="{"held" if held else "not"}" cx="{x}" cy="{y + 15}" r="{7 if held else 2}"/>')
        account = task.rights.service_account + (", root in its container" if task.rights.root else "")
        body.append(f'<text class="note" x="{_NAME + _CELL * len(secrets) + 16}" y="{y + 19}">{escape(account)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">\n<title>Which pod holds which secret</title>\n<style>{_STYLE}</style>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


_STYLE = """
  text { font: 11px ui-sans-serif, system-ui, sans-serif; fill: #1f2328; } .name { font-weight: 600; }
  .note { fill: #57606a; } .grid { stroke: #d0d7de; } .held { fill: #cf222e; } .not { fill: #d0d7de; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .note { fill: #9da7b3; } .grid { stroke: #30363d; } .not { fill: #30363d; }
  }
"""
