"""The folder of a run: its card, and for each task its log, its results and the record that lets it be reused.

Everything is written beside its place and renamed, so that a run that was killed at any moment leaves either the old
or the new, never half of it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import DtkpipeError, InvalidError, NotAllowedError
from dtkpipe.values.run import CANCELLED, PENDING, RUNNING, RunCard


@dataclass(frozen=True, kw_only=True)
class Record:
    """A task that succeeded: the fingerprint of what it was given, and what it gave."""

    key: str
    results: Mapping[str, str]
    started: float
    finished: float


@dataclass(frozen=True)
class TaskFolder:
    """What one task leaves behind."""

    path: Path

    @property
    def log(self) -> Path:
        """Everything the task said, of all attempts."""
        return self.path / "log"

    @property
    def results(self) -> Path:
        """Where the task writes its results, a file each."""
        return self.path / "results"

    @property
    def work(self) -> Path:
        """The task's working folder; gone when it ends, unless it is kept."""
        return self.path / "work"

    @property
    def evidence(self) -> Path:
        """What the task left in the folder `evidence` of its working folder: it stays with the run."""
        return self.path / "evidence"

    def tidy(self) -> None:
        """Remove the working folder, all but the evidence."""
        left = self.work / "evidence"
        if left.is_dir() and not left.is_symlink():
            remove(self.evidence)
            left.rename(self.evidence)
        remove(self.work)

    @property
    def nowhere(self) -> Path:
        """A folder that is never made: where secrets would be that nobody gave."""
        return self.path / "not-given"

    def record(self) -> Record | None:
        """Return how the task succeeded, if it did; a record that cannot be read counts as none."""
        try:
            return Record(**json.loads((self.path / "record.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def remember(self, record: Record) -> None:
        """Keep the record of a success."""
        write(self.path / "record.json", json.dumps(dataclasses.asdict(record), indent=2))

    def blame(self, error: Sequence[str]) -> None:
        """Keep what the task said about why it failed."""
        write(self.path / "error", "\n".join(error))

    def error(self) -> list[str]:
        """Return what the task said about why it failed, as lines."""
        try:
            return (self.path / "error").read_text().splitlines()
        except OSError:
            return []

    def unlearn(self) -> None:
        """Drop the record: the task has to run again."""
        (self.path / "record.json").unlink(missing_ok=True)

    def forget(self) -> None:
        """Drop the record and all that an earlier attempt left, but the log."""
        self.unlearn()
        (self.path / "error").unlink(missing_ok=True)
        remove(self.evidence)
        for folder in (self.results, self.work):
            remove(folder)
            folder.mkdir(parents=True)

    def read_results(self) -> dict[str, str]:
        """Return the results that the task has written. Raises InvalidError for one that is not text."""
        found: dict[str, str] = {}
        for file in sorted(self.results.iterdir()):
            try:
                found[file.name] = file.read_text()
            except (UnicodeDecodeError, OSError) as error:
                raise InvalidError(f"result `{file.name}` is not a text file") from error
        return found


@dataclass(frozen=True)
class RunFolder:
    """One run."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    def task(self, name: str) -> TaskFolder:
        """Return the folder of a task."""
        return TaskFolder(self.path / "tasks" / name)

    def save(self, card: RunCard) -> None:
        """Keep the run card as it is now."""
        write(self.path / "run.json", card.to_json())

    def load(self) -> RunCard:
        """Return the run card. A run that nobody works on any more is `cancelled`. Raises InvalidError."""
        try:
            card = RunCard.from_json((self.path / "run.json").read_text())
        except OSError as error:
            raise InvalidError(f"run `{self.name}` has no run card", str(error)) from error
        if card.state not in (PENDING, RUNNING) or self.is_locked():
            return card
        ended = tuple(
            dataclasses.replace(step, state=CANCELLED, finished=step.started) if step.state == RUNNING else step
            for step in card.steps
        )
        cause = "dtkpipe ended before the run did; submit it again to go on"
        return dataclasses.replace(card, state=CANCELLED, cause=cause, steps=ended)

    def is_locked(self) -> bool:
        """Tell whether a process works on the run at this moment."""
        try:
            with (self.path / "lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def interrupt(self) -> bool:
        """Ask the process that works on the run to end it. False: none does.

        Raises NotAllowedError for another user's process.
        """
        try:
            holder = int((self.path / "lock").read_text() or "0")
        except (OSError, ValueError):
            holder = 0
        # While the lock is held, the number in it is that of who holds it.
        if not holder or not self.is_locked():
            return False
        try:
            os.kill(holder, signal.SIGTERM)
        except ProcessLookupError:
            return False
        except PermissionError as error:
            raise NotAllowedError(f"run `{self.name}` is another user's process ({holder})") from error
        return True

    def wait_until_idle(self) -> None:
        """Return when nobody works on the run any more."""
        with (self.path / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)

    @contextmanager
    def locked(self, *, wait: bool = True) -> Iterator[None]:
        """Be the only one who works on the run. The kernel drops the lock when we die.

        Raises DtkpipeError when somebody else works on it and `wait` is false.
        """
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            with (self.path / "lock").open("ab") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                except BlockingIOError as error:
                    raise DtkpipeError(f"run `{self.name}` is running") from error
                if not _is_still(file.fileno(), self.path / "lock"):
                    continue  # deleted while we waited
                file.truncate(0)
                file.write(str(os.getpid()).encode())
                file.flush()
                yield
                return


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def write(path: Path, text: str) -> None:
    """Write a file so that others see the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def remove(folder: Path) -> None:
    """Remove a folder and all in it, also what a build left read-only. One that is not there is fine."""

    def open_up(function: object, path: str, _error: object) -> None:
        Path(path).parent.chmod(0o700)
        if function is os.rmdir or function is os.unlink:
            function(path)
        else:
            Path(path).chmod(0o700)
            shutil.rmtree(path)

    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder, onerror=open_up)
