"""The tasks that pipelines are made of: a step, plus what its pod may do and how long.

Calling one puts it into a pipeline: `built = build(toolkit=resolved.toolkit, kernel=resolved.kernel)`. An input that
is not given becomes a pipeline parameter of the same name.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from types import ModuleType

from dtkpipe.errors import InvalidError
from dtkpipe.model.images import RUNNER
from dtkpipe.model.pipeline import Input, Param, Program, Resources, Result, Rights, Secret, Task
from dtkpipe.model.refs import InputRef, Joined, ParamRef, ResultPath, SecretPath, StatusRef, Token, Value
from dtkpipe.steps.contract import flag, render
from dtkpipe.values.run import CAUSE, CAUSE_DOC

REGISTRY_AUTH = Secret(name="registry-auth", param="registry-secret", files=("config.json",))
REGISTRY_PULL = Secret(name="registry-pull", param="registry-pull-secret", files=("config.json",))
"""For tasks that only read: credentials that can write are not in their pods."""
SIGNING_KEY = Secret(name="signing-key", param="sign-secret", files=("key", "passphrase"))
GIT = Secret(name="git", param="git-secret", files=("config", "credentials"))
"""git's own configuration: for private repositories, and for URLs that are to be read as others (url.insteadOf)."""

_NODE_ARCH = "node-arch"
SECRET_ENV = {
    REGISTRY_AUTH: ("REGISTRY_AUTH_FILE", SecretPath(REGISTRY_AUTH.name, "config.json")),
    REGISTRY_PULL: ("REGISTRY_AUTH_FILE", SecretPath(REGISTRY_PULL.name, "config.json")),
    GIT: ("GIT_CONFIG_GLOBAL", SecretPath(GIT.name, "config")),
}
SECRET_PARAMS = {
    REGISTRY_AUTH.param: Param(
        name=REGISTRY_AUTH.param,
        description="Secret with registry credentials that may push (config.json)",
        default="dtkpipe-registry",
    ),
    REGISTRY_PULL.param: Param(
        name=REGISTRY_PULL.param,
        description="Secret with registry credentials for tasks that only read (config.json)",
        default="dtkpipe-registry-pull",
    ),
    SIGNING_KEY.param: Param(
        name=SIGNING_KEY.param,
        description="Secret with the signing key (key, passphrase)",
        default="dtkpipe-signing-key",
    ),
    GIT.param: Param(
        name=GIT.param,
        description="Secret with git's configuration (config, credentials)",
        default="dtkpipe-git",
    ),
}


@dataclass(frozen=True, kw_only=True)
class StepTask:
    """A step as a task. `secret_args` are inputs that are files of a secret: field name -> path."""

    step: str
    secrets: tuple[Secret, ...] = (REGISTRY_AUTH,)
    secret_args: dict[str, SecretPath] = field(default_factory=dict)
    rights: Rights = field(default_factory=Rights)
    resources: Resources = field(default_factory=Resources)
    timeout: int = 600
    retries: int = 0

    @property
    def module(self) -> ModuleType:
        """The step's program."""
        return importlib.import_module(f"dtkpipe.steps.{self.step.replace('-', '_')}")

    @property
    def summary(self) -> str:
        """The step in one sentence: the first line of its module's docstring."""
        return (self.module.__doc__ or "").strip().splitlines()[0].split(": ", 1)[-1]

    def __call__(
        self, *, name: str = "", after: Sequence[Task] = (), node_arch: Value | None = None, **given: Value
    ) -> Task:
        """Put the task into a pipeline. Raises InvalidError for an input that the step does not have.

        `node_arch` is the architecture of the nodes that can run it (label kubernetes.io/arch), where not all can.
        """
        fields = dataclasses.fields(self.module.Args)
        if unknown := set(given) - {known.name for known in fields}:
            import difflib

            wrong = min(unknown)
            near = difflib.get_close_matches(wrong, [known.name for known in fields], n=1)
            raise InvalidError(
                f"task `{self.step}` has no input `{wrong}`", hint=f"did you mean `{near[0]}`?" if near else ""
            )
        inputs: list[Input] = []
        params: list[Param] = [SECRET_PARAMS[secret.param] for secret in self.secrets]
        argv: list[Token] = ["dtkpipe", "step", self.step]
        for known in fields:
            name_of_input, doc = flag(known.name), str(known.metadata["doc"])
            if known.name in self.secret_args:
                argv.append(Joined((f"--{name_of_input}=", self.secret_args[known.name])))
                continue
            value = given.get(known.name)
            if value is None:
                value = ParamRef(name_of_input)
                default = None if known.default is MISSING else render(known.default)
                params.append(Param(name=name_of_input, description=doc, default=default))
            inputs.append(Input(name=name_of_input, description=doc, value=value))
            argv.append(Joined((f"--{name_of_input}=", InputRef(name_of_input))))
        if node_arch is not None:
            doc = "Architecture of the nodes that can run it, as in their label kubernetes.io/arch"
            inputs.append(Input(name=_NODE_ARCH, description=doc, value=node_arch))
        results = tuple(
            Result(name=given_back.name.upper(), description=str(given_back.metadata["doc"]))
            for given_back in dataclasses.fields(self.module.Results)
        )
        results += (Result(name=CAUSE, description=CAUSE_DOC),)
        argv += [Joined((f"--result-{flag(one.name.lower())}=", ResultPath(one.name))) for one in results]
        env = tuple(SECRET_ENV[secret] for secret in self.secrets if secret in SECRET_ENV)
        return Task(
            name=name or self.step,
            description=self.summary,
            program=Program(image=RUNNER, argv=tuple(argv), env=env),
            inputs=tuple(inputs),
            results=results,
            params=tuple(params),
            secrets=self.secrets,
            after=tuple(task.name for task in after),
            rights=self.rights,
            resources=self.resources,
            timeout=self.timeout,
            retries=self.retries,
            node_arch=None if node_arch is None else InputRef(_NODE_ARCH),
        )


