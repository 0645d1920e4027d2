"""Judging the kernel's log: which lines are signs of a defect. The log is what `dmesg -r` or /dev/kmsg gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_RECORD = re.compile(r"(?P<priority>\d+),\d+,\d+,[^;]*;(?P<text>.*)")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")
_LINE = re.compile(r"<(?P<priority>\d+)>(?:\[[^\]]*\]\s?)?(?P<text>.*)")
ERROR = 3
"""Levels up to this one are errors: KERN_ERR and worse."""

# What the kernel itself writes when something is wrong, at the beginning of a message. A driver's own messages begin
# with the driver's name. Sources: lib/bug.c, kernel/panic.c, arch/*/kernel/traps.c, mm/kasan, lib/ubsan.c, lockdep.c.
_DEFECT = re.compile(
    r"(?:\S+: )?BUG: |kernel BUG at |WARNING: (?:CPU: |at |possible |inconsistent |bad |suspicious |held )"
    r"|Oops\b|Internal error: |general protection fault|Unable to handle kernel|Kernel panic"
    r"|(?:traps: )?(?:divide error|invalid opcode|stack segment|double fault): "
    r"|Call [Tt]race:|UBSAN: |KCSAN: |KFENCE: |refcount_t: |list_(?:add|del) corruption|kobject_add_internal failed"
    r"|sysfs: cannot create duplicate filename|DMA-API: .*(?:device driver|error)|usercopy: Kernel memory"
    r"|INFO: (?:task .* blocked for more|possible recursive locking|trying to register non-static key)"
    r"|stack-protector: |INFO: .*rcu.* detected|kmem_cache_destroy .*: Slab cache still has objects"
)
_TAINTS = {5: "bad page", 7: "oops or BUG", 9: "WARNING", 14: "soft lockup"}
"""Bits of /proc/sys/kernel/tainted that are signs of a defect (Documentation/admin-guide/tainted-kernels.rst)."""


@dataclass(frozen=True)
class Message:
    """One line of the log: its level (0 emergency to 7 debug), whether the kernel wrote it, and its text."""

    level: int
    by_kernel: bool
    text: str


def parse(log: str) -> Iterator[Message]:
    """Read lines of `dmesg -r`; what has no priority is the rest of a message before."""
    level, by_kernel = 7, True
    for line in log.splitlines():
        if found := _LINE.fullmatch(line):
            priority = int(found["priority"])
            level, by_kernel = priority & 7, priority >> 3 == 0
            yield Message(level, by_kernel, found["text"])
        else:
            yield Message(level, by_kernel, line)


def parse_kmsg(log: str) -> Iterator[Message]:
    """Read what /dev/kmsg gives (Documentation/ABI/testing/dev-kmsg); lines that begin with a blank are its tags."""
    for line in log.splitlines():
        if found := _RECORD.fullmatch(line):
            priority = int(found["priority"])
            text = _ESCAPE.sub(lambda code: chr(int(code[1], 16)), found["text"])
            yield from (Message(priority & 7, priority >> 3 == 0, part) for part in text.splitlines() or [""])


def defects(messages: Iterable[Message]) -> list[str]:
    """Return the lines that are signs of a defect, each with a few lines after it for the eye."""
    found, left = list[str](), 0
    for message in messages:
        if message.by_kernel and _DEFECT.match(message.text):
            left = 12
        if left:
            left -= 1
            found.append(message.text)
    return found


def errors(messages: Iterable[Message]) -> list[str]:
    """Return the lines of level error and worse."""
    return [message.text for message in messages if message.level <= ERROR]


def new_taints(before: int, after: int) -> list[str]:
    """Say what became true of the kernel that is a sign of a defect."""
    return [what for bit, what in _TAINTS.items() if after >> bit & 1 and not before >> bit & 1]


def console_defect(console: str) -> list[str]:
    """Return the oops or BUG that the console shows, or nothing. Anybody in the guest can write there."""
    return _from_first(console, _DEFECT)


def console_panic(console: str) -> list[str]:
    """Return the panic that the console shows, or nothing. Anybody in the guest can write there."""
    return _from_first(console, re.compile("Kernel panic - not syncing"))


def _from_first(console: str, pattern: re.Pattern[str]) -> list[str]:
    lines = [re.sub(r"^\[[^\]]*\] ?", "", line.rstrip("\r")) for line in console.splitlines()]
    first = next((number for number, line in enumerate(lines) if pattern.match(line)), None)
    return [] if first is None else [line for line in lines[first : first + 12] if line]
