"""What makes a pipeline valid, whatever the engine. All problems at once, each with its place."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import PurePosixPath

from dtkpipe.errors import InvalidError
from dtkpipe.model.images import DEFAULTS
from dtkpipe.model.pipeline import Param, Pipeline, Program, Task
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
from dtkpipe.values.image import ImageRef

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123
_INPUT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")  # what both engines take as the name of a parameter
_SECRET = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")  # names a volume: `secret-<name>`
_OURS = "dtkpipe-"
"""Begins the names of the inputs that a renderer adds."""
_RESERVED = ("init", "main", "wait")
"""Names that Argo gives to containers."""
_KEY = re.compile(r"[A-Za-z0-9._-]+")  # a key of a Kubernetes Secret
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTERPRETERS = re.compile(r"(ba|da|a|z|k)?sh|busybox|env|python[0-9.]*|perl|ruby|node")
_SCRIPT_FLAG = re.compile(r"-[a-zA-Z]*[ce]")
MARKS = ("$(", "{{", "$$")
"""Where Tekton's and Argo's variables begin, and what Kubernetes makes one `$` of in a container's arguments.

A text that holds one would not arrive as it is (kubernetes, third_party/forked/golang/expansion/expand.go).
"""

LONGEST = 120 * 1024
"""Bytes of one value: Linux takes 128 KiB for one argument, its flag included (MAX_ARG_STRLEN, execve(2))."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where: `task build, argument 4`."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def check(pipeline: Pipeline) -> None:
    """Raise InvalidError with all problems of the pipeline, if it has any."""
    if found := problems(pipeline):
        raise InvalidError(f"pipeline `{pipeline.name}` is not valid", *(str(problem) for problem in found))


def problems(pipeline: Pipeline) -> tuple[Problem, ...]:
    """Return everything that is wrong with the pipeline, in its order."""
    return tuple(dict.fromkeys(_problems(pipeline)))


def not_data(text: str) -> str:
    """Return why a text cannot be carried as data to every engine; an empty string when it can."""
    for mark in MARKS:
        if mark in text:
            return f"holds `{mark}`, which a cluster would take for a variable of its own"
    if odd := next((char for char in text if not _printable(char)), ""):
        return f"holds the character U+{ord(odd):04X}, which is no text"
    if len(text.encode()) > LONGEST:
        return f"is longer than {LONGEST} bytes, more than one argument of a program can be"
    return ""


def _printable(char: str) -> bool:
    """Say whether every engine can carry the character.

    Argo puts values into JSON with Go's escapes (strconv.Quote): where Go writes `\\x07` or `\\U000F0000` the workflow
    breaks. NUL and halves of surrogate pairs cannot be in an argument at all.
    """
    if char < "\x20" or char == "\x7f":
        return char in "\t\n\r"
    kind = unicodedata.category(char)
    return kind != "Cs" and (char <= "\uffff" or kind[0] in "LMNPS")


def _problems(pipeline: Pipeline) -> Iterator[Problem]:
    here = f"pipeline {pipeline.name}"
    if not _LABEL.fullmatch(pipeline.name):
        yield Problem(here, "a name is lower-case letters, digits and hyphens, at most 63")
    if not pipeline.tasks:
        yield Problem(here, "has no tasks")
    yield from _text(here, pipeline.description)
    try:
        declared = pipeline.params
    except InvalidError as error:
        yield Problem(here, f"{error.what}: {' '.join(error.details)}")
        declared = tuple(param for task in pipeline.all_tasks for param in task.params)
    for param in declared:
        yield from _param(param)
    seen: set[str] = set()
    for task in pipeline.all_tasks:
        try:
            hash(task)
        except TypeError:
            yield Problem(f"task {task.name}", "holds a list or a dictionary: the model takes tuples")
            continue
        if task.name in seen:
            yield Problem(f"task {task.name}", "there are two tasks of this name")
        seen.add(task.name)
        yield from _task(pipeline, task, {param.name for param in declared})
    yield from _cycles(pipeline.tasks)


def _param(param: Param) -> Iterator[Problem]:
    where = f"parameter {param.name}"
    if not _INPUT.fullmatch(param.name):
        yield Problem(where, "a name is a letter, then letters, digits, `-` and `_`")
    yield from _text(where, param.description)
    yield from _text(f"{where}, default", param.default or "")


def _text(where: str, text: str) -> Iterator[Problem]:
    if reason := not_data(text):
        yield Problem(where, reason)


