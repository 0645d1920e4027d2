"""How long it takes from an image in the registry to its module in the kernel of every node."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dtkpipe.app.nodes import label_nodes
from dtkpipe.resources import cache_dir
from dtkpipe.values.kernel import Kernel
from tests.e2e.bench.runs import registry_of
from tests.e2e.cluster.target import Cluster
from tests.fixtures.drivers import Drivers
from tests.fixtures.modules import SOURCES

_MODULE = "bench_rollout"


def measure(cluster: Cluster, namespace: str) -> float:
    """Seconds of `dtkpipe deploy` for every kernel of the cluster's workers at once, whole processes."""
    cluster.kubectl("label", "--overwrite", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged")
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "dtkpipe-driver")
    list(label_nodes(cluster.client))
    registry = registry_of(cluster)
    source = (SOURCES / "good.c").read_text()
    with tempfile.TemporaryDirectory() as work:
        drivers = Drivers(registry, cache_dir(os.environ), Path(work))
        kernels = sorted({Kernel.parse(node.kernel) for node in cluster.workers}, key=str)
        spec = {"name": "bench", "modules": [_MODULE]}
        images = [drivers.image(kernel, {_MODULE: drivers.module(kernel, _MODULE, source)}, spec) for kernel in kernels]
        started = time.perf_counter()
        commands = [
            [sys.executable, "-m", "dtkpipe", "deploy", str(image), "--kernel", str(kernel),
             "--target-namespace", namespace, "--insecure-registry", cluster.registry]
            for image, kernel in zip(images, kernels, strict=True)
        ]  # fmt: skip
        running = [subprocess.Popen(one, env={**os.environ, **cluster.environ}) for one in commands]
        codes = [one.wait() for one in running]
        took = time.perf_counter() - started
    cluster.kubectl("-n", namespace, "delete", "daemonsets", "--all", "--cascade=foreground", "--wait")
    assert codes == [0] * len(codes)
    return took
