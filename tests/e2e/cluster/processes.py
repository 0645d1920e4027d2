"""The cluster's processes live in namespaces of their own: mounts, processes and network.

The first process of the namespaces holds them: when it is killed, the kernel kills all others, containers and machines
included, and takes mounts, interfaces, routes and firewall rules away with them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster import layout
from tests.e2e.cluster.layout import Run
from tests.e2e.cluster.waiting import NotYet, until

Argv = Sequence[str | Path]

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Known:
    """A process, so that another one with its number is not taken for it."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Known:
        return cls(pid, _started_at(pid))

    @property
    def alive(self) -> bool:
        return bool(self.started) and _started_at(self.pid) == self.started

    def signal(self, number: int, seconds: float = 60) -> None:
        """Send a signal that ends it, and return when it has ended. Gone is fine."""
        if not self.alive:
            return
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                signal.pidfd_send_signal(handle, number)
                if not select.select([handle], [], [], seconds)[0]:
                    raise TimeoutError(f"process {self.pid} is still there {seconds:.0f} s after signal {number}")
            finally:
                os.close(handle)


def _started_at(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty for none, or one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _only_child(pid: int) -> int:
    def look() -> int:
        try:
            return int((Path(f"/proc/{pid}/task/{pid}/children").read_text().split() or ["0"])[0])
        except FileNotFoundError as error:
            raise RuntimeError("a program of the cluster ended as soon as it was started") from error

    return until(f"process {pid} has started another", look, 10)


def _which(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        raise RuntimeError(f"{program} is not installed: dtkpipe doctor --fix --for e2e")
    return found


def _spawn(argv: list[str], log: Path, environment: Mapping[str, str]) -> int:
    """Start a program that outlives us: nobody here waits for it. Returns its number."""
    output = (1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, *output)]
    return os.posix_spawn(
        _which(argv[0]), argv, environment, file_actions=[*actions, (os.POSIX_SPAWN_DUP2, 1, 2)], setsid=True
    )


_KUBELET_SETS = {
    "vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000, "kernel/keys/root_maxbytes": 25_000_000,
}  # fmt: skip
"""Settings of the kernel that kubelet does not start without (kubernetes, container_manager_linux.go): it is told that
they are so."""


class Box:
    """The namespaces of one run, and the processes in them."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def open(self) -> bool:
        """Whether they are there."""
        return (known := self._known("box")) is not None and known.alive

    def create(self) -> None:
        """Make the namespaces, with what programs write outside of our folder turned to it."""
        self.run.processes.mkdir(parents=True, exist_ok=True)
        holder = [
            "unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--propagation", "private",
            "tini", "--", "sleep", "infinity",
        ]  # fmt: skip
        pid = _only_child(_spawn(holder, Path(os.devnull), os.environ))
        _make_cgroups(pid)
        self._note("box", pid, [])
        self.command(["mount", "-t", "proc", "proc", "/proc"])
        for kept in ("vm", "kernel"):  # what kubelet sets there would hold for the whole machine
            self.command(["mount", "--bind", "-o", "ro", f"/proc/sys/{kept}", f"/proc/sys/{kept}"])
        for name, value in _KUBELET_SETS.items():
            told = self.run.folder / "sys" / name
            told.parent.mkdir(parents=True, exist_ok=True)
            told.write_text(f"{value}\n")
            self.command(["mount", "--bind", told, f"/proc/sys/{name}"])
        for name in ("lib", "log"):
            private = self.run.folder / "var" / name
            private.mkdir(parents=True, exist_ok=True)
            self.command(["mount", "--bind", private, f"/var/{name}"])
        self.command(["mount", "-t", "tmpfs", "run", "/run"])
        self.command(["mount", "--make-rshared", "/"])  # pods may ask for mounts to be seen by others

    def close(self) -> None:
        """Kill everything and remove what the kernel does not remove by itself.

        What is to be killed is found in the cgroup, so that it does not matter who still knows of it.
        """
        for cgroup in cgroups():
            with contextlib.suppress(OSError):
                for pid in (cgroup / "cgroup.procs").read_text().split():
                    Known.of(int(pid)).signal(signal.SIGKILL)
        until("the cluster's cgroups are gone", _remove_cgroups, 30)

    def command(self, argv: Argv, stdin: str = "", ok: Sequence[int] = (0,)) -> str:
        """Run a program inside to its end."""
        done = subprocess.run(self._inside(argv), input=stdin, capture_output=True, text=True)
        if done.returncode not in ok:
            raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def start(self, name: str, argv: Argv, environment: Mapping[str, str] | None = None) -> None:
        """Start a program inside; its output goes to its log. It outlives us."""
        log = self.run.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        # A REGISTRY_* variable of the caller would change the registry's configuration.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        outer = _spawn(self._inside(argv), log, {**kept, **(environment or {})})
        self._note(name, _only_child(outer), argv, environment or {})

    def start_again(self, name: str) -> None:
        """Start a program as it was started before."""
        noted = json.loads(self._file(name).read_text())
        self.start(name, noted["argv"], noted["environment"])

    def alive(self, name: str) -> bool:
        return (known := self._known(name)) is not None and known.alive

    def end(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a program by a signal; returns when it has ended."""
        if (known := self._known(name)) is not None:
            known.signal(number)

    def names(self) -> Iterator[str]:
        """Names of all programs that were started."""
        yield from sorted(path.name for path in self.run.processes.iterdir() if path.name != "box")

    def _inside(self, argv: Argv) -> list[str]:
        known = self._known("box")
        if known is None or not known.alive:
            raise RuntimeError("the cluster is not up: python -m tests.e2e.cluster up")
        program, *rest = map(str, argv)
        target = ["nsenter", "--target", str(known.pid), "--mount", "--pid", "--net", "--"]
        return [*target, _which(program), *rest]

    @property
    def pid(self) -> int:
        """The process that holds the namespaces."""
        known = self._known("box")
        return known.pid if known else 0

    def _file(self, name: str) -> Path:
        return self.run.processes / name

    def _note(self, name: str, pid: int, argv: Argv, environment: Mapping[str, str] | None = None) -> None:
        known = Known.of(pid)
        noted = {"pid": pid, "started": known.started, "argv": list(map(str, argv)), "environment": environment or {}}
        self._file(name).write_text(json.dumps(noted))

    def _known(self, name: str) -> Known | None:
        try:
            noted = json.loads(self._file(name).read_text())
        except FileNotFoundError:
            return None
        return Known(noted["pid"], noted["started"])


def _hierarchies() -> list[Path]:
    """The roots of all cgroup hierarchies: one, or with version 1 one for each controller."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in sorted(_CGROUPS.iterdir()) if path.is_dir() and not path.is_symlink()]


def cgroups() -> list[Path]:
    """All cgroups of ours, deepest first."""
    roots = [hierarchy / layout.CGROUP for hierarchy in _hierarchies()]
    found = [Path(folder) for root in roots for folder, _, _ in os.walk(root)]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def _make_cgroups(holder: int) -> None:
    """Make the cgroup that pods live below, with all controllers, as kubelet wants it, and put the holder there too."""
    for hierarchy in _hierarchies():
        parent = hierarchy
        for name in (layout.CGROUP, "holder"):
            child = parent / name
            child.mkdir(exist_ok=True)
            if (parent / "cgroup.controllers").exists():
                for controller in (parent / "cgroup.controllers").read_text().split():
                    (parent / "cgroup.subtree_control").write_text(f"+{controller}")
            if (parent / "cpuset.mems").exists() and not (parent / "cgroup.controllers").exists():
                for setting in ("cpuset.cpus", "cpuset.mems"):  # of version 1: a new one starts empty
                    (child / setting).write_text((parent / setting).read_text())
            parent = child
        (parent / "cgroup.procs").write_text(str(holder))


def _remove_cgroups() -> bool:
    for path in cgroups():
        try:
            path.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:  # busy as long as its last process is being taken down
            raise NotYet(str(error)) from error
    return True
