"""`python -m tests.e2e TESTS... [-m MARKS] [FOR PYTEST]`: tests on a cluster, first those that run side by side.

Then, one by one, those that break what the others need: programs of the cluster, machines, the cluster itself. On few
processors those that load modules into emulated nodes come in between, by themselves: beside others such a node is ten
times as slow, and nothing on it is done in time.
"""

import argparse
import os
import subprocess
import sys

import pytest

from tests.e2e.cluster import bringup, layout, target
from tests.e2e.cluster.processes import Box

_ENOUGH = 4
"""Processors for everything at once."""
_SIDE_BY_SIDE = ("--dist", "loadfile", "-n")
_ALONE = ("breaks",)


def _phases(processors: int) -> tuple[tuple[str, ...], ...]:
    """The marks of each phase's tests, and pytest's arguments."""
    if processors >= _ENOUGH:
        return (("not breaks", *_SIDE_BY_SIDE, "3"), _ALONE)
    return (("not breaks and not nodes", *_SIDE_BY_SIDE, "2"), ("nodes and not breaks",), _ALONE)


def main(arguments: list[str]) -> int:
    """Return pytest's exit code: the first that is not 0. The cluster is left as it was found."""
    was_up = target.foreign() is not None or bringup.is_up(Box(layout.run()))
    try:
        if target.foreign() is None:
            bringup.up(print)  # once, before pytest takes the output
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("-m", dest="marks", default="")
        given, rest = parser.parse_known_args(arguments)
        phases = [
            ("-m", f"({marks}) and ({given.marks})" if given.marks else marks, *how, *rest)
            for marks, *how in _phases(os.cpu_count() or 1)
        ]
        codes = [_pytest(*phase) for phase in phases if _selects(*phase)]
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
