"""A task's containers and volumes in Kubernetes' words, the same for every engine but for how it spells a reference.

All of it fits into a namespace with Pod Security `baseline`, and but for tasks that run as root into `restricted`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dtkpipe.model.images import DEFAULTS, RUNNER
from dtkpipe.model.pipeline import WORKSPACE, Program, Secret, Task
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

SECRETS = "/run/secrets/dtkpipe"


@dataclass(frozen=True)
class Spelling:
    """How an engine writes references; `{}` stands for the names."""

    param: str
    result: str
    status: str
    run_name: str
    input: str
    result_path: str
    run_name_inside: str
    """The run's name inside a task's program."""

    def value(self, value: Value | Token) -> str:
        """Write a value that a pipeline gives, or a token of a program."""
        return "".join(self._piece(piece) for piece in pieces(value))

    def token(self, token: Token) -> str:
        """Write a token of a program: there the run's name may be spelled in another way."""
        return "".join(
            self.run_name_inside if isinstance(piece, RunName) else self._piece(piece) for piece in pieces(token)
        )

    def _piece(self, piece: Piece) -> str:
        match piece:
            case str():
                return piece
            case ParamRef(name):
                return self.param.format(name)
            case ResultRef(task, name):
                return self.result.format(task, name)
            case StatusRef(task):
                return self.status.format(task)
            case RunName():
                return self.run_name
            case InputRef(name):
                return self.input.format(name)
            case ResultPath(name):
                return self.result_path.format(name)
            case SecretPath(secret, key):
                return f"{SECRETS}/{secret}/{key}"


def image_of(program: Program, images: Mapping[str, str]) -> str:
    """Return the image a program runs in: what its name stands for, or the reference itself."""
    return {**DEFAULTS, **images}.get(program.image, program.image)


def repeats_itself(task: Task) -> bool:
    """Say whether the task is a step of ours, which repeats itself when a place does not answer."""
    return task.program.image == RUNNER


def uses_run_name(task: Task) -> bool:
    """Say whether a program of the task reads the run's name itself, not through an input."""
    return any(isinstance(piece, RunName) for program in task.programs for piece in _pieces(program))


def _pieces(program: Program) -> Iterator[Piece]:
    for token in (*program.argv, *(token for _, token in program.env)):
        yield from pieces(token)


def container(task: Task, program: Program, spelling: Spelling, images: Mapping[str, str]) -> dict[str, Any]:
    """Return what one container of a task runs, without its resources. All text, no shell."""
    command, *args = (spelling.token(token) for token in program.argv)
    env = {**_environment(task, program), **{name: spelling.token(token) for name, token in program.env}}
    return {
        "image": image_of(program, images),
        "imagePullPolicy": "IfNotPresent",  # a version is never another image, and `latest` is refused
        "command": [command],
        "args": args,
        "workingDir": WORKSPACE,
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "securityContext": security_context(task, program),
        "volumeMounts": mounts(task, program),
    }


def _environment(task: Task, program: Program) -> dict[str, str]:
    """HOME, and with it every cache, is on the pod's own volume; our steps repeat themselves as often as they may."""
    if program.image != RUNNER:
        return {"HOME": WORKSPACE}
    return {"HOME": WORKSPACE, "DTKPIPE_WORK": WORKSPACE, "DTKPIPE_RETRIES": str(task.retries)}


def resources(task: Task, program: Program) -> dict[str, Any]:
    """Return requests and limits. No CPU limit: it slows builds down and protects nobody."""
    asked = program.resources or task.resources
    return {
        "requests": {"cpu": asked.cpu, "memory": asked.memory},
        "limits": {"memory": asked.memory_limit},
    }


def security_context(task: Task, program: Program) -> dict[str, Any]:
    """Return what the container may do: nothing that its rights do not name."""
    rights = program.rights or task.rights
    capabilities: dict[str, list[str]] = {"drop": ["ALL"]}
    if rights.capabilities:
        capabilities["add"] = list(rights.capabilities)
    allowed: dict[str, Any] = {"runAsNonRoot": not rights.root, "privileged": False, "allowPrivilegeEscalation": False}
    if rights.root:
        allowed["runAsUser"] = 0
    # Image builders keep locks in /run, and kaniko unpacks images into its own root.
    unchanged = program.image == RUNNER and not rights.root
    allowed |= {"readOnlyRootFilesystem": unchanged, "capabilities": capabilities}
    return allowed if rights.namespaces else {**allowed, "seccompProfile": {"type": "RuntimeDefault"}}


def mounts(task: Task, program: Program) -> list[dict[str, Any]]:
    """Return where the volumes are mounted: of the secrets, a program that prepares sees those that it names."""
    named = {piece.secret for piece in _pieces(program) if isinstance(piece, SecretPath)}
    seen = [one for one in task.secrets if program is task.program or one.name in named]
    return [
        {"name": "workspace", "mountPath": WORKSPACE},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  (a volume of the pod's own)
        *({"name": _volume(one), "mountPath": f"{SECRETS}/{one.name}", "readOnly": True} for one in seen),
    ]


def node_selector(task: Task, spelling: Spelling) -> dict[str, str]:
    """Return which nodes can run the task."""
    arch = {"kubernetes.io/arch": spelling.token(task.node_arch)} if task.node_arch is not None else {}
    return {"kubernetes.io/os": "linux", **arch}


def volumes(task: Task, spelling: Spelling) -> list[dict[str, Any]]:
    """Return the volumes: scratch space that goes with the pod, and the secrets whose names are inputs of the task."""
    return [
        {"name": "workspace", "emptyDir": {"sizeLimit": task.resources.scratch}},
        {"name": "tmp", "emptyDir": {"sizeLimit": task.resources.scratch}},
        *(
            {
                "name": _volume(one),
                "secret": {
                    "secretName": spelling.input.format(one.param),
                    "optional": one.optional,
                    "items": [{"key": key, "path": key} for key in one.files],
                },
            }
            for one in task.secrets
        ),
    ]


def _volume(secret: Secret) -> str:
    return f"secret-{secret.name}"
