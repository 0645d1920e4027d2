"""Run one step: the programs that the tasks of a pipeline run, in pods and on a laptop.

The command line is derived from the step's Args and Results; only that step's module is imported, and Typer is not.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import MISSING
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dtkpipe.errors import NotFoundError, UsageError
from dtkpipe.resources import cache_dir, state_dir
from dtkpipe.steps.contract import Room, StepRefusedError, flag, parse_args, render, repeated
from dtkpipe.values.run import CAUSE, CAUSE_DOC, tell_cause

if TYPE_CHECKING:
    import typer

SUMMARY = "Run one step of a pipeline"
_FORMATS = ("table", "json")
_NAME = re.compile(r"[a-z][a-z-]*")


def register(app: typer.Typer) -> None:
    """Add the command, for help and completion; `dtkpipe step` itself does not come through Typer."""

    @app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
    def step(words: list[str]) -> int:
        """Run one step of a pipeline."""
        return run_step(words)


def names() -> list[str]:
    """Return the names of all steps."""
    from dtkpipe.tasks import ALL

    return sorted(task.step for task in ALL)


def run_step(words: Sequence[str]) -> int:
    """Run `NAME --flag=value ... [--result-x=FILE]... [-o table|json]`. Raises DtkpipeError."""
    if not words or words[0] in ("--help", "-h"):
        print("Usage: dtkpipe step NAME [--FLAG=VALUE]... [--result-NAME=FILE]... [-o table|json]\n")
        print(f"Steps: {', '.join(names())}\n\nFlags of one step: dtkpipe step NAME --help")
        return 0
    module = _module(words[0])
    if {"--help", "-h"} & set(words[1:]):
        print(_help(words[0], module))
        return 0
    given, files, form = _split(words[1:], module)
    with _blamed(files.pop(CAUSE.lower(), None)):
        return _run(words[0], module, given, files, form)


def _run(name: str, module: ModuleType, given: Mapping[str, str], files: Mapping[str, Path], form: str) -> int:
    args = parse_args(module.Args, given)
    documents: list[Mapping[str, Any]] = []
    with _work() as work:
        room = Room(Path(work), cache_dir(os.environ), dict(os.environ), _say, documents.append, _keep(name))
        try:
            results = repeated(lambda number: module.run(args, room.again(number)), os.environ, _say)
        except StepRefusedError as refusal:
            _give(refusal.results, files, form, documents)
            raise
    _give(results, files, form, documents)
    return 0


@contextmanager
def _blamed(file: Path | None) -> Iterator[None]:
    """Leave in `file` why the block failed, however it did: what lists and cards show without reading any log."""
    try:
        yield
    except BaseException as error:
        if file and not isinstance(error, SystemExit):
            file.write_text(tell_cause(error))
        raise


def _module(name: str) -> ModuleType:
    # The list of all steps is loaded only when it is needed.
    path = f"dtkpipe.steps.{name.replace('-', '_')}"
    module = importlib.import_module(path) if _NAME.fullmatch(name) and importlib.util.find_spec(path) else None
    if module is None or not hasattr(module, "run"):
        raise NotFoundError(
            f"there is no step `{name[:80]}`", f"steps: {', '.join(names())}", hint=_near(name, names())
        )  # fmt: skip
    return module


def _near(word: str, known: Sequence[str], prefix: str = "") -> str:
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean `{prefix}{near[0]}`?" if near else ""


def _split(words: Sequence[str], module: ModuleType) -> tuple[dict[str, str], dict[str, Path], str]:
    """Sort the words into inputs, result files and the output format."""
    inputs = [flag(name) for name in _fields(module.Args)]
    results = [f"result-{flag(name)}" for name in (*_fields(module.Results), CAUSE.lower())]
    given: dict[str, str] = {}
    files: dict[str, Path] = {}
    form = "table"
    rest = iter(words)
    for word in rest:
        if word in ("-o", "--output"):
            form = next(rest, "")
            continue
        if word.startswith("-o"):
            form = word[2:].removeprefix("=")
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            raise UsageError(f"unexpected word `{word[:80]}`", hint="flags are written --name=value")
        if name in inputs:
            value = value if equals else next(rest, "")
            given[name] = value
        elif name in results:
            value = value if equals else next(rest, "")
            files[name.removeprefix("result-").replace("-", "_")] = Path(value)
        elif name == "output":
            form = value
        else:
            near = _near(name, [*inputs, *results], "--")
            raise UsageError(f"unknown flag `--{name[:80]}`", hint=near or "list the flags with --help")
    if form not in _FORMATS:
        raise UsageError(f"-o takes {' or '.join(_FORMATS)}, not `{form}`")
    return given, files, form


def _fields(cls: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _work() -> AbstractContextManager[str]:
    """Return the step's own empty folder: the one we were given (in pods: /workspace), else one for this run only."""
    own = os.environ.get("DTKPIPE_WORK", "")
    return nullcontext(own) if own else tempfile.TemporaryDirectory(prefix="dtkpipe-")


def _keep(name: str) -> Path | None:
    """Return where logs and evidence stay: a folder we were given, the working folder, or for a lone step the state."""
    if own := os.environ.get("DTKPIPE_KEEP", ""):
        return Path(own)
    return None if os.environ.get("DTKPIPE_WORK") else state_dir(os.environ) / "logs" / f"{name}-{os.getpid()}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _give(results: Any, files: Mapping[str, Path], form: str, documents: Sequence[Mapping[str, Any]]) -> None:
    texts = {field.name: render(getattr(results, field.name)) for field in dataclasses.fields(results)}
    for name, file in files.items():
        file.write_text(texts[name])
    if form == "json":
        whole = documents[-1] if documents else {name.upper(): text for name, text in texts.items()}
        print(json.dumps(whole, indent=2, ensure_ascii=False))
    else:
        # In a pod every result has its file, and the log is for people.
        for name in (name for name in texts if name not in files):
            print(f"{name.upper()}={texts[name]}")


def _help(name: str, module: ModuleType) -> str:
    summary = (module.__doc__ or "").strip()
    lines = [f"Usage: dtkpipe step {name} [--FLAG=VALUE]... [-o table|json]", "", summary, "", "Flags:"]
    for field in dataclasses.fields(module.Args):
        default = "required" if field.default is MISSING else render(field.default)
        note = f" [{default}]" if default else ""
        lines.append(f"  --{flag(field.name):22} {field.metadata['doc']}{note}")
    lines += ["", "Results (written to the file that --result-NAME=FILE names):"]
    lines += [f"  {field.name.upper():24} {field.metadata['doc']}" for field in dataclasses.fields(module.Results)]
    lines.append(f"  {CAUSE:24} {CAUSE_DOC}")
    return "\n".join(lines)
