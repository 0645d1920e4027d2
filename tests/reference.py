"""Writes the reference pages from the code that they describe: `make docs`. A test tells when they are stale."""

import ast
import dataclasses
import importlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import typer

from dtkpipe import tasks
from dtkpipe.cli.application import COMMANDS, load
from dtkpipe.errors import EXIT_CODES
from dtkpipe.steps.contract import flag, render
from tests import pods, rights
from tests.picture import picture

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
PICTURES = {
    ROOT / "docs" / "explanation" / "releases-per-kernel.svg": picture,
    ROOT / "docs" / "explanation" / "secrets.svg": rights.picture,
}
NOTE = "<!-- Written by `make docs` from the code. Do not edit. -->\n"


def page(name: str) -> str:
    """The text of one generated page of docs/reference."""
    return NOTE + "\n" + "\n".join(PAGES[name]()) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(map(cell, row))} |"
    yield ""


def cell(text: str) -> str:
    """One cell as Markdown: one line, no bar, and no HTML outside of code."""
    line = " ".join(text.split()).replace("|", "&#124;")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(line.split("`")))


def cli() -> Iterator[str]:
    yield "# Command line\n"
    yield "Answers go to stdout, the rest to stderr. [Exit codes](exit-codes.md) are the same for all commands.\n"
    yield from table(
        ("command", "what it does"), [(f"[`{name}`](#{name})", entry.summary) for name, entry in COMMANDS.items()]
    )
    for name in COMMANDS:
        yield f"## {name}\n"
        yield from command(load(name), f"dtkpipe {name}")


def command(found: Any, path: str) -> Iterator[str]:
    context = typer.Context(found, info_name=path)
    yield f"    {' '.join([path, *found.collect_usage_pieces(context)])}\n"
    yield inspect.cleandoc(found.help or "") + "\n"
    if path == "dtkpipe step":
        yield "The flags of each step: [steps](steps.md).\n"
    options = []
    for param in found.params:
        record = param.get_help_record(context)
        if record and "--help" not in param.opts:
            options.append((f"`{record[0]}`", record[1]))
        elif record is None and getattr(param, "help", ""):
            options.append((f"`{param.make_metavar(context)}`", param.help))
    if options:
        yield from table(("option", "meaning"), options)
    for name, child in getattr(found, "commands", {}).items():
        yield f"### {path.removeprefix('dtkpipe ')} {name}\n"
        yield from command(child, f"{path} {name}")


def steps() -> Iterator[str]:
    yield "# Steps\n"
    yield (
        "The programs that the tasks of a pipeline run. Each also runs alone: `dtkpipe step NAME --flag=value ...`,\n"
        "with `-o json` for its answer as a document. In a pipeline, an input that is not wired is a parameter of its\n"
        "name.\n"
    )
    for task in tasks.ALL:
        module = task.module
        yield f"## {task.step}\n"
        yield inspect.cleandoc(module.__doc__ or "").partition(": ")[2] + "\n"
        rights = ", ".join(
            filter(None, [
                "root in its container" if task.rights.root else "",
                f"capabilities {' '.join(task.rights.capabilities)}" if task.rights.capabilities else "",
                f"service account `{task.rights.service_account}`",
                *(f"secret `{secret.name}` ({', '.join(secret.files)})" for secret in task.secrets),
            ])
        )  # fmt: skip
        yield f"Rights: {rights}. Time limit {task.timeout} s, retries {task.retries}.\n"
        rows = [
            (f"`{flag(one.name)}`", default(one), str(one.metadata["doc"])) for one in dataclasses.fields(module.Args)
        ]
        yield from table(("input", "default", "meaning"), rows)
        results = [(f"`{one.name.upper()}`", str(one.metadata["doc"])) for one in dataclasses.fields(module.Results)]
        yield from table(("result", "meaning"), results)


def default(field: Any) -> str:
    if field.default is MISSING:
        return "required"
    text = render(field.default)
    return f"`{text}`" if text else ""


def exit_codes() -> Iterator[str]:
    yield "# Exit codes\n"
    yield "Below ten they speak of the tool, from ten on of the run. `dtkpipe help exit-codes` prints them.\n"
    yield from table(("code", "meaning"), [(str(code), meaning) for code, meaning in EXIT_CODES])
    yield (
        "An error says on stderr what happened, then where we looked or what we got, then `hint:` with the next\n"
        "command. Only code 7 is worth trying again without changing anything."
    )


def run_card() -> Iterator[str]:
    yield "# Run card\n"
    yield from prose("dtkpipe.values.run")
    for name in ("RunCard", "StepRecord"):
        yield f"## {name}\n"
        yield from described("dtkpipe.values.run", name)


