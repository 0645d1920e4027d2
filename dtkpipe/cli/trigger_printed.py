"""Triggers that a repository holds as a file: printed, and nothing is created. GitHub Actions and Pipelines-as-Code."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dtkpipe.cli.schedule import matrix_of, parsed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dtkpipe.values.forge import Repository

GITHUB, PIPELINES_AS_CODE = "github", "pipelines-as-code"
PRINTED = {
    GITHUB: ("GitHub", "its workflows keep nothing between two starts, and see no nodes"),
    PIPELINES_AS_CODE: ("Pipelines-as-Code", "it starts something when a repository calls, and never else"),
}
"""Engine -> its title, and why it knows of repositories alone."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A trigger of a repository, as it was asked for."""

    name: str
    on: str
    repository: Repository | None
    url: str
    words: Sequence[str]
    paths: Sequence[str] = field(default=())
    runner_image: str = ""
    others: Sequence[str] = field(default=())
    """Flags that were given and are for a cluster."""


def print_trigger(engine: str, wanted: Wanted) -> None:
    """Print the file. Raises UsageError and UnsupportedError, and what is wrong with the matrix."""
    from dtkpipe.errors import UnsupportedError, UsageError

    title, why = PRINTED[engine]
    if not wanted.repository:
        raise UnsupportedError(
            f"{title} does not know of --on {wanted.on}", why,
            hint="--engine argo or --engine tekton, or a schedule that builds what is stale every night",
        )  # fmt: skip
    if wanted.others:
        raise UsageError(
            f"{wanted.others[0]} is not for --engine {engine}", "nothing is created: the repository holds the trigger",
            hint="leave it out",
        )  # fmt: skip
    made = _workflow(wanted, wanted.repository) if engine == GITHUB else _pipeline_run(wanted, wanted.repository)
    print(made, end="")


def _workflow(wanted: Wanted, repository: Repository) -> str:
    """Return a workflow of GitHub."""
    from dtkpipe.engines.dump import dump
    from dtkpipe.engines.triggers.github import REBUILD, workflow
    from dtkpipe.errors import UsageError
    from dtkpipe.values import forge

    if wanted.runner_image:
        raise UsageError(
            f"--runner-image is not for --engine {GITHUB}", f"it is an input of {REBUILD}", hint="leave it out"
        )
    if repository.forge != forge.GITHUB:
        raise UsageError(f"{repository.host} runs no workflows of GitHub", hint="--engine argo or --engine tekton")
    request, options = matrix_of(wanted.words).request, parsed(wanted.words)
    inputs = {
        "modules": ",".join(request.modules), "releases": request.releases, "push-to": request.push_to,
        "arch": ",".join(one.name for one in request.arches), "variant": ",".join(request.variants),
        "sign-cert": str(options["sign_cert"] or ""), "cells": str(options["jobs"]),
        "retry-failed": "true" if options["retry_failed"] else "",
    }  # fmt: skip
    unset = parsed(["--modules=any", "--releases=any"])
    for flag in sorted(set(options) - set(_OF_REBUILD)):
        if options[flag] != unset[flag]:
            raise UsageError(f"--{flag.replace('_', '-')} is not for --engine github", f"{REBUILD} has no such input")
    rings = request.modules if wanted.on == "catalog" else wanted.paths
    given = {key: text for key, text in inputs.items() if text}
    return dump([workflow(wanted.name, repository.path, rings, given)])


_OF_REBUILD = ("modules", "releases", "push_to", "arch", "variant", "sign_cert", "jobs", "retry_failed")


def _pipeline_run(wanted: Wanted, repository: Repository) -> str:
    """Return a PipelineRun for `.tekton/`."""
    from dtkpipe.app import rings, schedules
    from dtkpipe.app.install import engine_named
    from dtkpipe.engines.dump import dump
    from dtkpipe.engines.triggers.pipelines_as_code import NAMESPACE, pipeline_run
    from dtkpipe.model.images import DEFAULTS, RUNNER

    planner = schedules.Planner(
        name=wanted.name, engine=engine_named("tekton"), namespace=NAMESPACE, matrix=matrix_of(wanted.words),
        image=wanted.runner_image or DEFAULTS[RUNNER], here=Path.cwd(),
    )  # fmt: skip
    if wanted.on == rings.CATALOG:
        found = rings.on_catalog(planner, wanted.url, repository, "")
    else:
        found = rings.on_push(planner, repository, wanted.paths, "")
    return dump([pipeline_run(schedules.schedule(found.planner, schedules.NO_TIMES), found.bell)])