def _task(pipeline: Pipeline, task: Task, declared: set[str]) -> Iterator[Problem]:
    where = f"task {task.name}"
    if not _LABEL.fullmatch(task.name):
        yield Problem(where, "a name is lower-case letters, digits and hyphens, at most 63")
    if len(f"{pipeline.name}-{task.name}") > 63:
        yield Problem(where, "the names of pipeline and task together are longer than 62 characters")
    if task.timeout <= 0 or task.retries < 0:
        yield Problem(where, "timeout is at least one second, retries are not negative")
    yield from _text(where, task.description)
    for names, pattern, kind in (
        ([one.name for one in task.inputs], _INPUT, "input"),
        ([one.name for one in task.results], _INPUT, "result"),
        ([one.name for one in task.secrets], _SECRET, "secret"),
        *(([name for name, _ in program.env], _ENV, "environment variable") for program in task.programs),
        ([program.name for program in task.prepare], _LABEL, "container"),
        ([key for secret in task.secrets for key in secret.files], _KEY, "secret's file"),
    ):
        for name in names:
            if not pattern.fullmatch(name):
                yield Problem(where, f"`{name}` cannot be the name of a {kind}")
            if kind != "secret's file" and names.count(name) > 1:
                yield Problem(where, f"there are two of {kind} `{name}`")
    for given in task.inputs:
        if given.name.startswith(_OURS):
            yield Problem(where, f"input `{given.name}`: names that begin with `{_OURS}` are taken")
    for secret in task.secrets:
        if secret.param not in declared:
            yield Problem(where, f"secret `{secret.name}` names parameter `{secret.param}`, which is not declared")
        if any(one.name == secret.param for one in task.inputs):
            yield Problem(where, f"`{secret.param}` is the name of an input and of a secret's parameter")
    yield from _order(pipeline, task)
    for given in task.inputs:
        yield from _text(f"{where}, input {given.name}", given.description)
        yield from _joints(f"{where}, input {given.name}", given.value)
        for piece in pieces(given.value):
            yield from _value(pipeline, task, f"{where}, input {given.name}", piece, declared)
    yield from _programs(task)


def _order(pipeline: Pipeline, task: Task) -> Iterator[Problem]:
    where = f"task {task.name}"
    last = task in pipeline.finally_
    known = {other.name: other for other in pipeline.tasks}
    for needed in task.needs:
        if last:
            yield Problem(
                where, f"a finally task cannot wait for `{needed}`: it runs after all tasks, however they ended"
            )
        elif needed not in known:
            yield Problem(where, f"needs task `{needed}`, which is not among the pipeline's tasks")


def _value(pipeline: Pipeline, task: Task, where: str, piece: Piece, declared: set[str]) -> Iterator[Problem]:
    match piece:
        case str():
            yield from _text(where, piece)
        case ParamRef(name):
            if name not in declared:
                yield Problem(where, f"parameter `{name}` is not declared by any task's `params`")
        case ResultRef(other, name):
            source = next((one for one in pipeline.tasks if one.name == other), None)
            if source and name not in {result.name for result in source.results}:
                yield Problem(where, f"task `{other}` has no result `{name}`")
        case StatusRef(other):
            if task not in pipeline.finally_:
                yield Problem(where, "the status of a task can be read by finally tasks only")
            elif other not in {one.name for one in pipeline.tasks}:
                yield Problem(where, f"reads the status of task `{other}`, which is not among the pipeline's tasks")
        case RunName():
            pass
        case _:
            yield Problem(where, f"{piece!r} belongs into a program's argv or env, not into an input")


def _programs(task: Task) -> Iterator[Problem]:
    where = f"task {task.name}"
    names = [*_RESERVED, task.name]
    used: set[str] = {task.node_arch.name} if task.node_arch is not None else set()
    for program in task.programs:
        place = where if program is task.program else f"{where}, container {program.name}"
        if program is not task.program and program.name in names:
            yield Problem(place, f"the name of a container that prepares is none of {', '.join(names)}")
        for name, token in _tokens(program):
            for piece in pieces(token):
                yield from _token(task, f"{place}, {name}", piece)
                if isinstance(piece, ResultPath) and program is not task.program:
                    yield Problem(f"{place}, {name}", "results are given by the task's last program")
                if isinstance(piece, InputRef):
                    used.add(piece.name)
        yield from _program(place, program)
    given = [one.name for one in task.inputs]
    if task.node_arch is not None and task.node_arch.name not in given:
        yield Problem(f"{where}, node_arch", f"`{task.node_arch.name}` is not among the task's inputs")
    for name in given:
        if name not in used:
            yield Problem(where, f"input `{name}` is read by nothing in argv or env")


