"""The DaemonSet of a driver, and the acts of its loader: what they hold for what is asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.engines.dump import dump
from dtkpipe.errors import InvalidError
from dtkpipe.proof.module import KernelModule
from dtkpipe.steps.deploy.daemonset import Deployment, config_map, daemon_set, module_label, workload_name
from dtkpipe.steps.deploy.driver import Driver
from dtkpipe.steps.deploy.plan import build_id_sum, host_folder, plan
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.module import ModuleSpec
from dtkpipe.values.node import Toleration

GOLDEN = Path(__file__).parent / "test_deploy_daemonset.yaml"
K = Kernel.parse("5.14.0-427.13.1.el9_4.aarch64+64k")
WANTED = Deployment(
    module="simple_kmod",
    kernel=K,
    image=ImageRef.parse("quay.io/org/simple-kmod").at("sha256:" + "0" * 64),
    acts=(f"kernel {K}", "own /opt", "host /", "unload required", "firmware-folder /var/lib/firmware",
          "firmware a/b.bin", "load simple_kmod simple-kmod ABC -", "parameter name=$(HOME) $x"),
    loader="#!/bin/sh\n",
    label="feature.node.kubernetes.io/kernel-version.full",
    run="simple-kmod-4-16-1a2b3c4d",
    tolerations=(Toleration.parse("gpu=yes:NoSchedule"),),
    priority_class_name="system-node-critical",
    max_unavailable="10%",
    pull_secret="registry-pull",
    previous_image="quay.io/org/simple-kmod@sha256:" + "1" * 64,
)  # fmt: skip


def test_the_objects_of_a_driver() -> None:
    """`dump` writes both; when the change is meant, write the file again from this test's left side."""
    assert dump([config_map(WANTED, {"metadata": {"uid": "UID"}}), daemon_set(WANTED)]) == GOLDEN.read_text()


def test_names_are_of_module_and_kernel() -> None:
    assert workload_name("simple_kmod", K) != workload_name("simple_kmod", Kernel.parse("6.1.0-1-amd64"))
    assert workload_name("a_b", K) != workload_name("A-b", K)
    for name in ("simple_kmod", "A.B", "x" * 63, "0", "a-.-b"):
        made = workload_name(name, K)
        assert len(made) <= 63
        assert made.rpartition("-")[0].replace("-", "").isalnum()
        assert module_label(name)


def test_another_loader_is_another_config_map_and_another_image_another_revision() -> None:
    assert replace(WANTED, loader="x").config_map != WANTED.config_map
    revisions = {
        daemon_set(one)["spec"]["template"]["metadata"]["annotations"]["dtkpipe.io/revision"]
        for one in (
            WANTED,
            replace(WANTED, image=WANTED.image.at("sha256:" + "2" * 64)),
            replace(WANTED, acts=(*WANTED.acts, "x")),
        )
    }
    assert len(revisions) == 3
    # Another run with the same driver leaves the pods alone.
    assert daemon_set(WANTED)["spec"] == daemon_set(replace(WANTED, run="other", previous_image=""))["spec"]


def test_what_is_not_asked_for_is_not_there() -> None:
    plain = Deployment(module="m", kernel=K, image=WANTED.image, acts=("own /opt",), loader="", label="l")
    spec: dict[str, Any] = daemon_set(plain)["spec"]["template"]["spec"]
    assert not {"tolerations", "priorityClassName", "imagePullSecrets"} & set(spec)
    assert {one["name"] for one in spec["volumes"]} == {"loader", "run", "modules"}
    assert daemon_set(plain)["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert daemon_set(plain, strategy="OnDelete")["spec"]["updateStrategy"] == {"type": "OnDelete"}
    canary = daemon_set(replace(plain, only={"tier": "canary"}))
    assert canary["spec"]["template"]["spec"]["nodeSelector"] == {"l": K.tag, "tier": "canary"}


# What the loader is told.


def module(name: str, **more: Any) -> KernelModule:
    return KernelModule(
        **{"file": f"opt/lib/modules/k/updates/{name}.ko", "name": name, "machine": "", "imports": {}, "exports": {}}
        | more
    )


def driver(*modules: KernelModule, spec: dict[str, Any] | None = None, **more: Any) -> Driver:
    parsed = ModuleSpec.parse({"name": "m", **spec}) if spec is not None else None
    return Driver(Path(), {one.name: one for one in modules}, parsed, **more)


def test_acts_are_in_the_order_of_the_spec() -> None:
    a = module("a", srcversion="AAA", depends=("udp_tunnel",), softdeps=("crc32c", "b"))
    b = module("b", build_id="00ff", depends=("a",), file="opt/x/vendor-b.ko.xz")
    asked = {
        "modules": ["a", {"name": "b", "parameters": ["x=1 2", "y"]}],
        "inTreeModulesToRemove": ["old"],
        "unload": "never",
    }
    assert plan(driver(b, a, spec=asked), K) == (
        f"kernel {K}", "own /opt", "host /", "unload never", "remove old", "need udp_tunnel", "try crc32c",
        "load a a AAA -", f"load b vendor-b - {build_id_sum('00ff')}", "parameter x=1 2", "parameter y",
    )  # fmt: skip


def test_modules_that_nobody_listed_come_behind_what_they_need() -> None:
    found = driver(module("a", depends=("c",)), module("b"), module("c"), own="/", firmware=("x.bin",))
    loads = [act.split()[1] for act in plan(found, K, "/run/fw") if act.startswith("load ")]
    assert loads.index("c") < loads.index("a")
    assert "firmware-folder /run/fw" in plan(found, K, "/run/fw")
    # The node's own modules would hide those of an image that has them in /lib/modules.
    assert (host_folder(found), host_folder(driver())) == ("/host", "/")


def test_what_cannot_be_loaded() -> None:
    with pytest.raises(InvalidError, match=r"has no modules\.dep"):
        plan(driver(module("a"), indexed=False), K)
    with pytest.raises(InvalidError, match="has no module b for kernel"):
        plan(driver(module("a"), spec={"modules": ["a", "b"]}), K)
    with pytest.raises(InvalidError, match="depend on each other"):
        plan(driver(module("a", depends=("b",)), module("b", depends=("a",))), K)
    with pytest.raises(InvalidError, match="cannot be loaded"):
        plan(driver(module("a", file="opt/a b.ko")), K)


def test_a_build_ids_note_is_what_the_kernel_shows() -> None:
    import hashlib

    note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0" + bytes(range(20))
    assert build_id_sum(bytes(range(20)).hex()) == hashlib.sha256(note).hexdigest()
    assert build_id_sum("") == ""
