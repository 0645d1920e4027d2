"""Which kernels something is for: `>=5.14, <6.10`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from dtkpipe.errors import InvalidError
from dtkpipe.values.kernel import Kernel

_OPERATORS: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "": operator.eq,
}
_TERM = re.compile(r"(>=|<=|==|!=|=|>|<|)\s*(\d+(?:\.\d+)*(?:-\d+(?:\.\d+)*)?)")


def version_numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a kernel release: `5.14.0-427.13.1.el9` is (5, 14, 0, 427, 13, 1)."""
    found = re.match(r"\d+(?:[.-]\d+)*", text)
    return tuple(int(number) for number in re.findall(r"\d+", found[0])) if found else ()


@dataclass(frozen=True)
class KernelConstraint:
    """Terms that must all hold. A term compares only as many numbers as it names: `<=6.1` takes 6.1.90."""

    text: str = ""

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> KernelConstraint:
        """Parse terms separated by commas or spaces; no term takes every kernel. Raises InvalidError."""
        rest = re.sub(r"([<>=!])\s+", r"\1", text).replace(",", " ").split()
        for term in rest:
            if not _TERM.fullmatch(term):
                raise InvalidError(f"`{text}` says nothing about kernels", "expected, for example, `>=5.14, <6.10`")
        return cls(", ".join(rest))

    def holds(self, kernel: Kernel) -> bool:
        """Tell whether `kernel` satisfies every term."""
        have = version_numbers(kernel.release)
        for sign, wanted in _TERM.findall(self.text):
            bound = version_numbers(wanted)
            if not _OPERATORS[sign]((*have, 0, 0)[: len(bound)], bound):
                return False
        return True
