"""Virtual machines: one boot of a kernel, two channels to listen to, a time limit. Nothing of the host is inside."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import selectors
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dtkpipe.errors import UnsupportedError
from dtkpipe.tools import process
from dtkpipe.values.arch import AARCH64, X86_64, Arch

Source = Literal["console", "evidence"]
_CHUNK = 1 << 16
_KVM_GET_API_VERSION, _KVM_CREATE_VM = 0xAE00, 0xAE01  # Linux: include/uapi/linux/kvm.h


@dataclass(frozen=True)
class Board:
    """What a virtual machine of one architecture is made of."""

    program: str
    machine: str
    cpu: str
    console: str
    evidence: str
    """Names of the two serial ports inside the guest."""
    ports: tuple[str, ...]
    """QEMU's arguments for the two ports."""


BOARDS = {
    X86_64: Board(
        program="qemu-system-x86_64",
        machine="q35",
        cpu="max,la57=off",
        console="ttyS0",
        evidence="ttyS1",
        ports=("-serial", "chardev:console", "-serial", "chardev:evidence"),
    ),
    AARCH64: Board(
        program="qemu-system-aarch64",
        machine="virt",
        cpu="cortex-a72",
        console="ttyAMA0",
        evidence="ttyS0",
        ports=("-serial", "chardev:console", "-device", "pci-serial,chardev=evidence"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Firmware:
    """UEFI firmware: its program, and this machine's own copy of its variables. `smm`: x86 protects them by SMM."""

    code: Path
    variables: Path
    smm: bool = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One boot. `memory` is in MiB; `command_line` is the kernel's."""

    arch: Arch
    kernel: Path
    initramfs: Path
    command_line: str
    memory: int = 512
    firmware: Firmware | None = None
    accelerated: bool = False
    """Run in hardware (KVM) instead of emulating the processor."""


def board(arch: Arch) -> Board:
    """Return the board for `arch`. Raises UnsupportedError."""
    if arch not in BOARDS:
        raise UnsupportedError(
            f"kernels of {arch} cannot be booted here", f"known: {', '.join(a.name for a in BOARDS)}"
        )
    return BOARDS[arch]


# The first instructions of a machine: write 0x10 to port 0xf4, stop. The debug device there ends QEMU with 2*n+1.
_PROGRAM, _RAN, _PORT = bytes([0xB0, 0x10, 0xE6, 0xF4, 0xF4]), 33, "isa-debug-exit,iobase=0xf4,iosize=0x01"
_ROM_SIZE, _RESET = 1 << 16, 16
_PROBE_SECONDS = 3.0


@functools.cache
def accelerated(arch: Arch) -> bool:
    """Tell whether a guest of `arch` runs in hardware here; otherwise it is emulated.

    /dev/kvm may exist, may even make machines, and not run them: nested virtualisation. So one is run.
    """
    if arch != Arch.host() or not _kvm_makes_machines():
        return False
    if arch != X86_64:
        return True
    with tempfile.TemporaryDirectory() as folder:
        rom = Path(folder) / "rom"
        rom.write_bytes(bytes(_ROM_SIZE - _RESET) + _PROGRAM.ljust(_RESET, b"\0"))
        try:
            done = process.run(
                [
                    board(arch).program, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35",
                    "-accel", "kvm", "-cpu", "max", "-m", "64", "-bios", rom, "-device", _PORT,
                ],
                timeout=_PROBE_SECONDS, ok=None,
            )  # fmt: skip
        except process.ProcessTimeoutError:
            return False
    return done.returncode == _RAN


def _kvm_makes_machines() -> bool:
    try:
        with Path("/dev/kvm").open("rb+", buffering=0) as kvm:
            if fcntl.ioctl(kvm, _KVM_GET_API_VERSION) != 12:
                return False
            os.close(fcntl.ioctl(kvm, _KVM_CREATE_VM, 0))
    except OSError:
        return False
    return True


def command(machine: Machine, console: Path) -> list[str | Path]:
    """Return QEMU's command. Evidence comes out of its stdout, the console out of the pipe `console`."""
    made_of = board(machine.arch)
    firmware = machine.firmware
    argv: list[str | Path] = [
        made_of.program, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-machine", made_of.machine + (",smm=on" if firmware and firmware.smm else ""),
        "-accel", "kvm" if machine.accelerated else "tcg",
        "-cpu", "max" if machine.accelerated else made_of.cpu,
        "-m", str(machine.memory),
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny",
        "-kernel", machine.kernel,
        "-initrd", machine.initramfs,
        "-append", machine.command_line,
        "-chardev", f"file,id=console,path={_option(console)}",
        "-chardev", "stdio,id=evidence,signal=off",
        *made_of.ports,
    ]  # fmt: skip
    if firmware:
        argv += [
            "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_option(firmware.code)}",
            "-drive", f"if=pflash,unit=1,format=raw,file={_option(firmware.variables)}",
        ]  # fmt: skip
    return argv


def _option(path: Path) -> str:
    """Write a path as part of an option: a comma in it is doubled."""
    return str(path).replace(",", ",,")


class Guest:
    """A running virtual machine."""

    def __init__(self, machine: Machine, work: Path) -> None:
        self._work = work
        self.exit_code = 0
        """QEMU's, once it has ended by itself."""
        self._pipe = work / "console.pipe"
        os.mkfifo(self._pipe)
        # Opened before QEMU opens the other end, which would wait for us.
        self._console = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK)
        self._errors = (work / "qemu.log").open("wb")
        self._process = process.start(command(machine, self._pipe), stdout=process.PIPE, stderr=self._errors)

    def listen(self, deadline: Callable[[], float]) -> Iterator[tuple[Source, bytes]]:
        """Yield what comes out until the machine is off, or time.monotonic() passes `deadline()`."""
        output = self._process.stdout
        if output is None:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ, "evidence")
            selector.register(self._console, selectors.EVENT_READ, "console")
            running = True
            while running and (left := deadline() - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    chunk = os.read(key.fd, _CHUNK)
                    if chunk:
                        yield key.data, chunk
                    elif key.data == "evidence":
                        running = False
                    else:
                        selector.unregister(self._console)
        if not running:
            while chunk := self._rest():
                yield "console", chunk

    def _rest(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(self._console, _CHUNK)
        return b""

    @property
    def errors(self) -> str:
        """What QEMU itself complained about."""
        return (self._work / "qemu.log").read_text(errors="replace")[:4096].strip()

    def stop(self) -> None:
        """Switch the machine off, if it still runs."""
        running = self._process.poll() is None
        if running:
            self._process.kill()
        code = self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        os.close(self._console)
        self._errors.close()
        self._pipe.unlink()
        self.exit_code = 0 if running else code


@contextlib.contextmanager
def running(machine: Machine, work: Path) -> Iterator[Guest]:
    """Boot a machine; it is off at the end of the block. Raises ToolMissingError, UnsupportedError."""
    process.which(board(machine.arch).program)
    guest = Guest(machine, work)
    try:
        yield guest
    finally:
        guest.stop()
