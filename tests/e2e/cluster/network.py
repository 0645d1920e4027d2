"""The cluster's network: a bridge inside, and one cable to this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.cluster import layout
from tests.e2e.cluster.processes import Box


def lay(box: Box) -> None:
    """Make bridge, cable and routes."""
    _ip("link", "add", layout.BRIDGE, "type", "veth", "peer", "name", "outside", "netns", str(box.pid))
    _ip("address", "add", f"{layout.OUTSIDE}/24", "dev", layout.BRIDGE)
    _ip("link", "set", layout.BRIDGE, "up")
    for network in (layout.NETWORK, layout.SERVICES):  # pods and Services, from here
        _ip("route", "add", network, "via", layout.HOST, "dev", layout.BRIDGE)
    commands = [
        "link set lo up",
        f"link add {layout.BRIDGE} address {layout.BRIDGE_MAC} type bridge",
        f"address add {layout.HOST}/24 dev {layout.BRIDGE}",
        f"link set {layout.BRIDGE} up",
        f"link set outside master {layout.BRIDGE} up",
        f"route add default via {layout.OUTSIDE}",
    ]
    for one in layout.MACHINES:
        commands.append(f"tuntap add dev {one.tap} mode tap")
        commands.append(f"link set {one.tap} master {layout.BRIDGE} up")
        commands.append(f"route add {one.pods} via {one.address}")
    box.command(["ip", "-batch", "-"], stdin="\n".join(commands))
    box.command(["sysctl", "-qw", "net.ipv4.ip_forward=1"])


def cut() -> None:
    """Remove the cable, if it is there; what hangs on it goes with it."""
    if Path(f"/sys/class/net/{layout.BRIDGE}").exists():
        _ip("link", "delete", layout.BRIDGE)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
