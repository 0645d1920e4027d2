"""The fifth proof: the target kernel boots, takes the modules, is asked about them, and gives them back.

This file runs the machine and keeps time; judge.py says what it means.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dtkpipe.errors import UnsupportedError
from dtkpipe.proof.guest import Listener, Report, guest_files, mark_of, new_nonce
from dtkpipe.proof.kernel import KernelFiles
from dtkpipe.proof.plan import CHECK, CONTROL, LOAD, NEED, REMOVE, TRY, UNLOAD, Plan
from dtkpipe.tools import qemu, zboot

ENDED, EXITED, OVERTIME = "ended", "exited", "overtime"
"""How a boot stops: the guest did all it had to; the machine went off or restarted; time was up."""
_HEAD, _TAIL = 64 << 10, 192 << 10
_GRACE = 10
"""Seconds that a command may take beyond its limit, which the guest keeps by its own clock."""
_COMMAND_LINE = " ".join(
    (
        "rdinit=/init",
        # Level 0 would keep even a panic from the console: console_verbose().
        "quiet loglevel=1 panic=-1 log_buf_len=2M printk.devkmsg=on",
        # Hang detectors stay off: an emulated machine on a busy host looks stuck to them. We keep the time.
        "nowatchdog rcupdate.rcu_cpu_stall_suppress=1",
        # On a busy host timers come late, which a kernel that checks them takes for a broken machine.
        "no_timer_check",
        # A second less under emulation, and nothing that a module could notice.
        "mitigations=off cryptomgr.notests rcupdate.rcu_expedited=1 random.trust_cpu=on",
    )
)
ENFORCE = "module.sig_enforce=1"


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What came out of one boot."""

    report: Report
    mark: str
    """The line that begins what is judged of the log; it is gone when the log was too long to keep."""
    stopped: str
    console: str
    seconds: float
    accelerated: bool
    machine: str
    """QEMU's own complaints, if it had any."""


class HeadAndTail:
    """Keeps the beginning and the end of a stream, however long it is."""

    def __init__(self, head: int = _HEAD, tail: int = _TAIL) -> None:
        self._head, self._tail = bytearray(), bytearray()
        self._head_limit, self._tail_limit = head, tail
        self._left_out = 0

    def add(self, chunk: bytes) -> None:
        """Take the next bytes."""
        room = self._head_limit - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:] if room < len(chunk) else b""
        if len(self._tail) > 2 * self._tail_limit:
            self._cut()

    def _cut(self) -> None:
        extra = max(0, len(self._tail) - self._tail_limit)
        self._left_out += extra
        del self._tail[:extra]

    def text(self) -> str:
        """Return what was kept, and in its middle how much was not."""
        self._cut()
        gap = f"\n[... {self._left_out} bytes left out ...]\n".encode() if self._left_out else b""
        return bytes(self._head + gap + self._tail).decode(errors="replace")


def boot(
    plan: Plan,
    kernel: KernelFiles,
    work: Path,
    *,
    busybox: Path,
    time_limit: int,
    firmware: qemu.Firmware | None = None,
    enforce: bool = False,
    firmware_files: Mapping[str, Path] | None = None,
    image: Mapping[str, Path] | None = None,
) -> Boot:
    """Boot the kernel once and go through the plan. Raises ToolMissingError, UnsupportedError."""
    board = qemu.board(kernel.arch)
    nonce = new_nonce()
    archive = guest_files(plan, nonce, board.evidence, busybox, firmware_files or {}, image)
    initramfs = work / "guest.cpio"
    initramfs.write_bytes(archive)
    command_line = f"console={board.console} {_COMMAND_LINE}" + (f" {ENFORCE}" if enforce else "")
    machine = qemu.Machine(
        arch=kernel.arch,
        kernel=kernel.vmlinuz if firmware else zboot.unpacked(kernel.vmlinuz, work),
        initramfs=initramfs,
        command_line=command_line,
        memory=512 + 3 * (len(archive) >> 20),
        firmware=firmware,
        accelerated=qemu.accelerated(kernel.arch),
    )
    done = _run(machine, plan, nonce, work, time_limit)
    if machine.accelerated and not done.report.kernel:
        # Hardware that starts machines and then fails them: what counts is what the kernel does.
        done = _run(replace(machine, accelerated=False), plan, nonce, work, time_limit)
    initramfs.unlink()
    return done


def _run(machine: qemu.Machine, plan: Plan, nonce: str, work: Path, time_limit: int) -> Boot:
    listener, console = Listener(nonce), HeadAndTail()
    started = time.monotonic()
    clock = _Clock(plan, time_limit, started)
    stopped = OVERTIME
    with qemu.running(machine, work) as guest:
        for source, chunk in guest.listen(lambda: clock.deadline):
            if source == "console":
                console.add(chunk)
            elif listener.hear(chunk):
                clock.follow(listener.report)
                if listener.report.ended or _control_passed(plan, listener.report):
                    stopped = ENDED
                    break
        else:
            if time.monotonic() < clock.deadline:
                stopped = EXITED
    if guest.exit_code and not listener.report.kernel and not machine.accelerated:
        raise UnsupportedError(
            f"the virtual machine failed with exit code {guest.exit_code}", *guest.errors.splitlines()[-5:],
            hint="dtkpipe doctor --fix",
        )  # fmt: skip
    return Boot(
        report=listener.report,
        mark=mark_of(nonce),
        stopped=stopped,
        console=console.text().replace(nonce, "[nonce]"),
        seconds=time.monotonic() - started,
        accelerated=machine.accelerated,
        machine=guest.errors,
    )


def _control_passed(plan: Plan, report: Report) -> bool:
    return any(step.do == CONTROL and report.statuses.get(number) == 0 for number, step in enumerate(plan.steps))


class _Clock:
    """How long to wait for the guest's next word."""

    def __init__(self, plan: Plan, time_limit: int, started: float) -> None:
        self._plan, self._limit = plan, time_limit
        self._end = started + time_limit
        self._seen = -1
        self.deadline = self._end

    def follow(self, report: Report) -> None:
        """Take note of a step that was begun: its own time limit counts from now, within the boot's."""
        if report.begun in report.statuses or report.begun == self._seen or report.begun >= len(self._plan.steps):
            if report.begun in report.statuses:
                self.deadline = self._end
            return
        self._seen = report.begun
        step = self._plan.steps[report.begun]
        if step.do == CHECK:
            # Commands have limits of their own, which the boot's does not cut short.
            allowed = float(step.limit) + _GRACE
            self._end = max(self._end, time.monotonic() + allowed + self._limit / 4)
        elif step.do in (CONTROL, LOAD, NEED, REMOVE, TRY, UNLOAD):
            allowed = self._limit / 2
        else:
            return
        self.deadline = min(self._end, time.monotonic() + allowed)
