"""The guest: what is put into it, and what it tells. Its program is catalog/guest/init.

Only lines that begin with the run's nonce and carry the next number are heard; whatever else comes through the
channel was written by the modules or commands that are tried, and is counted, not read.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dtkpipe.proof.initramfs import Initramfs
from dtkpipe.proof.module import build_id
from dtkpipe.proof.plan import MARK, Plan, Step
from dtkpipe.resources import shipped

_LINE_LIMIT = 2 << 20
"""Bytes of one line: the log, at most 1 MiB, in base64."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What the kernel says of a loaded module. Empty strings where it says nothing."""

    state: str = ""
    size: int = 0
    srcversion: str = ""
    build_id: str = ""
    taint: str = ""


@dataclass
class Report:
    """What the guest has told so far."""

    kernel: str = ""
    """What `uname -r` prints there; empty until it is up."""
    lockdown: str = ""
    secure_boot: bool = False
    begun: int = -1
    """Number of the step that was begun last."""
    statuses: dict[int, int] = field(default_factory=dict)
    """Exit status of each step that has ended."""
    outputs: dict[int, str] = field(default_factory=dict)
    loaded: dict[str, Loaded] = field(default_factory=dict)
    log: str = ""
    taints: tuple[int, int] = (0, 0)
    """/proc/sys/kernel/tainted before and after."""
    wanted: tuple[str, ...] = ()
    """What the kernel itself asked modprobe for, in order: names of modules, or aliases."""
    ended: bool = False
    noise: int = 0
    """Lines in the channel that were not the guest's."""


class Listener:
    """Turns the bytes of the evidence channel into a report; what it keeps is bounded."""

    def __init__(self, nonce: str) -> None:
        self.report = Report()
        self._nonce, self._number = nonce, 0
        self._line = bytearray()
        self._too_long = False

    def hear(self, chunk: bytes) -> bool:
        """Take more bytes; tells whether the guest said something."""
        heard = False
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            if not self._too_long and len(self._line) + len(line) <= _LINE_LIMIT:
                heard |= self._take(bytes(self._line + line).rstrip(b"\r"))
            else:
                self.report.noise += 1
            self._line.clear()
            self._too_long = False
        if len(self._line) + len(rest) > _LINE_LIMIT:
            self._too_long = True
            self._line.clear()
        elif not self._too_long:
            self._line += rest
        return heard

    def _take(self, line: bytes) -> bool:
        words = line.decode(errors="replace").split(" ")
        if words[:2] != [self._nonce, str(self._number + 1)]:
            # A foreign line without an end may stand before ours.
            at = line.rfind(f"{self._nonce} {self._number + 1} ".encode())
            self.report.noise += 1
            return self._take(line[at:]) if at > 0 else False
        try:
            self._understand(words[2], words[3:])
        except (ValueError, IndexError):
            # It has our nonce, and is damaged: something wrote into the middle of it.
            self.report.noise += 1
        self._number += 1
        return True

    def _understand(self, word: str, rest: list[str]) -> None:
        report = self.report
        match word:
            case "ready":
                report.kernel, report.lockdown = rest[0], _text(rest[1]).strip()
                report.secure_boot = rest[2] != "0"
                report.taints = (int(rest[3]), int(rest[3]))
            case "begin":
                report.begun = int(rest[0])
            case "done":
                report.statuses[int(rest[0])] = int(rest[1])
                report.outputs[int(rest[0])] = _text(rest[2]).strip()
            case "loaded":
                report.loaded[rest[0]] = _loaded(rest[0], *(_bytes(word) for word in rest[1:5]))
            case "log":
                report.taints = (report.taints[0], int(rest[0]))
                report.log = _text(rest[1])
                report.wanted = tuple(dict.fromkeys(_text(rest[2]).splitlines()))
            case "end":
                report.ended = True


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(text[:40]) from error


def _text(text: str) -> str:
    return _bytes(text).decode(errors="replace")


def _loaded(name: str, modules: bytes, srcversion: bytes, notes: bytes, taint: bytes) -> Loaded:
    """Read the module's line of /proc/modules (name, size, users, who, state, address) and its files in /sys/module."""
    for line in modules.decode(errors="replace").splitlines():
        words = line.split()
        if len(words) >= 5 and words[0] == name:
            return Loaded(
                state=words[4], size=int(words[1]), srcversion=srcversion.decode(errors="replace").strip(),
                build_id=build_id(notes), taint=taint.decode(errors="replace").strip(),
            )  # fmt: skip
    return Loaded()


def new_nonce() -> str:
    """Return a word that nobody can guess."""
    return secrets.token_hex(16)


def guest_files(
    plan: Plan, nonce: str, port: str, busybox: Path, firmware: Mapping[str, Path], image: Mapping[str, Path] | None
) -> bytes:
    """Return the guest's initramfs. `image` are files for /image, by path; None when no command is run there."""
    root = Initramfs()
    for folder in ("dev", "proc", "sys", "tmp"):
        root.folder(folder)
    # Kernels that have no devtmpfs mounted yet want a console for the first program.
    root.device("dev/console", 5, 1)
    root.file("bin/busybox", busybox.read_bytes(), executable=True)
    root.link("bin/sh", "busybox")
    root.file("init", (shipped("catalog/guest") / "init").read_bytes(), executable=True)
    root.file("proof/modprobe", (shipped("catalog/guest") / "modprobe").read_bytes(), executable=True)
    root.file("proof/nonce", f"{nonce}\n")
    root.file("proof/port", f"{port}\n")
    for number, step in enumerate(plan.steps):
        _write(root, f"proof/steps/{number:03}", step, nonce)
    for number, (name, paths) in enumerate(plan.asked.items()):
        root.file(f"proof/asked/{number:03}/name", name)
        for place, path in enumerate(paths):
            root.file(f"proof/asked/{number:03}/files/{place:03}", path)
    for path, data in plan.files.items():
        root.file(path.lstrip("/"), data)
    for name, file in firmware.items():
        root.file(f"lib/firmware/{name}", file.read_bytes())
    if image is not None:
        root.folder("image")
        for path, file in image.items():
            root.file(f"image/{path}", file.read_bytes(), executable=bool(file.stat().st_mode & 0o100))
    return root.archive()


def mark_of(nonce: str) -> str:
    """Return the line that begins the log: unknown before it is written, and not the nonce."""
    import hashlib

    return "dtkpipe " + hashlib.sha256(nonce.encode()).hexdigest()[:24]


def _write(root: Initramfs, folder: str, step: Step, nonce: str) -> None:
    root.file(f"{folder}/do", f"{step.do}\n")
    for name in ("module", "file", "limit"):
        if text := getattr(step, name):
            root.file(f"{folder}/{name}", f"{text}\n")
    if step.do == MARK:
        root.file(f"{folder}/mark", f"{mark_of(nonce)}\n")
    for number, word in enumerate(step.args):
        root.file(f"{folder}/args/{number:03}", word)
