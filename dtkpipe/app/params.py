"""From what the user asked to the parameters of a pipeline. The same for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dtkpipe.errors import UsageError

if TYPE_CHECKING:
    from dtkpipe.model.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Values for parameters, by where they are from: the settings are for every pipeline, and say less than a user."""

    given: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    def of(self, pipeline: Pipeline) -> dict[str, str]:
        """Return what there is for a pipeline. A setting that it has no parameter for is none of its business."""
        names = {param.name for param in pipeline.params}
        return {**{name: value for name, value in self.settings.items() if name in names}, **self.given}


def known(pipeline: Pipeline, given: Mapping[str, str]) -> dict[str, str]:
    """Return `given` in the pipeline's order. Raises UsageError for a parameter that the pipeline does not have."""
    names = [param.name for param in pipeline.params]
    if wrong := [name for name in given if name not in names]:
        import difflib

        near = difflib.get_close_matches(wrong[0], names, n=1)
        raise UsageError(
            f"pipeline `{pipeline.name}` has no parameter `{wrong[0]}`",
            f"parameters: {', '.join(names)}",
            hint=f"did you mean `{near[0]}`?" if near else "",
        )
    return {name: given[name] for name in names if name in given}


def complete(pipeline: Pipeline, given: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a run: those given, and those that follow from them. What has a default is left out.

    Candidates go to `<push-to>-staging`, and toolkits to `<push-to>-toolkits`, when no other place is named. Raises
    UsageError for an unknown parameter, and for required ones that are missing, all at once.
    """
    params = known(pipeline, given)
    names = [param.name for param in pipeline.params]
    if final := params.get("push-to"):
        for name, ending in (("staging", "staging"), ("toolkit-repo", "toolkits")):
            if name in names and not params.get(name):
                params[name] = f"{_repository(final)}-{ending}"
    follows = {"staging", "toolkit-repo"} if "push-to" in names and not final else set()
    if missing := [
        param
        for param in pipeline.params
        if param.default is None and not params.get(param.name) and param.name not in follows
    ]:
        raise UsageError(
            f"pipeline `{pipeline.name}` needs {', '.join(f'`{param.name}`' for param in missing)}",
            *(f"{param.name}: {param.description}" for param in missing),
            hint=f"give --{missing[0].name}",
        )
    return known(pipeline, params)


def _repository(image: str) -> str:
    from dtkpipe.values.image import ImageRef

    return ImageRef.parse(image).name
