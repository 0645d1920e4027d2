"""The registry on loopback that local runs push to when they are given no other: Debian's docker-registry.

Its storage is in the cache. Runs at the same time share it: each holds a shared lock, the last one out stops it. What
a killed run left behind is found by its pid file and taken over.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dtkpipe.app import storage
from dtkpipe.errors import UnsupportedError
from dtkpipe.tools import process

HOST = "127.0.0.1"
PORT = 5077
"""The port of the first choice."""
_START = 20.0
_STOP = 10.0
_ANSWER = 5.0

_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http: {{addr: "{host}:{port}"}}
"""


@contextmanager
def loopback_registry(cache: Path, say: Callable[[str], None]) -> Iterator[str]:
    """Have the registry up during the block; gives its host: `127.0.0.1:5077`, or another port that it keeps then.

    Raises ToolMissingError where docker-registry is not installed, UnsupportedError where it does not start.
    """
    own = _Registry(cache / "registry", say)
    own.folder.mkdir(parents=True, exist_ok=True)
    with (own.folder / "users.lock").open("ab") as users:
        with own.alone():
            fcntl.flock(users, fcntl.LOCK_SH)
            port = own.adopt() or own.start()
        try:
            yield f"{HOST}:{port}"
        finally:
            with own.alone():
                if _is_last(users):
                    own.stop()


def _is_last(users: IO[bytes]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True)
class _Registry:
    folder: Path
    say: Callable[[str], None]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one who starts or stops it."""
        with (self.folder / "start.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def config(self) -> Path:
        return self.folder / "config.yml"

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    def adopt(self) -> int:
        """Return the port of a registry of ours that is up, or 0; one that does not answer is ended."""
        pid, port = self._noted()
        if not pid:
            return 0
        if _answers(port):
            return port
        self.stop()
        return 0

    def start(self) -> int:
        """Start it on storage that is sound; return its port."""
        removed = storage.repair(self.storage, self.folder / "blobs.json")
        if removed:
            self.say(f"the cache's registry was damaged: removed {len(removed)} entries, they are made again")
        port = self._port()
        self.config.write_text(_CONFIG.format(storage=json.dumps(str(self.storage)), host=HOST, port=port))
        # Every REGISTRY_* variable would change its configuration, and REGISTRY_AUTH_FILE is one of the user's.
        unset = [f"--unset={name}" for name in os.environ if name.startswith("REGISTRY_")]
        log = self.folder / "registry.log"
        with log.open("wb") as sink:
            server = process.start(
                ["env", *unset, process.which("docker-registry"), "serve", self.config],
                stdout=sink, stderr=sink, outlives_us=True,
            )  # fmt: skip
        (self.folder / "running.json").write_text(json.dumps({"pid": server.pid, "port": port}))
        deadline = time.monotonic() + _START
        while not _answers(port):
            if server.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(errors="replace").splitlines()
                raise UnsupportedError("the registry on loopback does not start", *lines[-3:], f"log: {log}")
            time.sleep(0.01)  # there is no event for "listens now"
        server.returncode = 0  # it outlives us: keeps Popen from warning about that
        return port

    def _port(self) -> int:
        """Choose the port: that of the last time, so that the references of its images stay valid, else ours."""
        kept = self.folder / "port"
        with suppress(OSError, ValueError):
            if _is_free(last := int(kept.read_text())):
                return last
        port = PORT
        if not _is_free(PORT):
            port = _free_port()
            self.say(f"port {PORT} is taken by another program: the registry is on {HOST}:{port}")
        kept.write_text(str(port))
        return port

    def stop(self) -> None:
        """Stop it, if it is up, and note the state of its storage."""
        pid, _ = self._noted()
        if pid:
            _end(pid)
        (self.folder / "running.json").unlink(missing_ok=True)
        storage.note(self.storage, self.folder / "blobs.json")

    def _noted(self) -> tuple[int, int]:
        """Return pid and port of our registry, zeros when it is not up. A pid may long be another program's."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            noted = json.loads((self.folder / "running.json").read_text())
            command = Path(f"/proc/{noted['pid']}/cmdline").read_bytes().split(b"\0")
            if str(self.config).encode() in command:
                return int(noted["pid"]), int(noted["port"])
        return 0, 0


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _end(pid: int) -> None:
    """End a process, ours or not, and wait until it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        waiter = select.poll()
        waiter.register(handle, select.POLLIN)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if waiter.poll(_STOP * 1000):
                break
    finally:
        os.close(handle)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
