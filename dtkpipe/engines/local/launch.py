"""From a task and its values to a process: our own program for the runner image, a container for every other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from dtkpipe.engines.container import SECRETS
from dtkpipe.engines.local import container
from dtkpipe.engines.local.binding import Values, bind
from dtkpipe.engines.local.folder import RunFolder, TaskFolder
from dtkpipe.engines.local.plan import fingerprint
from dtkpipe.engines.local.worker import Attempt, Ended, Line
from dtkpipe.errors import InvalidError, UnsupportedError
from dtkpipe.model.images import DEFAULTS, RUNNER
from dtkpipe.model.pipeline import WORKSPACE, Task

# -P: the folder that a step works in holds the user's files, and must never be a place to import from.
_PYTHON = (sys.executable, "-P", "-m")


@dataclass(frozen=True)
class Launcher:
    """Starts the tasks of one run."""

    folder: RunFolder
    cache: Path
    version: str
    secrets: Mapping[str, Mapping[str, Path]]

    def key(self, task: Task, values: Values) -> str:
        """Return the fingerprint of all that the task is given. Where its files lie does not count."""
        named = {name: {key: PurePath(name, key) for key in files} for name, files in self.secrets.items()}
        command = bind(task, values, PurePath("results"), named, PurePath("not-given"))
        used = [
            f"{secret.name}/{key} {file.stat().st_size} {file.stat().st_mtime_ns}"
            for secret in task.secrets
            for key, file in self.secrets.get(secret.name, {}).items()
        ]
        return fingerprint(self.version, task.program.image, command, used)

    def start(self, task: Task, values: Values, post: Callable[[Line | Ended], None], *, again: bool) -> Attempt:
        """Start the task with empty folders. Raises InvalidError when a value or a secret is missing.

        Raises UnsupportedError for a task of several containers.
        """
        if task.prepare:
            raise UnsupportedError(
                f"task `{task.name}` is a pod of {len(task.programs)} containers: only a cluster runs that",
                hint="--engine argo, or --engine tekton",
            )
        place = self.folder.task(task.name)
        place.path.mkdir(parents=True, exist_ok=True)
        if not again:
            place.log.unlink(missing_ok=True)
        place.forget()
        for secret in task.secrets:
            if not secret.optional and secret.name not in self.secrets:
                raise InvalidError(f"secret `{secret.name}` is not given")
        argv, env = self._contained(task, values, place) if _is_foreign(task) else self._own(task, values, place)
        return Attempt(task.name, argv, env=env, cwd=place.work, log=place.log, post=post)

    def _own(self, task: Task, values: Values, place: TaskFolder) -> tuple[tuple[str, ...], Mapping[str, str]]:
        command = bind(task, values, place.results, self.secrets, place.nowhere)
        program, *rest = command.argv
        argv = (*_PYTHON, "dtkpipe", *rest) if program == "dtkpipe" else command.argv
        folders = {"WORK": place.work, "KEEP": place.evidence, "CACHE": self.cache}
        return argv, {**dict(command.env), **{f"DTKPIPE_{name}": str(path) for name, path in folders.items()}}

    def _contained(self, task: Task, values: Values, place: TaskFolder) -> tuple[tuple[str, ...], Mapping[str, str]]:
        inside = {
            secret.name: {key: PurePosixPath(SECRETS, secret.name, key) for key in files}
            for secret in task.secrets
            if (files := self.secrets.get(secret.name))
        }
        command = bind(task, values, PurePosixPath(container.RESULTS), inside, PurePosixPath(SECRETS))
        mounts = [(str(place.work), WORKSPACE, False), (str(place.results), container.RESULTS, False)]
        mounts += [
            (str(self.secrets[name][key]), str(there), True)
            for name, files in inside.items()
            for key, there in files.items()
        ]
        order = container.Order(
            image=DEFAULTS.get(task.program.image, task.program.image), argv=command.argv, env=dict(command.env),
            mounts=mounts, storage=str(self.cache / "containers"), ca=values.params.get("registry-ca", ""),
            insecure=values.params.get("insecure-registries", "[]"), mirrors=values.params.get("registry-mirrors", ""),
        )  # fmt: skip
        file = place.path / "container.json"
        file.write_text(order.to_json())
        return (*_PYTHON, "dtkpipe.engines.local.container", str(file)), {}


def _is_foreign(task: Task) -> bool:
    return task.program.image != RUNNER
