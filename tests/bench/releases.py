"""What it costs to resolve a release, and to refresh hundreds of them, against a registry on loopback."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dtkpipe.clients.registry import Registry
from dtkpipe.releases.images import CONTENT, RELEASES
from dtkpipe.values.access import RegistryAccess
from tests.bench.many_releases import fill
from tests.fixtures.faults import proxied
from tests.fixtures.openshift import OpenShift
from tests.fixtures.registry import running_registry

ROOT = Path(__file__).resolve().parents[2]
DTKPIPE = str(Path(sys.executable).with_name("dtkpipe"))
Measured = tuple[str, str, float, float, str]
"""What, unit, goal, measured, command."""
_FILLER = 64 * 2**20
# A small process in between: a child's peak begins with the memory of the one that it was forked from.
_MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""
_ENVIRON = {**os.environ, "REGISTRY_AUTH_FILE": os.devnull + ".none"}


def timed(argv: list[str]) -> tuple[float, str]:
    """Run a command; returns seconds and stdout."""
    started = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env=_ENVIRON)
    if done.returncode:
        sys.exit(f"{argv}: {done.stderr}")
    return time.perf_counter() - started, done.stdout


def measured(work: Path) -> Iterator[Measured]:
    """Measure everything about releases."""
    yield from _from_the_lock()
    yield from _one_release(work / "one")
    yield from _many_releases(work / "many")


def _from_the_lock() -> Iterator[Measured]:
    argv = [DTKPIPE, "resolve", "--release", "4.16.2", "--arch", "x86_64", "-o", "json"]
    pairs = [(timed(argv)[0], timed([DTKPIPE, "version", "-o", "json"])[0]) for _ in range(11)]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    yield "from the lock, over `dtkpipe version -o json`", "ms", 50, (ours - theirs) * 1000, "dtkpipe resolve"


def _one_release(work: Path) -> Iterator[Measured]:
    version, command = "4.16.99", "dtkpipe resolve --via payload"
    with running_registry(work) as registry, proxied(registry.host) as proxy:
        shift = OpenShift(registry.client, registry.host, registry.host, filler=_FILLER)
        shift.standard(version)
        site, recorded = work / "site.yaml", work / "recorded.yaml"
        site.write_text(shift.mirrors())
        recorded.write_text(OpenShift(registry.client, registry.host, proxy.host).mirrors())

        def argv(mirrors: Path, host: str) -> list[str]:
            where = ["--registry-mirrors", str(mirrors), "--insecure-registry", host, "--lock", str(work / "lock")]
            return [
                DTKPIPE,
                "resolve",
                "--release",
                version,
                "--arch",
                "x86_64",
                "--via",
                "payload",
                "-o",
                "json",
                *where,
            ]

        ours = statistics.median(timed(argv(site, registry.host))[0] for _ in range(7))
        yield "one release: digest, kernel, gate; whole process", "s", 0.4, ours, command
        answer = json.loads(timed(argv(recorded, proxy.host))[1])
        filler = sum(size for path, size in proxy.sent.items() if path.rpartition("/")[2] in shift.fillers)
        besides = sum(proxy.sent.values()) - max(proxy.sent.values())
        yield "of it requests", "", 8, len(proxy.requests), command
        yield "of it bytes besides the layer of manifests", "kB", 100, besides / 1000, command
        yield "of it filler of the toolkit", "bytes", 0, filler, command
        toolkit = f"docker://{registry.host}/{CONTENT.repository}@{answer['toolkit'].partition('@')[2]}"
        seconds = []
        for _ in range(3):
            shutil.rmtree(work / "pulled", ignore_errors=True)
            seconds.append(
                timed(["skopeo", "copy", "-q", "--src-tls-verify=false", toolkit, f"dir:{work / 'pulled'}"])[0]
            )
        pulled = sum(path.stat().st_size for path in (work / "pulled").iterdir())
        theirs = statistics.median(seconds)
        inspect = statistics.median(
            timed(["skopeo", "inspect", "--no-tags", "--tls-verify=false", toolkit])[0] for _ in range(3)
        )
        note = (
            f"its bytes against skopeo copy ({theirs:.2f} s, {pulled / 1e6:.0f} MB; inspect {inspect:.2f} s, no kernel)"
        )
        yield note, "%", 1, 100 * sum(proxy.sent.values()) / pulled, command


def _many_releases(work: Path, releases: int = 600) -> Iterator[Measured]:
    fill(work / "storage", releases)
    with running_registry(work) as registry:
        delay = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.delay", registry.host.partition(":")[2], "20"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert delay.stdin
        assert delay.stdout
        try:
            host = f"127.0.0.1:{delay.stdout.readline().strip()}"
            mirrors = work / "mirrors.yaml"
            mirrors.write_text(OpenShift(Registry(RegistryAccess()), host, host).mirrors())
            argv = [
                DTKPIPE, "catalog", "update", "--channel", "tags", "--release-repo", f"{host}/{RELEASES.repository}",
                "--lock", str(work / "lock"), "--insecure-registry", host, "--registry-mirrors", str(mirrors),
            ]  # fmt: skip
            memory = work / "memory"
            first, out = timed([sys.executable, "-c", _MEASURED, str(memory), *argv])
            if f"{4 * releases} added" not in out:
                sys.exit(f"the refresh said: {out}")
            delay.stdin.write("\n")
            delay.stdin.flush()
            peak = int(delay.stdout.readline().split()[1])
            again, _ = timed(argv)
        finally:
            delay.kill()
            delay.wait()
            delay.stdin.close()
            delay.stdout.close()
    name, command = f"{releases} releases x 4 architectures, 20 ms away", "dtkpipe catalog update"
    yield name, "s", 60, first, command
    yield "of it connections at once", "", 16, peak, command
    yield "of it memory", "MB", 150, int(memory.read_text()) / 1000, command
    yield "again, with nothing new", "s", 10, again, command
