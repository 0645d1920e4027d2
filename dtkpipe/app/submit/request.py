"""What the user asked for, checked and named: the same for every engine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dtkpipe import __version__
from dtkpipe.app.params import Inputs, known
from dtkpipe.errors import UsageError
from dtkpipe.model.pipeline import Pipeline, Task
from dtkpipe.values.source import Source

Say = Callable[[str], None]

DIGITS = 8
"""Of the digest that ends the name of a run."""
_LONGEST = 50
"""Of a name without that: engines add a task's name to it, and Kubernetes takes 63 characters for a label."""


@dataclass(frozen=True, kw_only=True)
class OnThisMachine:
    """What only a run on this machine can be asked for."""

    sign_key: Path | None = None
    sign_passphrase_file: Path | None = None
    auth_file: Path | None = None
    secrets: Mapping[str, Path] = field(default_factory=dict)
    """Secret -> folder with its files."""
    load_on_this_host: bool = False
    from_step: str = ""
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for."""

    pipeline: str = ""
    """Name or file; "" is what fits the engine."""
    inputs: Inputs = field(default_factory=Inputs)
    """Values for the pipeline's parameters."""
    builder: str = "buildah"
    """What builds images, one of dtkpipe.builders.BUILDERS."""
    force: bool = False
    here: OnThisMachine = field(default_factory=OnThisMachine)


@dataclass(frozen=True, kw_only=True)
class Named:
    """The source of a request: the module's name, and the commit, "" where only the run will know it."""

    module: str
    commit: str
    params: Mapping[str, str]
    """The parameters, changed by what is known of the source."""


def known_params(pipeline: Pipeline, given: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that were given. Raises UsageError for unknown ones and for a target that cannot be one."""
    params = known(pipeline, given)
    if has_step(pipeline, "resolve"):
        _check_target(pipeline, params)
    return params


def identified(source: Source, params: Mapping[str, str]) -> tuple[Named, str]:
    """Return what a source is now, and its title for the user. Raises what fetching it would raise."""
    from dtkpipe.source.fetch import identify
    from dtkpipe.values.source import GIT

    commit, title = identify(source)
    # The branch may move on before `build` fetches it: what was resolved here is what is built.
    changes = {"repo": source.repo, **({"ref": commit} if source.kind == GIT else {})}
    return Named(module=source.name, commit=commit, params={**params, **changes}), title


def run_name(named: Named, pipeline: str) -> tuple[str, str]:
    """Return the name of a run, and the whole digest that ends it: the same inputs are the same run."""
    params = named.params
    text = json.dumps([pipeline, sorted(params.items()), named.commit, __version__])
    digest = hashlib.sha256(text.encode()).hexdigest()
    target = params.get("kernel") or params.get("release") or ""
    words = (label(named.module, 24), label(target, 24), label(params.get("variant", ""), 8))
    readable = "-".join(filter(None, words))[:_LONGEST].strip("-")
    return "-".join(filter(None, (readable, digest[:DIGITS]))), digest


def label(text: str, length: int) -> str:
    """Return text as it can be part of a name: lower-case letters, digits, single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:length].strip("-")


def step_of(task: Task) -> str:
    """Return the step that a task runs; an empty string for a task of the user's own."""
    program, *words = task.program.argv
    if program == "dtkpipe" and words[:1] == ["step"] and isinstance(words[1], str):
        return words[1]
    return ""


def has_step(pipeline: Pipeline, step: str) -> bool:
    """Say whether a task of the pipeline runs `step`."""
    return any(step_of(task) == step for task in pipeline.tasks)


def _check_target(pipeline: Pipeline, params: Mapping[str, str]) -> None:
    """Refuse a target that cannot be one. Raises UsageError for none, NotFoundError with the nearest names."""
    from dtkpipe.toolkits.distribution import distribution_names
    from dtkpipe.values.arch import Arch
    from dtkpipe.values.image import ImageRef
    from dtkpipe.values.kernel import Kernel
    from dtkpipe.values.release import parse_release

    release, kernel, toolkit, arch = (params.get(name) for name in ("release", "kernel", "toolkit", "arch"))
    if not (release or kernel or toolkit) and any(param.name == "release" for param in pipeline.params):
        raise UsageError(
            "nothing says what to build for", "expected --release, --kernel or --toolkit", hint="--release debian-12"
        )
    if release:
        parse_release(release, distribution_names())
    if kernel:
        Kernel.parse(kernel)
    if toolkit:
        ImageRef.parse(toolkit)
    if arch:
        Arch.parse(arch)
