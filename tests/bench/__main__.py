"""Prints what was promised and what was measured, as a table. Exit code 1 when a goal is missed.

Each number is the median of several runs on a warm cache; the two of a comparison are measured in turns, so that a busy
machine slows both. `make bench`, or `python -m tests.bench WORD...` for the rows that contain one of the words.
"""

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dtkpipe.values.run import RunCard
from tests.bench import boots, matrix
from tests.bench.images import over_modules
from tests.bench.releases import measured
from tests.bench.row import Row, table

ROOT = Path(__file__).resolve().parents[2]
DTKPIPE = str(Path(sys.executable).with_name("dtkpipe"))
SUBMIT = [
    DTKPIPE,
    "submit",
    "--engine",
    "local",
    "--release",
    "debian-12",
    "--variant",
    "cloud",
    "-o",
    "json",
    "--repo",
]
BASELINE = """
import typer
app = typer.Typer()
@app.command()
def one(): "One"
@app.command()
def two(): "Two"
app()
"""


def seconds(argv: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - started


def median(measure: Callable[[], float], times: int) -> float:
    return statistics.median(measure() for _ in range(times))


def start_up(work: Path) -> Iterator[Row]:
    app = work / "two.py"
    app.write_text(BASELINE)
    for word in ("--help", "version"):
        pairs = [(seconds([DTKPIPE, word]), seconds([sys.executable, str(app), "--help"])) for _ in range(11)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        yield Row(f"start-up against a Typer app ({theirs * 1000:.0f} ms)", "x", 1.3, ours / theirs, f"dtkpipe {word}")


def compiling(_work: Path) -> Iterator[Row]:
    for engine, goal in (("tekton", 0.3), ("argo", 1.0)):
        argv = [DTKPIPE, "compile", "--engine", engine]
        yield Row("compile one pipeline", "s", goal, median(lambda argv=argv: seconds(argv), 7), shown(argv))


def rendering(_work: Path) -> Iterator[Row]:
    for engine in ("tekton", "argo"):
        for count, goal in ((1000, 2.0), (10_000, 20.0)):
            argv = [sys.executable, "-m", "tests.bench.rendering", engine, str(count)]
            measured = float(subprocess.run(argv, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
            yield Row(f"render {count:,} pipelines", "s", goal, measured, shown(argv))


def local_runs(work: Path) -> Iterator[Row]:
    """A small module from source to published; every run is of a source that was never built before."""
    key, cert = work / "key.pem", work / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench",
         "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    module = work / "hello"
    shutil.copytree(ROOT / "catalog" / "samples" / "hello", module)
    submit(module)  # makes what is cached from now on
    signing = ["--sign-key", str(key), "--sign-cert", str(cert)]
    card = RunCard(name="", engine="", pipeline="")
    for kind, goal, verify_goal, more in (("unsigned", 15, 4, []), ("signed, Secure Boot", 20, 8, signing)):
        took, verify = [], []
        for _ in range(3):
            with (module / "hello.c").open("a") as source:
                source.write(f"/* {time.time_ns()} */\n")
            started = time.perf_counter()
            card = submit(module, *more)
            took.append(time.perf_counter() - started)
            verify.append(next(step.seconds for step in card.steps if step.name == "verify"))
        command = f"dtkpipe submit ... {'--sign-key ... --sign-cert ...' if more else ''}".strip()
        yield Row(f"local run, {kind}", "s", goal, statistics.median(took), command)
        yield Row(f"of it verify, {kind}", "s", verify_goal, statistics.median(verify), command)
        again = median(lambda more=more: seconds([*SUBMIT, str(module), *more]), 3)
        yield Row(f"second run, {kind}", "s", 2, again, command)
    yield Row("image over the module's own files", "MiB", 5, over_modules(card) / 2**20, "dtkpipe registry")


def submit(module: Path, *more: str) -> RunCard:
    done = subprocess.run([*SUBMIT, str(module), *more], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{shown([*SUBMIT, str(module), *more])} ended with exit code {done.returncode}\n{done.stderr}")
    return RunCard.from_json(json.dumps(json.loads(done.stdout)))


def releases(work: Path) -> Iterator[Row]:
    yield from (Row(*one) for one in measured(work))


def matrices(work: Path) -> Iterator[Row]:
    yield from (Row(*one) for one in matrix.measured(work))


def booting(work: Path) -> Iterator[Row]:
    yield from (Row(*one) for one in boots.measured(work))


def demo(_work: Path) -> Iterator[Row]:
    yield Row("make demo, again", "s", 30, seconds(["make", "demo"]), "make demo")


def shown(argv: Sequence[str]) -> str:
    return shlex.join([Path(argv[0]).name, *argv[1:]])


GROUPS = (start_up, compiling, rendering, releases, matrices, booting, local_runs, demo)


def main(words: Sequence[str]) -> int:
    """Measure, print, and return the exit code."""
    chosen = [group for group in GROUPS if not words or any(word in group.__name__ for word in words)]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dtkpipe-bench-") as work:
        for group in chosen:
            print(f"measuring: {group.__name__.replace('_', ' ')}", file=sys.stderr, flush=True)
            rows += group(Path(work))
    print(table(rows))
    print(f"\n{os.cpu_count()} cores. A fresh machine: `time make demo` in an empty container (goal: 6 min).")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
