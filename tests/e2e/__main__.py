"""`python -m tests.e2e TESTS... [PYTEST'S ARGUMENTS]`: the tests on a cluster, first those that run side by side.

Then, one by one, those that break what the others need: programs of the cluster, machines, the cluster itself.
"""

import os
import subprocess
import sys

import pytest

from tests.e2e.cluster import bringup, layout, target
from tests.e2e.cluster.processes import Box

_TOGETHER = ("-n", str(min(3, max(2, os.cpu_count() or 0))), "--dist", "loadfile", "-m", "not breaks")
_ALONE = ("-m", "breaks")


def main(arguments: list[str]) -> int:
    """Return pytest's exit code: the first that is not 0. The cluster is left as it was found."""
    was_up = target.foreign() is not None or bringup.is_up(Box(layout.run()))
    try:
        if target.foreign() is None:
            bringup.up(print)  # once, before pytest takes the output
        codes = [_pytest(*phase, *arguments) for phase in (_TOGETHER, _ALONE) if _selects(*phase, *arguments)]
    finally:
        if not was_up:
            bringup.down(print)
    return next((code for code in codes if code), 0) if codes else pytest.ExitCode.NO_TESTS_COLLECTED


def _pytest(*arguments: str, output: int | None = None) -> int:
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout", "1800", *arguments]
    return subprocess.run(argv, stdout=output).returncode


def _selects(*arguments: str) -> bool:
    """Whether there are tests to run; an error is shown by the run itself."""
    code = _pytest(*arguments, "--collect-only", "-n", "0", output=subprocess.DEVNULL)
    return code != pytest.ExitCode.NO_TESTS_COLLECTED


if __name__ == "__main__":
    if not any(word.startswith("tests/e2e") for word in sys.argv[1:]):
        sys.exit("python -m tests.e2e: which tests? for all: tests/e2e")
    sys.exit(main(sys.argv[1:]))