def _tokens(program: Program) -> Iterator[tuple[str, Token]]:
    for number, token in enumerate(program.argv):
        yield f"argument {number}", token
    for name, token in program.env:
        yield f"variable {name}", token


def _program(where: str, program: Program) -> Iterator[Problem]:
    argv = program.argv
    yield from _image(where, program.image)
    if not argv or argv[0] == "":
        yield Problem(where, "argv is empty: the command must be given, it is not taken from the image")
    elif not isinstance(argv[0], str):
        yield Problem(where, "the command (argv[0]) is a value of the run: it must be written in the pipeline")
    yield from _scripts(where, argv)
    yield from _options(where, argv)
    for name, token in _tokens(program):
        yield from _joints(f"{where}, {name}", token)


def _image(where: str, image: str) -> Iterator[Problem]:
    if image in DEFAULTS:
        return
    try:
        pinned = ImageRef.parse(image).pinned
    except InvalidError as error:
        yield Problem(where, f"image {error.what}: {' '.join(error.details)}")
        return
    if not pinned:
        yield Problem(where, f"image `{image}` can be another one tomorrow: name a version or, better, a digest")


def _joints(where: str, value: Value | Token) -> Iterator[Problem]:
    """What stands beside a value must not make a variable of it: `$` before `(...`, `{` before `{...`."""
    parts = pieces(value)
    for left, right in pairwise(parts):
        if not isinstance(left, str) and not isinstance(right, str):
            yield Problem(where, "two values touch each other: put a character between them")
        elif isinstance(left, str) and left[-1:] in "${" and left:
            yield Problem(where, f"`{left[-1]}` before a value could make a variable of it")
        elif isinstance(right, str) and right[:1] in "({" and right:
            yield Problem(where, f"`{right[0]}` behind a value could make a variable of it")


def _token(task: Task, where: str, piece: Piece) -> Iterator[Problem]:
    match piece:
        case str():
            yield from _text(where, piece)
        case InputRef(name):
            if name not in {given.name for given in task.inputs}:
                yield Problem(where, f"`{name}` is not among the task's inputs")
        case ResultPath(name):
            if name not in {result.name for result in task.results}:
                yield Problem(where, f"`{name}` is not among the task's results")
        case SecretPath(secret, key):
            files = next((one.files for one in task.secrets if one.name == secret), None)
            if files is None:
                yield Problem(where, f"`{secret}` is not among the task's secrets")
            elif key not in files:
                yield Problem(where, f"secret `{secret}` has no file `{key}`")
        case RunName():
            pass
        case _:
            yield Problem(where, f"{piece!r} must come in as an input: argv and env read InputRef only")


def _scripts(where: str, argv: Sequence[Token]) -> Iterator[Problem]:
    """A value inside the text of a script is code. `sh -c TEXT -- VALUE` is fine: there it is `$1`."""
    interpreter = False
    for number, token in enumerate(argv[:-1]):
        if isinstance(token, str) and _INTERPRETERS.fullmatch(PurePosixPath(token).name):
            interpreter = True
        if interpreter and isinstance(token, str) and _SCRIPT_FLAG.fullmatch(token):
            if any(not isinstance(piece, str) for piece in pieces(argv[number + 1])):
                yield Problem(
                    f"{where}, argument {number + 1}",
                    "a value inside the text of a script becomes code: pass it as an argument of its own or in env",
                )
            return


def _options(where: str, argv: Sequence[Token]) -> Iterator[Problem]:
    """A value that begins an argument can begin with a hyphen, and is an option then. Behind `--` nothing is."""
    for number, word in enumerate(argv):
        if word == "--":
            return
        if number and isinstance(pieces(word)[0], InputRef):
            yield Problem(
                f"{where}, argument {number}",
                "a value that begins with `-` would be read as an option: write `--flag=` before it, or `--` earlier",
            )


def _cycles(tasks: Sequence[Task]) -> Iterator[Problem]:
    known = {task.name for task in tasks}
    try:
        TopologicalSorter({task.name: [need for need in task.needs if need in known] for task in tasks}).prepare()
    except CycleError as error:
        yield Problem("order of tasks", f"goes in a circle: {' -> '.join(reversed(error.args[1]))}")
