"""A task's container and volumes in Kubernetes' words, the same for every engine but for how it spells a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dtkpipe.model.images import DEFAULTS, RUNNER
from dtkpipe.model.pipeline import Secret, Task
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

WORKSPACE = "/workspace"
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


def image_of(task: Task, images: Mapping[str, str]) -> str:
    """Return the image a task runs in: what its name stands for, or the reference itself."""
    return {**DEFAULTS, **images}.get(task.program.image, task.program.image)


def uses_run_name(task: Task) -> bool:
    """Say whether the task's program reads the run's name itself, not through an input."""
    tokens = [*task.program.argv, *(token for _, token in task.program.env)]
    return any(isinstance(piece, RunName) for token in tokens for piece in pieces(token))


def container(task: Task, spelling: Spelling, images: Mapping[str, str]) -> dict[str, Any]:
    """Return what the container of a task runs, without volumes and resources. All text, no shell."""
    command, *args = (spelling.token(token) for token in task.program.argv)
    env = {"HOME": WORKSPACE, **{name: spelling.token(token) for name, token in task.program.env}}
    return {
        "image": image_of(task, images),
        "command": [command],
        "args": args,
        "workingDir": WORKSPACE,
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "securityContext": security_context(task),
        "volumeMounts": mounts(task),
    }


def resources(task: Task) -> dict[str, Any]:
    """Return requests and limits. No CPU limit: it slows builds down and protects nobody."""
    asked = task.resources
    return {
        "requests": {"cpu": asked.cpu, "memory": asked.memory},
        "limits": {"memory": asked.memory_limit},
    }


def security_context(task: Task) -> dict[str, Any]:
    """Return what the container may do: nothing that its rights do not name.

    A root task builds images: buildah needs a user namespace, which the runtimes' default seccomp profile forbids.
    """
    rights = task.rights
    capabilities: dict[str, list[str]] = {"drop": ["ALL"]}
    if rights.capabilities:
        capabilities["add"] = list(rights.capabilities)
    if rights.root:
        return {
            "runAsNonRoot": False,
            "runAsUser": 0,
            "privileged": False,
            "allowPrivilegeEscalation": True,
            "capabilities": capabilities,
        }
    return {
        "runAsNonRoot": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": task.program.image == RUNNER,
        "capabilities": capabilities,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def mounts(task: Task) -> list[dict[str, Any]]:
    """Return where the volumes are mounted."""
    return [
        {"name": "workspace", "mountPath": WORKSPACE},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  (a volume of the pod's own)
        *({"name": _volume(one), "mountPath": f"{SECRETS}/{one.name}", "readOnly": True} for one in task.secrets),
    ]


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
