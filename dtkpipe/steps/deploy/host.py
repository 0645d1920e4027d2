"""Part of deploy: loading a driver into the kernel of this machine."""

from __future__ import annotations

from dtkpipe.errors import RunFailedError, UnsupportedError
from dtkpipe.steps.contract import Room
from dtkpipe.steps.deploy.driver import Driver


def load(driver: Driver, room: Room) -> None:
    """Load the driver's modules into this machine's kernel, with what they depend on. Raises RunFailedError."""
    if driver.spec and driver.spec.firmware:
        raise UnsupportedError(
            "loading a module with firmware on this machine is not in this version",
            f"firmware: {', '.join(driver.spec.firmware)}",
        )
    for name in driver.spec.in_tree_modules_to_remove if driver.spec else ():
        _modprobe(room, "--remove", name)
    in_tree = {needed for module in driver.modules.values() for needed in module.depends} - set(driver.modules)
    for name in sorted(in_tree):
        _modprobe(room, name)
    parameters = {module.name: module.parameters for module in driver.spec.modules} if driver.spec else {}
    for name in [*parameters, *(one for one in driver.modules if one not in parameters)]:
        _modprobe(room, "--dirname", str(driver.folder), name, *parameters.get(name, ()))
        room.say(f"loaded {name}")


def _modprobe(room: Room, *words: str) -> None:
    from dtkpipe.tools.process import run as run_program

    done = run_program(["modprobe", *words], cwd=room.work, timeout=120, ok=None)
    if done.returncode:
        lines = [line.removeprefix("modprobe: ") for line in done.errors.splitlines() if line.strip()]
        raise RunFailedError(f"`modprobe {' '.join(words)}` failed on this machine", *lines[-5:])
