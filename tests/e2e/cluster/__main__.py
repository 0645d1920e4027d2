"""`python -m tests.e2e.cluster build|up|down|status`, as root: the test cluster for people."""

import argparse
import sys

from tests.e2e.cluster import binaries, bringup


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.cluster", description="The test cluster.")
    parser.add_argument("command", choices=("build", "up", "down", "status"))
    command = parser.parse_args().command
    if command == "build":
        bringup.make(print)
        # Not within the time of the tests that ask for them.
        binaries.build(print, (binaries.TRIGGERS, binaries.ARGO_EVENTS, binaries.PIPELINES_AS_CODE))
        return 0
    if command == "up":
        bringup.up(print)
    elif command == "down":
        bringup.down(print)
    for name, what in bringup.status():
        print(f"{name:16} {what}")
    return 0


sys.exit(main())
