"""Objects through Hera's models, with proof that nothing was lost on the way.

Hera's models carry Argo's field names and types, and drop what they do not know without a word
(argoproj-labs/hera#819). So an object is asked for as plain data, Hera builds it, and what Hera gives back must be
what was asked. A field that is misspelt, gone from Argo or of the wrong type never reaches a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtkpipe.errors import DtkpipeError

if TYPE_CHECKING:
    from pydantic import ValidationError

_MISSING = "nothing"


class LostFieldError(DtkpipeError):
    """A bug of ours, or a Hera that has changed: what was asked is not in what came out."""

    exit_code = 3

    def __init__(self, kind: str, where: str) -> None:
        super().__init__(
            f"a bug in the Argo renderer: Hera does not make the {kind} that was asked for",
            where,
            hint="please report this with the output of `dtkpipe version`",
        )


def proven_object(asked: dict[str, Any]) -> dict[str, Any]:
    """Return a Workflow or WorkflowTemplate as it was asked for. Raises LostFieldError."""
    return _proven(asked["kind"], asked["kind"], asked)


def proven_template(asked: dict[str, Any]) -> dict[str, Any]:
    """Return one template of a Workflow as it was asked for. Raises LostFieldError."""
    return _proven("Template", f"template `{asked['name']}`", asked)


def _proven(model: str, what: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Return `asked`, in the order it was written in: Hera sorts, people read from the top."""
    from hera.workflows import models  # takes most of a second: only who renders a pipeline waits for it
    from pydantic import ValidationError

    try:
        made = getattr(models, model).model_validate(asked).model_dump(mode="json", by_alias=True, exclude_none=True)
    except ValidationError as error:
        raise LostFieldError(what, _first(error)) from error
    if made != asked:
        raise LostFieldError(what, _difference(made, asked))
    return asked


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"


def _difference(made: Any, asked: Any, where: str = "") -> str:
    if isinstance(made, dict) and isinstance(asked, dict):
        key = next(key for key in {**asked, **made} if made.get(key, _MISSING) != asked.get(key, _MISSING))
        return _difference(made.get(key, _MISSING), asked.get(key, _MISSING), f"{where}.{key}")
    if isinstance(made, list) and isinstance(asked, list) and len(made) == len(asked):
        number = next(number for number, item in enumerate(asked) if made[number] != item)
        return _difference(made[number], asked[number], f"{where}[{number}]")
    return f"{where.lstrip('.')}: asked for {asked!r}, got {made!r}"
