"""The worker nodes: machines in QEMU, each with a kernel that modules can be loaded into."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from dtkpipe.tools import qemu
from dtkpipe.values.arch import X86_64
from tests.e2e.cluster import layout
from tests.e2e.cluster.binaries import KUBERNETES
from tests.e2e.cluster.layout import Machine, Run
from tests.e2e.cluster.machine import Image
from tests.e2e.cluster.node import Place, pods_network
from tests.e2e.cluster.processes import Argv, Box

_MEMORY = "1536"  # MiB
_NODE = "/run/node"
"""Inside: what the disk of the node has, copied to where it can be written."""

# The first process. Under emulation everything counts: no init system, and nothing that nobody needs.
_INIT = """\
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export GOGC=400
. /e2e/environment
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
cp -r /e2e/node /run/node
rm -rf /var/lib/cni  # half written when power fails; then no pod of before can be removed
modprobe -a virtio_net overlay br_netfilter veth bridge xt_comment xt_MASQUERADE iptable_nat xt_conntrack
until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done
hostname "$NAME"
ip link set lo up; ip address add "$ADDRESS/24" dev eth0; ip link set eth0 up; ip route add default via "$GATEWAY"
sysctl -qw net.ipv4.ip_forward=1 vm.overcommit_memory=1 kernel.panic=10 kernel.panic_on_oops=1
# containerd does not wait until an image is on the disk: without power it would have empty files for good.
sysctl -qw vm.dirty_writeback_centisecs=20 vm.dirty_expire_centisecs=20
containerd --config /run/node/containerd.toml > /var/log/containerd.log 2>&1 &
while true; do  # a kubelet that finds no containerd ends
  until [ -S /run/containerd.sock ]; do sleep 0.1; done
  /e2e/kubelet --config=/run/node/kubelet.json --kubeconfig=/run/node/kubeconfig --hostname-override="$NAME" \\
    --node-ip="$ADDRESS" --housekeeping-interval=120s
  sleep 0.5
done > /dev/ttyS0 2>&1 &
while true; do sleep 60 & wait $!; done
"""


def prepare(run: Run, machine: Machine, image: Image) -> None:
    """Write the machine's two disks: one that starts as the image, and one that says which node it is."""
    folder = _folder(run, machine)
    tree = folder / "tree"
    (tree / "node").mkdir(parents=True)
    shutil.copyfile(KUBERNETES.program("kubelet"), tree / "kubelet")
    (tree / "init").write_text(_INIT)
    (tree / "environment").write_text(
        f"NAME={machine.name}\nADDRESS={machine.address}\nGATEWAY={layout.HOST}\n"
    )  # fmt: skip
    for program in ("kubelet", "init"):
        (tree / program).chmod(0o755)
    for name in ("ca.crt", f"{machine.name}.crt", f"{machine.name}.key"):
        shutil.copyfile(run.pki / name, tree / "node" / name)
    shutil.copyfile(run.folder / f"{machine.name}.kubeconfig", tree / "node/kubeconfig")
    place = Place(
        _NODE, machine.name, f"{_NODE}/cni", "/var/lib/containerd", "/run/containerd.sock",
        runtime="/usr/bin/crun",  # half of the time that runc needs there
        kubelet={
            # Emulated processors are slow: the pods of tasks (100m and more) find no room here, those of drivers do.
            "kubeReserved": {"cpu": "940m", "memory": "400Mi"},
            # What a node does of itself costs a tenth of this machine, with everything as it is usual a third.
            "nodeStatusUpdateFrequency": "10s", "evictionHard": {},
            "registerWithTaints": [{"key": "dtkpipe.io/emulated", "value": "true", "effect": "PreferNoSchedule"}],
        },
    )  # fmt: skip
    (tree / "node/containerd.toml").write_text(place.containerd_toml())
    (tree / "node/kubelet.json").write_text(place.kubelet_json())
    (tree / "node/cni").mkdir()
    network = pods_network(machine.pods, bridge="cni0", data="/run/ipam", routed=True)
    (tree / "node/cni/10-e2e.conflist").write_text(network)
    with (folder / "node.img").open("wb") as disk:
        disk.truncate(160 * 2**20)
    _run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", tree, folder / "node.img"])
    shutil.rmtree(tree)
    _run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.disk, folder / "disk.qcow2"])


def boot(box: Box, machine: Machine, image: Image, kernel: str = "") -> None:
    """Turn the machine on, with a kernel of the image; without one, with the kernel of its own flavour."""
    box.start(machine.name, argv(box.run, machine, image, kernel or image.kernels[machine.variant]))


def argv(run: Run, machine: Machine, image: Image, kernel: str) -> Argv:
    """What turns the machine on. KVM is used where it works."""
    folder = _folder(run, machine)
    # Without what only newer processors have, emulation takes a fifth less.
    accelerator, processor = ("kvm", "max") if qemu.accelerated(X86_64) else ("tcg,thread=multi", "qemu64")
    # No hang detectors: an emulated machine on a busy host looks stuck to them.
    line = (
        "root=/dev/vda rw console=ttyS0 quiet init=/sbin/e2e-init net.ifnames=0 mitigations=off"
        " nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
    )
    return [
        "qemu-system-x86_64", "-name", machine.name, "-machine", "q35", "-cpu", processor, "-accel", accelerator,
        "-smp", "1", "-m", _MEMORY, "-nographic", "-no-reboot", "-monitor", "none",
        "-kernel", image.kernel(kernel), "-initrd", image.initrd(kernel), "-append", line,
        "-drive", f"file={folder}/disk.qcow2,if=virtio,format=qcow2,cache=unsafe",
        "-drive", f"file={folder}/node.img,if=virtio,format=raw,readonly=on",
        "-netdev", f"tap,id=lan,ifname={machine.tap},script=no,downscript=no",
        "-device", f"virtio-net-pci,netdev=lan,mac={machine.mac}",
    ]  # fmt: skip


def _folder(run: Run, machine: Machine) -> Path:
    return run.folder / "machines" / machine.name


def _run(command: Argv) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env={**os.environ, "PATH": path})
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
