"""The neutral pipeline: Tekton's words, no engine's text. Frozen data, no I/O.

A task is one pod: a container, and where its image cannot do the whole work, others that prepare for it. Tasks hand
each other short strings (results), never files: what is large travels through the registry, by digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from dtkpipe.errors import InvalidError
from dtkpipe.model.refs import InputRef, Joined, ParamRef, ResultRef, StatusRef, Token, Value, pieces

WORKSPACE = "/workspace"
"""The working folder of a task's containers: shared by them, empty at the start, gone with the pod."""


@dataclass(frozen=True, kw_only=True)
class Param:
    """A parameter of a pipeline. Always a string; `default=None` makes it required."""

    name: str
    description: str
    default: str | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """A short string that a task gives. All results of a task share Tekton's 4096 bytes: stay below 3 KiB."""

    name: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input of a task, and the value that the pipeline gives it."""

    name: str
    description: str
    value: Value


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A Kubernetes Secret that only this task sees, as files under /run/secrets/dtkpipe/<name>.

    `param` is the pipeline parameter that holds the Secret's name; `files` are its keys.
    """

    name: str
    param: str
    files: tuple[str, ...]
    optional: bool = True


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What a task's pod may do. The default is nothing: no root, no capability, no API."""

    root: bool = False
    capabilities: tuple[str, ...] = ()
    namespaces: bool = False
    """May make user and mount namespaces of its own: the runtime's default seccomp profile, which forbids that, is
    left out."""
    service_account: str = "dtkpipe-task"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a task's pod asks for and may use, as Kubernetes quantities."""

    cpu: str = "100m"
    memory: str = "256Mi"
    memory_limit: str = "512Mi"
    scratch: str = "1Gi"
    """Size of the emptyDir at /workspace, which is the task's working folder and gone with it."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a container runs. `image` is a name from dtkpipe.model.images or a full reference; argv[0] the command."""

    image: str
    argv: tuple[Token, ...]
    env: tuple[tuple[str, Token], ...] = ()
    name: str = ""
    """Of the container, for a program that prepares; the task's own program has the task's name."""
    rights: Rights | None = None
    """Of the container, where they are not the task's; its service account is the task's in any case."""
    resources: Resources | None = None
    """Of the container, where they are not the task's."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One pod of the pipeline. `task.NAME` (upper or lower case) is a reference to its result NAME."""

    name: str
    description: str
    program: Program
    prepare: tuple[Program, ...] = ()
    """Programs that run before, one after the other, in containers of their own over the same /workspace and /tmp.
    They give no results; each sees the secrets that its argv and env name, and no others. One that fails ends the
    task, and Argo reports nothing of a task that ends so but its message: leave failures to the last program."""
    inputs: tuple[Input, ...] = ()
    results: tuple[Result, ...] = ()
    params: tuple[Param, ...] = ()
    """Pipeline parameters that come with this task."""
    secrets: tuple[Secret, ...] = ()
    after: tuple[str, ...] = ()
    rights: Rights = field(default_factory=Rights)
    resources: Resources = field(default_factory=Resources)
    timeout: int = 600
    """Seconds."""
    retries: int = 0
    """How often a failure that a repetition can mend is followed by another attempt: our own steps repeat themselves
    when a place does not answer, Argo repeats pods that are lost."""
    node_arch: InputRef | None = None
    """The input that names the architecture of the nodes (label kubernetes.io/arch) that can run the task, where not
    all can."""

    def __getattr__(self, name: str) -> ResultRef:
        wanted = name.upper()
        if name.startswith("_") or not any(result.name == wanted for result in self.__dict__.get("results", ())):
            raise AttributeError(f"task `{self.__dict__.get('name')}` has no result `{name}`")
        return ResultRef(self.name, wanted)

    def by_digest(self, image: str = "image") -> Joined:
        """Return an image that the task gives: its results `<IMAGE>_URL` and `<IMAGE>_DIGEST` joined by `@`."""
        return Joined((getattr(self, f"{image}_url"), "@", getattr(self, f"{image}_digest")))

    @property
    def programs(self) -> tuple[Program, ...]:
        """What runs in the task's pod, in this order."""
        return (*self.prepare, self.program)

    @property
    def status(self) -> StatusRef:
        """How the task ended; for `finally` tasks."""
        return StatusRef(self.name)

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """Names of the tasks that must have succeeded before, in order of first use."""
        used = [piece.task for given in self.inputs for piece in pieces(given.value) if isinstance(piece, ResultRef)]
        return tuple(dict.fromkeys([*used, *self.after]))


@dataclass(frozen=True)
class Pipeline:
    """Tasks in the order of work, and `finally_` tasks that run after them however they ended."""

    name: str
    description: str
    tasks: Sequence[Task]
    finally_: Sequence[Task] = ()

    @property
    def all_tasks(self) -> tuple[Task, ...]:
        """The tasks and the finally tasks."""
        return (*self.tasks, *self.finally_)

    @cached_property
    def params(self) -> tuple[Param, ...]:
        """Every parameter that some task takes, in order of first use; required by one is required by all.

        Raises InvalidError where two tasks have different defaults.
        """
        found: dict[str, Param] = {}
        for task in self.all_tasks:
            for param in task.params:
                known = found.setdefault(param.name, param)
                if param.default is None:
                    found[param.name] = replace(known, default=None)
                elif known.default not in (None, param.default):
                    raise InvalidError(
                        f"two tasks of pipeline `{self.name}` disagree about the default of parameter `{param.name}`",
                        f"{known.default!r} and {param.default!r}",
                    )
        return tuple(found.values())

    def task(self, name: str) -> Task:
        """Return the task `name`. Raises InvalidError."""
        for task in self.all_tasks:
            if task.name == name:
                return task
        known = ", ".join(task.name for task in self.all_tasks)
        raise InvalidError(f"pipeline `{self.name}` has no task `{name}`", f"tasks: {known}")


def param(name: str, description: str, default: str | None = None) -> tuple[Param, ParamRef]:
    """Declare a pipeline parameter for a task of your own: the declaration, and the reference to its value."""
    return Param(name=name, description=description, default=default), ParamRef(name)


def container(
    name: str,
    *,
    image: str,
    argv: Sequence[Token],
    description: str = "",
    inputs: Mapping[str, Value] | None = None,
    results: Mapping[str, str] | None = None,
    env: Mapping[str, Token] | None = None,
    params: Sequence[Param] = (),
    after: Sequence[Task] = (),
    prepare: Sequence[Program] = (),
    secrets: Sequence[Secret] = (),
    rights: Rights | None = None,
    resources: Resources | None = None,
    timeout: int = 600,
    retries: int = 0,
) -> Task:
    """Make a task from any container image: for the steps that users add to a pipeline of their own.

    `inputs` are name -> value and are read in `argv` and `env` by `InputRef(name)`; `results` are NAME -> description
    and are written by the program to `ResultPath(NAME)`.
    """
    return Task(
        name=name,
        description=description or name,
        program=Program(image=image, argv=tuple(argv), env=tuple((env or {}).items())),
        inputs=tuple(Input(name=key, description="", value=value) for key, value in (inputs or {}).items()),
        results=tuple(Result(name=key, description=text) for key, text in (results or {}).items()),
        params=tuple(params),
        after=tuple(task.name for task in after),
        prepare=tuple(prepare),
        secrets=tuple(secrets),
        rights=rights or Rights(),
        resources=resources or Resources(),
        timeout=timeout,
        retries=retries,
    )
