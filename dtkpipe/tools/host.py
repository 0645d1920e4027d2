"""The kernel of this machine: which it is, whether it takes modules, and what it has loaded.

Read from /proc and /sys. Formats: Linux, Documentation/ABI/testing/sysfs-module, Documentation/admin-guide/
tainted-kernels.rst, proc_modules(5), proc_pid_status(5).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import UnsupportedError
from dtkpipe.values.kernel import Kernel

_CAP_SYS_MODULE = 16
# Bits of /proc/sys/kernel/tainted that mean that the kernel is not healthy any more.
_SICK = {4: "machine check", 5: "bad page", 7: "oops", 9: "warning", 14: "soft lockup"}


@dataclass(frozen=True)
class HostKernel:
    """The running kernel, as /proc and /sys below `root` show it."""

    root: Path = Path("/")

    @property
    def release(self) -> str:
        """What `uname -r` prints. Raises UnsupportedError where there is no Linux."""
        text = self._read("proc/sys/kernel/osrelease")
        if not text:
            raise UnsupportedError("this machine does not run Linux", "no /proc/sys/kernel/osrelease")
        return text

    @property
    def name(self) -> str:
        """The machine's name."""
        return self._read("proc/sys/kernel/hostname")

    def require(self, kernel: Kernel) -> None:
        """Raise UnsupportedError unless this kernel is `kernel` and lets us load modules."""
        if self.release != kernel.release:
            raise UnsupportedError(
                f"the kernel of this machine is {self.release}, the image is for {kernel}",
                hint="run this on a node with that kernel; `verify` has proven the image without one",
            )
        if not (self.root / "proc/modules").exists():
            raise UnsupportedError("the kernel of this machine cannot load modules", "CONFIG_MODULES is off")
        if self._read("proc/sys/kernel/modules_disabled") == "1":
            raise UnsupportedError(
                "the kernel of this machine does not load modules any more", "kernel.modules_disabled is 1 until reboot"
            )
        if not self._capabilities() >> _CAP_SYS_MODULE & 1:
            raise UnsupportedError("not allowed to load modules on this machine", "CAP_SYS_MODULE is missing")

    def state(self, module: str) -> str:
        """Return the state of a loaded module (`Live`, `Loading`, `Unloading`), or an empty string."""
        for line in self._read("proc/modules").splitlines():
            name, *fields = line.split()
            if name == module.replace("-", "_"):
                return fields[3]
        return ""

    def srcversion(self, module: str) -> str:
        """Return the source checksum of a loaded module, or an empty string if it was built without one."""
        return self._read(f"sys/module/{module.replace('-', '_')}/srcversion")

    def sickness(self) -> tuple[str, ...]:
        """Return what has gone wrong since boot, in words; nothing if the kernel is healthy."""
        tainted = int(self._read("proc/sys/kernel/tainted") or 0)
        return tuple(word for bit, word in _SICK.items() if tainted >> bit & 1)

    def _capabilities(self) -> int:
        for line in self._read("proc/self/status").splitlines():
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
        return 0

    def _read(self, name: str) -> str:
        path = self.root / name
        return path.read_text(errors="replace").strip() if path.exists() else ""
