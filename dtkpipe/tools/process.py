"""The one place that starts processes.

Commands are argv lists, never shell text. A child dies with us, also when we are killed: `setpriv --pdeathsig`.
Nothing secret may be in an argv: it is shown in logs and in the process list. Pass secrets as files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dtkpipe.errors import DtkpipeError, UnsupportedError, how_ended

Argv = Sequence[str | Path]
Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Finished:
    """A process that has ended. `output` is stdout; both texts are decoded leniently."""

    argv: tuple[str, ...]
    returncode: int
    output: str
    errors: str
    seconds: float


class ProcessFailedError(DtkpipeError):
    """A program ended with an exit code that was not expected. Callers turn it into what it means for the user."""

    exit_code = 10

    def __init__(self, finished: Finished) -> None:
        lines = [line for line in (finished.errors or finished.output).splitlines() if line.strip()]
        super().__init__(f"`{finished.argv[0]}` {how_ended(finished.returncode)}", *lines[-5:])
        self.finished = finished


class ProcessTimeoutError(DtkpipeError):
    """A program did not end within its time limit, and was killed."""

    exit_code = 12


class ToolMissingError(UnsupportedError):
    """A program that is not installed on this machine."""

    def __init__(self, program: str) -> None:
        super().__init__(
            f"`{program}` is not installed", f"looked in: {os.environ.get('PATH', '')}", hint="dtkpipe doctor --fix"
        )


def which(program: str) -> str:
    """Return the path of `program`. Raises ToolMissingError. Looks in sbin too, which is not in every user's PATH."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if not found:
        raise ToolMissingError(program)
    return found


def _guarded(argv: Argv) -> list[str]:
    program, *rest = (str(token) for token in argv)
    return [which("setpriv"), "--pdeathsig", "KILL", which(program), *rest]


def run(
    argv: Argv,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes = b"",
    timeout: float | None = None,
    log: Path | None = None,
    echo: IO[bytes] | None = None,
    ok: Sequence[int] | None = (0,),
) -> Finished:
    """Run a program to its end.

    `env` is added to our own environment. With `log`, stdout and stderr are appended to that file, in the order they
    were written, and are also what `output` holds; `echo` gets a copy of it as it comes. `ok` are the exit codes that
    are no error; None takes any. Raises ToolMissingError, ProcessFailedError, ProcessTimeoutError.
    """
    started = time.monotonic()
    data = stdin.encode() if isinstance(stdin, str) else stdin
    names = tuple(str(token) for token in argv)
    environment = {**os.environ, **(env or {})}
    sink: IO[bytes] | int = subprocess.PIPE
    offset = 0
    with contextlib.ExitStack() as open_files:
        if log:
            sink = kept = open_files.enter_context(log.open("ab", buffering=0))
            offset = log.stat().st_size
            if echo:
                sink = open_files.enter_context(_copied(kept, echo))
        try:
            done = subprocess.run(
                _guarded(argv), cwd=cwd, env=environment, input=data, timeout=timeout, check=False,
                stdout=sink, stderr=subprocess.STDOUT if log else subprocess.PIPE,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ProcessTimeoutError(f"`{names[0]}` did not end within {timeout:.0f} s") from error
    if log:
        with log.open("rb") as written:
            written.seek(offset)
            output = written.read()
    else:
        output = done.stdout
    finished = Finished(
        names, done.returncode, output.decode(errors="replace"), (done.stderr or b"").decode(errors="replace"),
        time.monotonic() - started,
    )  # fmt: skip
    if ok is not None and done.returncode not in ok:
        raise ProcessFailedError(finished)
    return finished


@contextlib.contextmanager
def _copied(*files: IO[bytes]) -> Iterator[int]:
    """Give a file descriptor; what is written to it goes into every file."""
    reader, writer = os.pipe()

    def copy() -> None:
        with os.fdopen(reader, "rb", buffering=0) as said:
            while chunk := said.read(65536):
                for file in files:
                    file.write(chunk)
                    file.flush()

    copier = threading.Thread(target=copy)
    copier.start()
    try:
        yield writer
    finally:
        os.close(writer)
        copier.join()


def start(
    argv: Argv,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.PIPE,
    stderr: IO[bytes] | int = subprocess.PIPE,
    outlives_us: bool = False,
    own_group: bool = False,
) -> Process:
    """Start a program and return at once; the caller waits for it or ends it. Raises ToolMissingError.

    `outlives_us` is for servers that several runs share: the program gets a session of its own and is not killed
    with us. `own_group` keeps a Ctrl-C at the terminal from it, and lets `signal_group` reach all that it started.
    """
    command = [which(str(argv[0])), *(str(token) for token in argv[1:])] if outlives_us else _guarded(argv)
    return subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **(env or {})}, stdin=stdin, stdout=stdout, stderr=stderr,
        start_new_session=outlives_us, process_group=0 if own_group else None,
    )  # fmt: skip


def signal_group(started: Process, number: int) -> None:
    """Send a signal to a program that was started with `own_group`, and to its children. Gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, number)


PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
STDOUT = subprocess.STDOUT
"""For callers of `start`, who do not import subprocess."""
