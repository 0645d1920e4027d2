"""Repeats a step when a place that it needs does not answer: on every engine the same, and nothing else is repeated.

Tekton can only repeat a task after any failure, a compile error and a refusal included; so the step does it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from dtkpipe.errors import UnreachableError

RETRIES = "DTKPIPE_RETRIES"
"""Variable of the environment: how often a step may repeat itself. Not set: never, whoever started it decides."""
PAUSE = 10.0
"""Seconds before the first repetition; twice as long before each further one."""


def repeated(
    attempt: Callable[[int], Any], environ: Mapping[str, str], say: Callable[[str], None],
    wait: Callable[[float], None] = time.sleep,
) -> Any:  # fmt: skip
    """Return what `attempt(0)` gives, or `attempt(1)` when that ends with UnreachableError, and so on.

    Raises what the last attempt raises.
    """
    text = environ.get(RETRIES, "")
    retries = int(text) if text.isdecimal() else 0
    for number in range(retries):
        try:
            return attempt(number)
        except UnreachableError as error:
            pause = PAUSE * 2**number
            for line in (error.what, *error.details):
                say(line)
            say(f"not reachable: again in {pause:.0f} s ({number + 1} of {retries})")
            wait(pause)
    return attempt(retries)
