"""Waiting for a condition: the one place with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL = 0.1
"""Seconds between two looks."""


class NotYet(Exception):  # noqa: N818
    """What a probe raises, or ends with, as long as its condition does not hold; the text is shown at the deadline."""


def until(what: str, probe: Callable[[], T], seconds: float = 60) -> T:
    """Look again and again until `probe` returns something true, and return that.

    `probe` may raise NotYet. Raises TimeoutError after `seconds`, with what was seen last.
    """
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            if found := probe():
                return found
            last = found
        except NotYet as error:
            last = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s; last seen: {last}")
        time.sleep(POLL)
