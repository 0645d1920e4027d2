"""What matrices cost: planning and reporting thousands of cells, running hundreds of tiny ones, proving real ones."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dtkpipe.values.arch import X86_64
from dtkpipe.values.key import KeyTag
from tests.bench.many_releases import Storage
from tests.fixtures.images import file, layer, pack
from tests.fixtures.matrix import Shelf, row, toolkit
from tests.fixtures.registry import LoopbackRegistry, running_registry
from tests.fixtures.tiny import journal, write_tiny

ROOT = Path(__file__).resolve().parents[2]
DTKPIPE = str(Path(sys.executable).with_name("dtkpipe"))
Measured = tuple[str, str, float, float, str]
"""What, unit, goal, measured, command."""


def measured(work: Path) -> Iterator[Measured]:
    """Measure plans of 2,000 and 20,000 cells, reports, and runs."""
    yield from _tiny(work / "tiny")
    yield from _real(work / "real")
    for modules, kernels, cold, warm in ((40, 50, 5.0, 1.0), (100, 200, 50.0, 10.0)):
        folder = work / str(modules * kernels)
        shelf = filled(folder, modules, kernels)
        with running_registry(folder / "registry") as registry:
            yield from _plans(shelf, registry, modules * kernels, cold, warm)
            if modules * kernels == 2000:
                yield from _report(shelf, registry)


def filled(folder: Path, modules: int, kernels: int) -> Shelf:
    """Write a lock of `kernels` releases with a kernel each, `modules` modules, and an image for each cell."""
    releases = {f"4.{16 + number // 25}.{number % 25}": f"5.14.0-{427 + number}.1.el9_4" for number in range(kernels)}
    shelf = Shelf.at(folder, [row(release, kernel) for release, kernel in releases.items()])
    storage = Storage(folder / "registry/storage")
    for number in range(modules):
        name = f"module-{number}"
        shelf.module(name)
        digest = storage.image(f"matrix/{name}", [pack(layer(file("a", name.encode())), "gzip")], {}, X86_64)
        commit = shelf.commit(name)
        for release, kernel in releases.items():
            key = shelf.key(name, f"{kernel}.x86_64", toolkit(release), commit=commit)
            for tag in (f"{kernel}.x86_64", f"{kernel}.x86_64-{key.commit}", str(KeyTag(key, "unsigned"))):
                storage.tag(f"matrix/{name}", tag, digest)
    return shelf


def command(shelf: Shelf, registry: LoopbackRegistry, *words: str) -> list[str]:
    """Return a command of the matrix."""
    return [
        DTKPIPE, "matrix", *words, "--modules", "modules/*", "--releases", "4.16..4.30", "--arch", "x86_64",
        "--lock", "lock", "--push-to", str(registry.repo("matrix")), "--insecure-registry", registry.host,
    ]  # fmt: skip


def _report(shelf: Shelf, registry: LoopbackRegistry) -> Iterator[Measured]:
    argv = command(shelf, registry, "report")
    environ = {**os.environ, "DTKPIPE_CACHE": str(shelf.root / "cache")}
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(argv, cwd=shelf.root, env=environ, capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    plan = min(_timed(command(shelf, registry, "plan", "-o", "json"), shelf.root, environ) for _ in range(3))
    yield "HTML report of 2,000 cells, over the plan", "s", 1.0, min(seconds) - plan, "dtkpipe matrix report"
    yield "of it size", "MB", 1.0, len(done.stdout) / 1e6, "dtkpipe matrix report"


def _timed(argv: list[str], folder: Path, environ: dict[str, str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{argv}: {done.stderr}")
    return time.perf_counter() - started


def _tiny(folder: Path, modules: int = 12, kernels: int = 25) -> Iterator[Measured]:
    """Run 300 cells that build nothing: what is left is what a cell costs besides its steps."""
    releases = {f"4.16.{number}": f"5.14.0-{427 + number}.1.el9_4" for number in range(kernels)}
    shelf = Shelf.at(folder, [row(release, kernel) for release, kernel in releases.items()])
    for number in range(modules):
        shelf.module(f"module-{number}")
    write_tiny(folder)
    environ = {**os.environ, "DTKPIPE_CACHE": str(folder / "cache"), "DTKPIPE_STATE": str(folder / "state")}
    with running_registry(folder / "registry") as registry:
        argv = command(shelf, registry, "submit", "--pipeline", "tiny.py", "--jobs", "4")
        seconds = _timed(argv, folder, environ)
        again = _timed(argv, folder, environ)
    if len(journal(folder)) != modules * kernels:
        sys.exit(f"{len(journal(folder))} of {modules * kernels} cells ran")
    yield f"{modules * kernels} cells that build nothing, for each", "s", 2.0, seconds / (modules * kernels), SUBMIT
    yield "the same again: 0 runs", "s", 5.0, again, SUBMIT


def _real(folder: Path, modules: int = 6) -> Iterator[Measured]:
    """Prove small modules on a kernel that is cached: built, and loaded by the kernel itself."""
    shelf = Shelf(folder)
    for number in range(modules):
        shelf.module(f"bench_{number}_{os.getpid()}")
    argv = [DTKPIPE, "matrix", "submit", "--modules", "modules/*", "--releases", "debian-12", "--variant", "cloud"]
    environ = {**os.environ, "DTKPIPE_STATE": str(folder / "state")}
    seconds = _timed(argv, folder, environ) / modules
    yield "a cell of a small module, built and proven: 400 per hour", "s", 9.0, seconds, SUBMIT


SUBMIT = "dtkpipe matrix submit"


def _plans(shelf: Shelf, registry: LoopbackRegistry, cells: int, cold: float, warm: float) -> Iterator[Measured]:
    argv = command(shelf, registry, "plan", "-o", "json")
    environ = {**os.environ, "DTKPIPE_CACHE": str(shelf.root / "cache")}
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(argv, cwd=shelf.root, env=environ, capture_output=True, text=True)
        seconds.append(time.perf_counter() - started)
        if done.returncode or done.stdout.count('"state": "current"') != cells:
            sys.exit(f"the plan of {cells} cells ended with {done.returncode}: {done.stderr}")
    yield f"plan {cells:,} cells, cold", "s", cold, seconds[0], "dtkpipe matrix plan"
    yield f"plan {cells:,} cells, warm", "s", warm, min(seconds[1:]), "dtkpipe matrix plan"
