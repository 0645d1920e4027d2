"""Which program builds images: buildah, in our own image, or kaniko in its own. The pipeline is the same otherwise.

kaniko needs no namespaces, so it runs where the runtime's default seccomp profile keeps buildah from working. It has no
isolation either: what a Containerfile runs can read the registry credentials of the pod, and has network.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dtkpipe.errors import NotFoundError, UnsupportedError
from dtkpipe.model.images import KANIKO
from dtkpipe.model.pipeline import WORKSPACE, Pipeline, Program, Resources, Rights, Task
from dtkpipe.model.refs import ResultPath, SecretPath, Token, pieces
from dtkpipe.tasks import REGISTRY_AUTH, build

BUILDERS = ("buildah", "kaniko")
CANNOT = {
    "hermetic": "cannot take the network away from a build",
    "registry-mirrors": "does not read through mirror sets",
}
"""Parameter of the pipeline -> what kaniko cannot do of it."""
_STEP = ("dtkpipe", "step", "build")
_FOLDER = f"{WORKSPACE}/kaniko"
# It gives files their owners, modes and capabilities, and changes to the user that a Containerfile names.
_RIGHTS = Rights(
    root=True, capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP", "SETGID", "SETUID")
)  # fmt: skip
CAPABILITIES = tuple(sorted({*build.rights.capabilities, *_RIGHTS.capabilities}))
"""What builds add to their containers, whatever the builder: OpenShift has to allow it."""
_AROUND = Resources(memory="256Mi", memory_limit="2Gi")


def with_builder(pipeline: Pipeline, builder: str) -> Pipeline:
    """Return the pipeline with every image built by `builder`; with kaniko its name ends in `-kaniko`.

    A pipeline that builds nothing is the same with each. Raises NotFoundError for a builder that there is not.
    """
    if builder not in BUILDERS:
        near = difflib.get_close_matches(builder, BUILDERS, n=1)
        raise NotFoundError(
            f"there is no builder `{builder}`", f"builders: {', '.join(BUILDERS)}",
            hint=f"did you mean `{near[0]}`?" if near else "",
        )  # fmt: skip
    if builder == "buildah":
        return pipeline
    made = replace(
        pipeline,
        tasks=tuple(_with_kaniko(task) for task in pipeline.tasks),
        finally_=tuple(_with_kaniko(task) for task in pipeline.finally_),
    )
    return pipeline if made == pipeline else replace(made, name=f"{pipeline.name}-{builder}")


def refuse_what_kaniko_cannot(pipeline: Pipeline, params: Mapping[str, str]) -> None:
    """Raise UnsupportedError for parameters that a build with kaniko would have to ignore."""
    if any(program.image == KANIKO for task in pipeline.all_tasks for program in task.programs):
        for name, cannot in CANNOT.items():
            if params.get(name, "false") not in ("", "false"):
                raise UnsupportedError(f"kaniko {cannot}", f"parameter: {name}", hint="--builder buildah")


def _with_kaniko(task: Task) -> Task:
    if task.program.argv[: len(_STEP)] != _STEP:
        return task
    flags = (*task.program.argv[len(_STEP) :], f"--folder={_FOLDER}")
    prepare = replace(
        task.program, name="prepare", argv=("dtkpipe", "step", "prepare-build", *_without_results(flags)),
        rights=Rights(), resources=_AROUND,
    )  # fmt: skip
    auth = (("REGISTRY_AUTH_FILE", SecretPath(REGISTRY_AUTH.name, "config.json")),)
    kaniko = Program(
        name="kaniko", image=KANIKO, argv=(f"{_FOLDER}/run",), env=auth, rights=_RIGHTS, resources=task.resources
    )
    # What kaniko failed with is said once: it has repeated itself by then.
    env = tuple(one for one in task.program.env if one[0] != "GIT_CONFIG_GLOBAL")
    finish = replace(
        task.program, argv=("dtkpipe", "step", "finish-build", *flags), env=(*env, ("DTKPIPE_RETRIES", "0"))
    )
    return replace(
        task, prepare=(prepare, kaniko), program=finish,
        rights=Rights(service_account=task.rights.service_account),
        resources=replace(_AROUND, scratch=task.resources.scratch),
    )  # fmt: skip


def _without_results(argv: Sequence[Token]) -> tuple[Token, ...]:
    return tuple(token for token in argv if not any(isinstance(piece, ResultPath) for piece in pieces(token)))
