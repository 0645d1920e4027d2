"""What a cluster of ours leaves on a machine, or would leave: found by what carries its names and addresses."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.e2e.cluster import layout
from tests.e2e.cluster.processes import cgroups

_NAMES = (
    rf"\b{layout.BRIDGE}\b",
    layout.CGROUP,
    rf"{re.escape(str(layout.run().folder))}\b",
    *(rf"\b{re.escape(network.removesuffix('0.0/16'))}" for network in (layout.NETWORK, layout.SERVICES)),
)
_OURS = re.compile("|".join(_NAMES))


def _ours(lines: str) -> Iterator[str]:
    return (line for line in lines.splitlines() if _OURS.search(line))


def _printed(*argv: str) -> Iterator[str]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path})
    return _ours(done.stdout)


def _callers() -> Iterator[int]:
    pid = os.getpid()
    while pid:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _processes() -> Iterator[str]:
    """Processes whose program, arguments, folder, root or cgroup is of ours."""
    callers = set(_callers())  # whoever runs the tests may have named the cluster
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) in callers:
            continue
        try:
            said = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            said += (process / "cgroup").read_text().replace("\n", " ")
            said += " ".join(str((process / link).readlink()) for link in ("exe", "cwd", "root"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if _OURS.search(said):
            yield f"{process.name} {said}"


def _folders() -> Iterator[str]:
    """What programs write at fixed places of a machine."""
    for place in ("/var/lib/cni", "/var/log/pods", "/var/log/containers"):
        for path in Path(place).rglob("*"):
            if _OURS.search(str(path)) or (path.is_file() and _OURS.search(path.read_text(errors="replace"))):
                yield str(path)


_LOOKS: Mapping[str, Callable[[], Iterator[str]]] = {
    "processes": _processes,
    "mounts": lambda: _ours(Path("/proc/self/mountinfo").read_text()),
    "interfaces": lambda: _printed("ip", "-o", "link"),
    "addresses": lambda: _printed("ip", "-o", "address"),
    "routes": lambda: _printed("ip", "-o", "route", "show", "table", "all"),
    "firewall": lambda: _printed("iptables-save"),
    "cgroups": lambda: map(str, (path for path in cgroups() if path.exists())),
    "folders": _folders,
}

_SETTINGS = ("kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "vm/overcommit_memory")
"""What kubelet likes to set, for the whole machine."""


def settings() -> list[str]:
    """The machine's settings that a kubelet would change."""
    return [f"{name}={(Path('/proc/sys') / name).read_text().strip()}" for name in _SETTINGS]


def traces() -> dict[str, list[str]]:
    """Everything of ours that is on this machine, by kind; kinds without any are left out."""
    found = {kind: sorted(look()) for kind, look in _LOOKS.items()}
    return {kind: lines for kind, lines in found.items() if lines}
