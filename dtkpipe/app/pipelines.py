"""Finds a pipeline by name, or in a Python file of the user's, and checks it.

A pipeline file is Python that the user wrote or chose: it is executed, with the user's rights.
"""

from __future__ import annotations

import contextlib
import difflib
import runpy
import sys
import traceback
from pathlib import Path

from dtkpipe.errors import DtkpipeError, InvalidError, NotFoundError
from dtkpipe.model.check import check
from dtkpipe.model.pipeline import Pipeline
from dtkpipe.resources import shipped

DEFAULT = "kmod"


def load(name_or_file: str = DEFAULT) -> Pipeline:
    """Return a pipeline that ships with dtkpipe ("kmod", "prebuild", "resign") or the one in "mine.py", "mine.py:name".

    `name` is the pipeline's variable in the file; it may be left out where the file has one pipeline, or one in a
    variable called `pipeline` or like the file. Raises NotFoundError for an unknown name or file, InvalidError with
    file and line for a file that does not run, and InvalidError with all its problems for a pipeline that is not valid.
    """
    file, _, variable = name_or_file.partition(":")
    if file.endswith(".py") or "/" in file:
        path = Path(file)
        if not path.is_file():
            raise NotFoundError(f"there is no pipeline file `{file}`", f"looked in: {Path.cwd()}")
        pipeline = _choose(_execute(path), path, variable)
    else:
        pipeline = _by_name(name_or_file)
    check(pipeline)
    return pipeline


def names() -> tuple[str, ...]:
    """Return the names of the pipelines that ship with dtkpipe."""
    return tuple(_shipped_pipelines())


def _shipped_pipelines() -> dict[str, Pipeline]:
    found = (one for path in sorted(shipped("pipelines").glob("*.py")) for one in _execute(path).values())
    return {pipeline.name: pipeline for pipeline in found}


def _by_name(name: str) -> Pipeline:
    known = _shipped_pipelines()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise NotFoundError(
        f"there is no pipeline `{name}`",
        f"shipped: {', '.join(known)}",
        hint=f"did you mean `{near[0]}`?" if near else "a file of your own is given with its ending: mine.py",
    )


def _choose(found: dict[str, Pipeline], path: Path, variable: str) -> Pipeline:
    if variable:
        if variable in found:
            return found[variable]
        raise NotFoundError(f"`{path}` has no pipeline `{variable}`", f"pipelines in it: {', '.join(found) or 'none'}")
    for likely in ("pipeline", path.stem.replace("-", "_")):
        if likely in found:
            return found[likely]
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise InvalidError(
            f"`{path}` defines no pipeline",
            "expected a variable of the module that holds a dtkpipe.model.Pipeline",
            hint="docs/how-to/write-your-own-pipeline.md",
        )
    raise InvalidError(
        f"`{path}` defines {len(found)} pipelines", hint=f"say which: {', '.join(f'{path}:{name}' for name in found)}"
    )


def _execute(path: Path) -> dict[str, Pipeline]:
    """Run the file and return its pipelines by variable. What it prints goes to stderr: stdout is ours."""
    if b"\0" in path.read_bytes():
        raise InvalidError(f"`{path}` is not Python", "it holds zero bytes")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            module = runpy.run_path(str(path))
    except SyntaxError as error:
        raise InvalidError(f"`{path}` is not Python", f"{error.filename}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # the file is the user's: whatever it raises is the user's to read
        raise InvalidError(f"the pipeline file `{path}` does not run", *_reason(error, path)) from error
    return {name: one for name, one in module.items() if isinstance(one, Pipeline) and not name.startswith("_")}


def _reason(error: BaseException, path: Path) -> tuple[str, ...]:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path}:{frames[-1].lineno}: " if frames else ""
    if isinstance(error, DtkpipeError):
        return (f"{where}{error.what}", *error.details, *([error.hint] if error.hint else []))
    return (f"{where}{type(error).__name__}: {error}",)
