"""From a pipeline and its parameters to the objects of an engine."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from dtkpipe.app.params import complete, known
from dtkpipe.builders import refuse_what_kaniko_cannot
from dtkpipe.engines.rendered import Form, Object, Rendered
from dtkpipe.errors import InvalidError, NotFoundError, UnsupportedError, UsageError
from dtkpipe.model.images import DEFAULTS, KANIKO, RUNNER
from dtkpipe.model.pipeline import Pipeline
from dtkpipe.values.image import ImageRef
from dtkpipe.values.source import Source

ENGINES = ("argo", "tekton")
_LARGEST = 1024 * 1024
"""Bytes of one object: Argo's limit for a Workflow; etcd takes 1.5 MiB of a request."""

# Kubernetes' rules for names: RFC 1123 label and subdomain.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SECRET_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What shall be compiled. `params` are those that the user gave."""

    engine: str
    form: Form = Form.TEMPLATE
    params: Mapping[str, str]
    runner_image: str = DEFAULTS[RUNNER]
    kaniko_image: str = DEFAULTS[KANIKO]
    run_name: str = ""
    strict: bool = False
    """Refuse what the engine does otherwise than the pipeline asks, instead of saying so."""


def compile_pipeline(pipeline: Pipeline, wanted: Wanted) -> Rendered:
    """Render the pipeline.

    Raises UsageError for parameters that are unknown, missing or not data, UnsupportedError for what the engine cannot
    hold, and in strict mode for everything that it does otherwise.
    """
    engine = engine_module(wanted.engine)
    if wanted.form is Form.TEMPLATE:
        if wanted.run_name:
            raise UsageError("a template has no run name", hint="--as run")
        params = known(pipeline, wanted.params)
    else:
        params = complete(pipeline, wanted.params)
        refuse_local_source(params.get("repo", ""))
    _names(pipeline, params, wanted.run_name)
    refuse_what_kaniko_cannot(pipeline, params)
    images = {RUNNER: _pinned(wanted.runner_image), KANIKO: _pinned(wanted.kaniko_image)}
    rendered: Rendered = engine.render(pipeline, wanted.form, params, images=images, run_name=wanted.run_name)
    if wanted.strict and rendered.unsupported:
        raise UnsupportedError(
            f"{wanted.engine} does not do all that pipeline `{pipeline.name}` asks",
            *(str(one) for one in rendered.unsupported),
        )
    for one in rendered.objects:
        if (size := len(json.dumps(one))) > _LARGEST:
            raise UnsupportedError(
                f"{wanted.engine} cannot hold {name_of(one)}: it has {size} bytes, the most is {_LARGEST}",
                hint="--as template, and runs that refer to it" if wanted.form is Form.INLINE else "",
            )
    return rendered


def refuse_local_source(repo: str) -> None:
    """Raise UsageError for a source that only this machine has."""
    if repo and (repo.startswith("file:") or not Source.parse(repo, here=Path.cwd()).remote):
        raise UsageError(
            f"`{repo}` is on this machine: a pod cannot read it",
            hint="give a git URL, or build it here: dtkpipe submit --engine local",
        )


def _names(pipeline: Pipeline, params: Mapping[str, str], run_name: str) -> None:
    """Refuse what Kubernetes would refuse as the name of a run or of a Secret."""
    if run_name and not _NAME.fullmatch(run_name):
        raise UsageError(f"`{run_name}` cannot be the name of a run", "lower-case letters, digits, hyphens; at most 63")
    for secret in (secret for task in pipeline.all_tasks for secret in task.secrets):
        if secret.param in params and not _SECRET_NAME.fullmatch(params[secret.param]):
            raise UsageError(
                f"parameter `{secret.param}` takes the name of a Secret, not `{params[secret.param][:80]}`"
            )


def _pinned(image: str) -> str:
    if not ImageRef.parse(image).pinned:
        raise InvalidError(
            f"image `{image}` can be another one tomorrow", hint="name a version or, better, a digest (@sha256:...)"
        )
    return image


def engine_module(name: str) -> ModuleType:
    """Return the engine's renderer. Only here is it imported: Hera alone takes most of a second."""
    if name == "local":
        raise UnsupportedError(
            "the local engine runs pipelines itself and has no YAML", hint="dtkpipe submit --engine local"
        )
    if name not in ENGINES:
        raise NotFoundError(f"there is no engine `{name}`", f"engines that have YAML: {', '.join(ENGINES)}")
    return importlib.import_module(f"dtkpipe.engines.{name}.render")


def name_of(one: Object) -> str:
    """Return `kind/name`; for a run that gets its name later, what it will begin with."""
    metadata = one["metadata"]
    return f"{one['kind'].lower()}/{metadata.get('name') or metadata['generateName']}"
