"""Part of matrix submit: what surrounds one cell's process, its lock, its time, what it printed."""

from __future__ import annotations

import fcntl
import getpass
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dtkpipe.errors import DtkpipeError
from dtkpipe.matrix.failure import LOG_LIMIT
from dtkpipe.tools import process
from dtkpipe.values.run import RunCard

PATIENCE = 90.0
"""Seconds that runs have to end after they were asked to: their own finally tasks have 60."""


@contextmanager
def held(lock: Path) -> Iterator[bool]:
    """Hold a lock, if nobody else does. The kernel drops it when we die."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def limited(started: process.Process, seconds: int) -> Iterator[threading.Event]:
    """End a process that takes too long: politely, and at last not. The event tells that it did."""
    late = threading.Event()

    def end() -> None:
        late.set()
        process.signal_group(started, signal.SIGTERM)

    timers = [threading.Timer(seconds, end),
              threading.Timer(seconds + PATIENCE, process.signal_group, (started, signal.SIGKILL))]  # fmt: skip
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield late
    finally:
        for timer in timers:
            timer.cancel()


def card_of(out: Path) -> RunCard | None:
    """Return the run card that a run printed; None when it did not come that far."""
    try:
        return RunCard.from_json(out.read_text(errors="replace"))
    except DtkpipeError:
        return None


def error_in(told: str) -> list[str]:
    """Return the error at the end of what a command told."""
    lines = told.splitlines()
    begins = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    found = lines[begins[-1] :] if begins else lines[-3:]
    return [line.removeprefix("error: ").strip() for line in found]


def end_of(log: Path | None) -> bytes:
    """Return the end of a log, as much as a record keeps; nothing where there is none."""
    if log is None or not log.is_file():
        return b""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_LIMIT))
        return file.read()


def who() -> str:
    """Return who we are: user@host."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a pod's user may have no name
        return socket.gethostname()
