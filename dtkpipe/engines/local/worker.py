"""One attempt of one task, as a process: its output goes to the log, line by line, its end to whoever waits."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dtkpipe.tools import process

LOG_LIMIT = 64 * 1024 * 1024
"""Bytes of output that are kept of one attempt."""
_LINE_LIMIT = 8192
_ERROR_LINES = 16


@dataclass(frozen=True)
class Line:
    """A task said something."""

    task: str
    text: str


@dataclass(frozen=True)
class Ended:
    """A task's process has ended. `error` is what it said about why: `error:` and what follows, else its last line."""

    task: str
    returncode: int
    error: tuple[str, ...]


class Attempt:
    """A running task. What happens to it is handed to `post`, from threads of its own."""

    def __init__(
        self, task: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path,
        post: Callable[[Line | Ended], None],
    ) -> None:  # fmt: skip
        self._task, self._log, self._post = task, log, post
        self._error: list[str] = []
        self._last = ""
        # In the caller's thread: the kernel ends a guarded child when the *thread* that started it ends.
        self._process = process.start(argv, cwd=cwd, env=env, stderr=process.STDOUT, own_group=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, daemon=True).start()

    def end(self, *, now: bool = False) -> None:
        """Ask the task and its children to end, or kill them."""
        process.signal_group(self._process, signal.SIGKILL if now else signal.SIGTERM)

    def _wait(self) -> None:
        returncode = self._process.wait()
        # Something that the task left behind may hold the pipe open for ever.
        self._reader.join(timeout=2)
        process.signal_group(self._process, signal.SIGKILL)
        self._post(Ended(self._task, returncode, tuple(self._error) or ((self._last,) if self._last else ())))

    def _read(self) -> None:
        pipe = self._process.stdout
        if pipe is None:
            return
        left = LOG_LIMIT
        with pipe, self._log.open("ab", buffering=0) as log:
            while raw := pipe.readline(_LINE_LIMIT):
                if left > 0:
                    self._keep(log, raw)
                    left -= len(raw)
                    if left <= 0:
                        self._keep(log, b"\n[dtkpipe: the rest of this output is not kept]\n")
                text = raw.decode(errors="replace").rstrip()
                if text:
                    self._note(text)
                    self._post(Line(self._task, text))

    def _keep(self, log: IO[bytes], raw: bytes) -> None:
        try:
            log.write(raw)
        except OSError as error:  # a full disk must not stop the task's output, and so the task
            self._error = self._error or [f"error: the log cannot be written: {error.strerror}"]

    def _note(self, text: str) -> None:
        self._last = text
        if text.startswith("error: "):
            self._error = [text.removeprefix("error: ")]
        elif self._error and len(self._error) < _ERROR_LINES:
            self._error.append(text)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold interrupts back: a task that is interrupted while it is started would be nobody's, and never end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _frame: pending.append(got))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for got in pending:
            signal.raise_signal(got)
