"""How many kernels boot: nothing but the boot, with a guest that says who it is and ends."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dtkpipe.proof.boot import boot
from dtkpipe.proof.kernel import KernelFiles
from dtkpipe.proof.plan import MARK, Plan, Step
from dtkpipe.resources import cache_dir
from dtkpipe.tools.busybox import static_busybox
from dtkpipe.values.arch import X86_64

PLAN = Plan(steps=(Step(do=MARK),), files={}, order=(), in_tree=(), notes=())


def cloud_kernel(cache: Path) -> KernelFiles:
    """The cloud kernel of Debian 12 that the cells before have left in the cache."""
    found = sorted((cache / "kernels").glob("*/6.1.*-cloud-amd64"))
    if not found:
        sys.exit("no kernel is cached: run `make demo` first")
    return KernelFiles.load(found[-1])


def measured(_work: Path, count: int = 12, at_once: int = 2) -> Iterator[tuple[str, str, float, float, str]]:
    """Boot it `count` times, `at_once` machines at a time, as `matrix submit` does."""
    cache = cache_dir(os.environ)
    kernel, busybox = cloud_kernel(cache), static_busybox(X86_64, cache)

    def once(_number: int) -> None:
        with tempfile.TemporaryDirectory(prefix="dtkpipe-bench-") as work:
            done = boot(PLAN, kernel, Path(work), busybox=busybox, time_limit=120)
        if done.report.kernel != kernel.kernel.release or not done.report.ended:
            sys.exit(f"the kernel did not boot: {done.stopped}\n{done.console[-2000:]}")

    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(once, range(count)))
    took = (time.perf_counter() - started) / count
    yield "a boot alone, two at a time: 1,000 per hour", "s", 3.6, took, "qemu-system-x86_64"
