"""The logs of a run's tasks, as they are or as they grow."""

from __future__ import annotations

import difflib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from dtkpipe.engines.local.folder import RunFolder
from dtkpipe.errors import NotFoundError, NothingSelectedError
from dtkpipe.values.run import FAILED, RunCard

_PAUSE = 0.2


def choose(card: RunCard, tasks: Sequence[str], *, failed: bool) -> list[str]:
    """Return the names of the tasks to show. Raises NotFoundError, and NothingSelectedError when none failed."""
    names = [step.name for step in card.steps]
    for task in tasks:
        if task not in names:
            near = difflib.get_close_matches(task, names, n=1)
            raise NotFoundError(
                f"run `{card.name}` has no task `{task}`", f"tasks: {', '.join(names)}",
                hint=f"did you mean `{near[0]}`?" if near else "",
            )  # fmt: skip
    chosen = [
        step.name
        for step in card.steps
        if (not tasks or step.name in tasks) and (not failed or step.state == FAILED)
    ]  # fmt: skip
    if not chosen:
        raise NothingSelectedError(f"no task of run `{card.name}` failed", hint=f"dtkpipe logs {card.address}")
    return chosen


@dataclass(frozen=True)
class Reader:
    """Reads the logs of `tasks`; with `tail`, only so many of the last lines of each that are there already."""

    folder: RunFolder
    tasks: Sequence[str]
    tail: int = 0

    def lines(self) -> Iterator[tuple[str, str]]:
        """Give (task, line) of everything that has been written, task by task."""
        for task in self.tasks:
            try:
                with self.folder.task(task).log.open(errors="replace") as log:
                    for line in deque(log, self.tail) if self.tail else log:
                        yield task, line.rstrip("\n")
            except FileNotFoundError:
                continue

    def follow(self) -> Iterator[tuple[str, str]]:
        """Give (task, line) as they are written, until nobody works on the run any more."""
        ended = threading.Event()
        threading.Thread(target=self._wait, args=(ended,), daemon=True).start()
        open_logs: dict[str, IO[str]] = {}
        try:
            while True:
                last = ended.wait(_PAUSE)
                for task in self.tasks:
                    yield from ((task, line) for line in self._new(task, open_logs, whole=not last))
                if last:
                    return
        finally:
            for log in open_logs.values():
                log.close()

    def _new(self, task: str, open_logs: dict[str, IO[str]], *, whole: bool) -> Iterator[str]:
        log = open_logs.get(task)
        if log is None:
            try:
                log = open_logs[task] = self.folder.task(task).log.open(errors="replace")
            except FileNotFoundError:
                return
            if self.tail:
                yield from (line.rstrip("\n") for line in deque(iter(log.readline, ""), self.tail))
        while True:
            begin = log.tell()
            line = log.readline()
            if not line or (whole and not line.endswith("\n")):
                log.seek(begin)
                return
            yield line.rstrip("\n")

    def _wait(self, ended: threading.Event) -> None:
        self.folder.wait_until_idle()
        ended.set()
