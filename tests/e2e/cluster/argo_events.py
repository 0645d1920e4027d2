"""What lets a push ring through Argo Events: its controller, and a NATS server. Only where a test asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable

from dtkpipe.clients.registry import Registry
from dtkpipe.tools.lock import locked
from dtkpipe.values.access import RegistryAccess
from tests.e2e.cluster import binaries, images, layout
from tests.e2e.cluster.access import Kubectl
from tests.e2e.cluster.binaries import ARGO_EVENTS, ARGO_EVENTS_VERSION
from tests.e2e.cluster.certificates import Authority
from tests.e2e.cluster.engines import on_node0, replaced
from tests.e2e.cluster.layout import Run
from tests.e2e.cluster.processes import Argv, Box
from tests.e2e.cluster.waiting import NotYet, until

_IMAGE = f"{layout.REGISTRY}/argo-events:{ARGO_EVENTS_VERSION}"
_IMAGES = ((r"quay\.io/argoproj/argo-events:\S+", _IMAGE),)
_NAMESPACE = "argo-events"
_PORT = 4222
_SUBSCRIBED = "started subscribing to events"
_STREAM = """\
maxMsgs: 50000
maxAge: 1h
maxBytes: -1
replicas: 1
duplicates: 300s
retention: 0
discard: 0
"""


def up(kubectl: Kubectl, say: Callable[[str], None]) -> None:
    """Bring both up unless they are."""
    box = Box(layout.run())
    with locked(box.run.folder / "argo-events.lock"):
        binaries.build(say, (ARGO_EVENTS,))
        if "nats" not in box.names() or not box.alive("nats"):
            box.start("nats", _nats(Run(box.run.folder / "argo-events")))
        registry = Registry(RegistryAccess(insecure=(layout.REGISTRY,)))
        program = images.program(f"argo-events:{ARGO_EVENTS_VERSION}", ARGO_EVENTS.program("argo-events"), "bin/")
        images.push(program, registry, layout.REGISTRY)
        apply = ("apply", "--server-side", "--force-conflicts", "-f", "-")
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}}
        kubectl(*apply, stdin=json.dumps(namespace))
        manifest = replaced((ARGO_EVENTS.yaml / "install.yaml").read_text(), _IMAGES)
        kubectl("-n", _NAMESPACE, *apply, stdin="---\n".join(on_node0(manifest)))
        kubectl("-n", _NAMESPACE, "rollout", "status", "deployment/controller-manager", "--timeout=300s")


def _nats(run: Run) -> Argv:
    """Argo Events speaks nothing but TLS, and takes any certificate."""
    Authority(run).issue("nats", "nats", alternatives=(layout.HOST,))
    return [
        ARGO_EVENTS.program("nats-server"), "--jetstream", "--store_dir", run.folder, "--addr", layout.HOST,
        "--port", str(_PORT), "--tls", "--tlscert", run.pki / "nats.crt", "--tlskey", run.pki / "nats.key",
    ]  # fmt: skip


def bus(kubectl: Kubectl, namespace: str) -> None:
    """Give a namespace its EventBus; returns when that is ready."""
    stream = {"url": f"nats://{layout.HOST}:{_PORT}", "streamConfig": _STREAM}
    made = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "EventBus", "metadata": {"name": "default"},
        "spec": {"jetstreamExotic": stream},
    }  # fmt: skip
    kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(made))
    kubectl("-n", namespace, "wait", "eventbus/default", "--for=condition=Deployed", "--timeout=60s")


def listens(kubectl: Kubectl, namespace: str, name: str) -> str:
    """Wait until the EventSource and the Sensor of a trigger work, and return the address of the first."""
    source, sensor = f"eventsource-name={name}", f"sensor-name={name}"
    for labels in (source, sensor):
        kubectl("-n", namespace, "wait", "--for=create", "deployment", "-l", labels, "--timeout=60s")
        kubectl("-n", namespace, "rollout", "status", "deployment", "-l", labels, "--timeout=180s")

    def subscribed() -> bool:
        said = kubectl("-n", namespace, "logs", "-l", sensor, "--tail=-1")
        if _SUBSCRIBED not in said:
            raise NotYet(said[-1000:])
        return True

    until(f"the Sensor of {name} listens", subscribed, 60)
    (pod, *_) = kubectl.json("-n", namespace, "get", "pods", "-l", source)["items"]
    return f"http://{pod['status']['podIP']}:12000"