def verdicts() -> Iterator[str]:
    from dtkpipe.proof.verdict import CODES, PROOFS, Proof, Refusal, Verdict

    yield "# Verdicts\n"
    yield (
        "`verify` says `proven`, or `refused: CODE` and ends with exit code 10. The code is that of the first proof\n"
        f"that failed; they run in this order: {', '.join(PROOFS)}. Codes never change their meaning.\n"
        "[What a proof proves, and what it cannot](../explanation/trust.md#what-verify-proves).\n"
    )
    yield from table(("code", "meaning", "what to do"), [(f"`{c.name}`", c.meaning, c.fix) for c in CODES.values()])
    yield "## The document\n"
    yield "`dtkpipe step verify -o json` prints it (schema `dtkpipe/verdict/v1`); `publish` attaches it to the image.\n"
    why = Refusal(
        code="vermagic-mismatch", reason="hello.ko was compiled for another kernel",
        details=("hello.ko: 6.1.0-52-cloud-amd64, expected 6.1.0-53-cloud-amd64",),
    )  # fmt: skip
    proof = Proof(name="vermagic", seconds=0.01, summary=why.reason, facts={"modules": 1}, refusal=why)
    example = Verdict(image="quay.io/org/hello", kernel="6.1.0-53-cloud-amd64", arch="x86_64", proofs=(proof,))
    yield f"```json\n{json.dumps(example.document(), indent=2)}\n```\n"
    yield "`proofs` ends with the proof that failed. `seconds` it took, `facts` are what it found."


def node_verdicts() -> Iterator[str]:
    from dtkpipe.values.health import FAILS, HEALTHY, LIMIT, REPORTED, WORDS

    yield "# Node verdicts\n"
    yield (
        f"`smoke-test` says of every node of the cluster `{HEALTHY}`, or one of these words and the reason. Words\n"
        f"never change their meaning. A node whose word *{FAILS}* fails it, and so does a cluster on which no node is\n"
        f"`{HEALTHY}`; what *{REPORTED}* is only told. A failed run puts the image before back on the nodes.\n"
        "[How to test the nodes](../how-to/test-drivers-on-nodes.md).\n"
    )
    rows = [(f"`{word.name}`", word.effect, word.meaning, word.fix) for word in WORDS.values()]
    yield from table(("word", "effect", "meaning", "what to do"), rows)
    yield "## The result `NODES`\n"
    yield (
        f"One JSON object, node -> `word: reason`, of at most {LIMIT} bytes; the run card has the same as `nodes`.\n"
        "Nodes are in the order of the table. What does not fit is left out from the end, and counted:\n"
    )
    example = {"worker-7": "not-loaded: hello is not in /proc/modules", "worker-1": "healthy", "41 more": "41 healthy"}
    yield f"```json\n{json.dumps(example)}\n```"


def settings() -> Iterator[str]:
    from dtkpipe.settings import KEYS

    yield "# Settings and environment\n"
    yield from prose("dtkpipe.settings")
    yield "`dtkpipe config show` prints every setting, its value and its origin.\n"
    rows = [(f"`{key.name}`", f"`{key.variable}`", key.doc, f"`{key.default}`" if key.default else "") for key in KEYS]
    yield from table(("key in dtkpipe.toml", "environment", "meaning", "default"), rows)
    yield "## Other variables\n"
    yield from table(("variable", "meaning"), _VARIABLES)


_VARIABLES = (
    ("`DTKPIPE_CACHE`", "Folder for what can be made again (default `~/.cache/dtkpipe`). Safe to delete at any time"),
    ("`DTKPIPE_STATE`", "Folder for local runs and their logs (default `~/.local/state/dtkpipe`)"),
    ("`DTKPIPE_CONFIG`", "The one file of settings to read; empty: none"),
    ("`DTKPIPE_KEEP`", "Where a step leaves logs and evidence (default: `evidence` in its working folder)"),
    ("`DTKPIPE_WORK`", "Working folder of a step (default: a temporary one); pods set it to `/workspace`"),
    (
        "`REGISTRY_AUTH_FILE`",
        "Credentials for registries, as containers-auth.json(5); default: podman's, then Docker's",
    ),
    ("`NO_COLOR`", "Any value: no colours (no-color.org)"),
)


def prose(module: str) -> Iterator[str]:
    yield inspect.cleandoc(importlib.import_module(module).__doc__ or "") + "\n"


def described(module: str, name: str) -> Iterator[str]:
    """A dataclass as its docstring and a table of its fields; a field's meaning is the string below it."""
    tree = ast.parse(Path(importlib.import_module(module).__file__ or "").read_text())
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    yield (ast.get_docstring(found) or "") + "\n"
    rows = []
    for node, after in zip(found.body, [*found.body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.AnnAssign):
            says = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            rows.append((f"`{ast.unparse(node.target)}`", f"`{ast.unparse(node.annotation)}`", str(says)))
    yield from table(("field", "type", "meaning"), rows)


def laid_out(page: Iterator[str | rights.Table]) -> Iterator[str]:
    for part in page:
        if isinstance(part, str):
            yield part
        else:
            yield from table(*part)


PAGES: Mapping[str, Callable[[], Iterator[str]]] = {
    "cli.md": cli,
    "steps.md": steps,
    "exit-codes.md": exit_codes,
    "run-card.md": run_card,
    "rbac.md": lambda: laid_out(rights.page()),
    "pods.md": lambda: laid_out(pods.page()),
    "settings.md": settings,
    "verdicts.md": verdicts,
    "node-verdicts.md": node_verdicts,
}


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in PAGES:
        (FOLDER / name).write_text(page(name))
    for file, draw in PICTURES.items():
        file.write_text(draw())


if __name__ == "__main__":
    main()
