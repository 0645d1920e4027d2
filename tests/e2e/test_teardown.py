"""The cluster leaves nothing on the machine. These tests take it down, so they come last (see conftest.py)."""

from __future__ import annotations

import shutil
import signal

import pytest

from tests.e2e.cluster import bringup, layout, network, traces
from tests.e2e.cluster.processes import Box, Known
from tests.e2e.cluster.target import Cluster


@pytest.fixture(scope="module")
def taken_down(cluster: Cluster) -> dict[str, list[str]]:
    """What was seen of the cluster while it was up; it is down now."""
    assert cluster.own
    seen = traces.traces()
    bringup.down(print)
    return seen


def test_nothing_is_left_of_a_cluster(taken_down: dict[str, list[str]]) -> None:
    assert {"processes", "interfaces", "addresses", "routes", "cgroups"} <= set(taken_down), "there was nothing to see"
    assert traces.traces() == {}
    assert not layout.run().folder.exists()


def test_the_machines_settings_stay(taken_down: dict[str, list[str]]) -> None:
    box, before = Box(layout.run()), traces.settings()
    box.create()
    try:
        box.command(["tee", "/proc/sys/kernel/panic"], stdin="10")  # a file of ours there, for kubelet
        with pytest.raises(RuntimeError, match="Read-only"):
            box.command(["tee", "/proc/sys/kernel/threads-max"], stdin="9999")
        assert traces.settings() == before
    finally:
        bringup.down(print)


def test_a_cluster_whose_end_nobody_saw_is_cleaned_up(taken_down: dict[str, list[str]]) -> None:
    box = Box(layout.run())
    box.create()
    network.lay(box)
    box.start("sleeper", ["sleep", "600"])
    assert box.open
    Known.of(box.pid).signal(signal.SIGKILL)
    assert not box.open
    assert not bringup.is_up(box)
    bringup.down(print)
    assert traces.traces() == {}


def test_a_cluster_whose_folder_somebody_removed_is_cleaned_up(taken_down: dict[str, list[str]]) -> None:
    box = Box(layout.run())
    box.create()
    network.lay(box)
    holder = Known.of(box.pid)
    shutil.rmtree(box.run.folder, ignore_errors=True)
    bringup.down(print)
    assert not holder.alive
    assert traces.traces() == {}