# buildah with chroot isolation needs these inside the container and nothing else: no privilege, no host access. All
# are among those that Pod Security `baseline` lets a container add.
_BUILDS = Rights(
    service_account="dtkpipe-build",
    root=True,
    namespaces=True,
    capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETFCAP", "SETGID", "SETUID", "SYS_CHROOT"),
)

resolve = StepTask(
    step="resolve",
    resources=Resources(cpu="500m", memory="512Mi", memory_limit="2Gi", scratch="8Gi"),
    timeout=1800,
    retries=2,
)
build = StepTask(
    step="build",
    secrets=(REGISTRY_AUTH, GIT),
    rights=_BUILDS,
    resources=Resources(cpu="500m", memory="512Mi", memory_limit="4Gi", scratch="16Gi"),
    timeout=3600,
    retries=2,
)
# The two halves of a build with kaniko, which runs between them: dtkpipe/builders.py puts them into one pod.
prepare_build = StepTask(step="prepare-build", secrets=build.secrets)
finish_build = StepTask(step="finish-build")
sign = StepTask(
    step="sign",
    secrets=(REGISTRY_AUTH, SIGNING_KEY),
    secret_args={
        "key": SecretPath(SIGNING_KEY.name, "key"),
        "passphrase": SecretPath(SIGNING_KEY.name, "passphrase"),
    },
    retries=2,
)
verify = StepTask(
    step="verify",
    secrets=(REGISTRY_PULL,),
    resources=Resources(cpu="500m", memory="512Mi", memory_limit="2Gi", scratch="4Gi"),
    timeout=900,
    retries=2,
)
stage = StepTask(
    step="stage",
    resources=Resources(cpu="500m", memory="512Mi", memory_limit="2Gi", scratch="8Gi"),
    timeout=1800,
    retries=2,
)
publish = StepTask(step="publish", retries=2)
deploy = StepTask(
    step="deploy", secrets=(REGISTRY_PULL,), rights=Rights(service_account="dtkpipe-deploy"), timeout=900, retries=1
)
smoke_test = StepTask(
    step="smoke-test",
    secrets=(REGISTRY_PULL,),
    rights=Rights(service_account="dtkpipe-smoke-test"),
    timeout=900,
    retries=1,
)
rollback = StepTask(
    step="rollback", secrets=(), rights=Rights(service_account="dtkpipe-deploy"), timeout=600, retries=1
)
clean = StepTask(step="clean", retries=1)
report = StepTask(step="report", secrets=())

ALL = (
    resolve, build, prepare_build, finish_build, stage, sign, verify, publish, deploy, smoke_test, rollback, clean,
    report,
)  # fmt: skip


def statuses(tasks: Sequence[Task]) -> Joined:
    """Return how each of `tasks` ended, as the JSON list that `report` takes."""
    parts: list[str | StatusRef] = []
    for task in tasks:
        parts += [f'{"," if parts else "["}"{task.name}=', task.status, '"']
    return Joined((*parts, "]"))
