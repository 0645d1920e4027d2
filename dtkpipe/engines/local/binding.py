"""Puts values in the place of references: what Argo and Tekton do on a cluster, here before a process starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from dtkpipe.errors import InvalidError
from dtkpipe.model.pipeline import Program, Task
from dtkpipe.model.refs import (
    InputRef,
    ParamRef,
    Piece,
    ResultPath,
    ResultRef,
    RunName,
    SecretPath,
    StatusRef,
    Token,
    Value,
    pieces,
)

Results = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Values:
    """What is known when a task starts."""

    params: Mapping[str, str]
    run_name: str
    results: Mapping[str, Results]
    """Task -> its results, of the tasks that have ended well."""
    statuses: Mapping[str, str]
    """Task -> `Succeeded`, `Failed` or `None`, the words of Tekton's $(tasks.NAME.status)."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What one task runs: plain strings."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]


def bind(
    task: Task, values: Values, results: PurePath, secrets: Mapping[str, Mapping[str, PurePath]], nowhere: PurePath
) -> Command:
    """Return the task's command with every reference replaced.

    `results` is the folder for result files, `secrets` the user's own files by secret and key; a file that the user
    did not give is named inside `nowhere`, which does not exist, as on a cluster where the Secret is missing. A
    variable of the environment that is the path of such a file is left out. Raises InvalidError for a result that its
    task did not write.
    """
    inputs = {given.name: _text(given.value, values) for given in task.inputs}

    def piece(part: Piece) -> str:
        match part:
            case InputRef(name):
                return inputs[name]
            case ResultPath(name):
                return str(results / name)
            case SecretPath(secret, key):
                return str(secrets.get(secret, {}).get(key, nowhere / secret / key))
            case RunName():
                return values.run_name
            case str():
                return part
            case _:
                raise InvalidError(f"task `{task.name}`: {part!r} cannot stand in argv or env")

    def token(value: Token) -> str:
        return "".join(piece(part) for part in pieces(value))

    def given(value: Token) -> bool:
        return not isinstance(value, SecretPath) or value.key in secrets.get(value.secret, {})

    program: Program = task.program
    return Command(
        argv=tuple(token(word) for word in program.argv),
        env=tuple((name, token(value)) for name, value in program.env if given(value)),
    )


def _text(value: Value, values: Values) -> str:
    return "".join(_piece(part, values) for part in pieces(value))


def _piece(part: Piece, values: Values) -> str:
    match part:
        case ParamRef(name):
            return values.params[name]
        case ResultRef(task, name):
            if name not in values.results.get(task, {}):
                raise InvalidError(f"task `{task}` wrote no result `{name}`")
            return values.results[task][name]
        case StatusRef(task):
            return values.statuses.get(task, "None")
        case RunName():
            return values.run_name
        case str():
            return part
        case _:
            raise InvalidError(f"{part!r} cannot stand in an input")
