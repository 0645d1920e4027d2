"""What lets a push ring: Tekton Triggers, and Argo's server. Only where a test asks for it, in a cluster that is up."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator

import yaml

from dtkpipe.clients.registry import Registry
from dtkpipe.tools.lock import locked
from dtkpipe.values.access import RegistryAccess
from tests.e2e.cluster import binaries, images, layout
from tests.e2e.cluster.access import Kubectl
from tests.e2e.cluster.binaries import TRIGGERS, TRIGGERS_VERSION
from tests.e2e.cluster.certificates import Authority
from tests.e2e.cluster.control_plane import argo_server, wait_ready
from tests.e2e.cluster.engines import on_node0, replaced
from tests.e2e.cluster.layout import Run
from tests.e2e.cluster.processes import Box
from tests.e2e.cluster.waiting import NotYet, until

_PROGRAMS = "|".join(TRIGGERS.programs)
_IMAGES = (
    (rf"ko://github.com/tektoncd/triggers/cmd/({_PROGRAMS})\b", rf"{layout.REGISTRY}/triggers-\1:{TRIGGERS_VERSION}"),
    (r'"devel"', f'"{TRIGGERS_VERSION}"'),
)
_NAMESPACE = "tekton-pipelines"
_INTERCEPTORS = "tekton-triggers-core-interceptors"
_DEPLOYMENTS = ("controller", "webhook", "core-interceptors")
_INTERCEPTOR = "\nkind: ClusterInterceptor\n"
"""Of a type that the other manifests make."""
_LISTENER = """\
apiVersion: triggers.tekton.dev/v1beta1
kind: EventListener
metadata: {name: answers, namespace: default}
spec: {serviceAccountName: default, labelSelector: {matchLabels: {none: none}}}
"""


def up(kubectl: Kubectl, say: Callable[[str], None]) -> None:
    """Bring both up unless they are."""
    box = Box(layout.run())
    with locked(layout.run().folder / "triggers.lock"):
        if "argo-server" not in box.names() or not box.alive("argo-server"):
            box.start("argo-server", *argo_server(box.run))
        _tekton(kubectl, say)
        wait_ready(box, "argo-server")


def _tekton(kubectl: Kubectl, say: Callable[[str], None]) -> None:
    """Install Tekton Triggers in pods of node0; returns when its webhook answers."""
    binaries.build(say, (TRIGGERS,))
    registry = Registry(RegistryAccess(insecure=(layout.REGISTRY,)))
    for name in TRIGGERS.programs:
        images.push(
            images.program(f"triggers-{name}:{TRIGGERS_VERSION}", TRIGGERS.program(name), "ko-app/"), registry,
            layout.REGISTRY,
        )  # fmt: skip
    apply = ("apply", "--server-side", "--force-conflicts", "-f", "-")
    kubectl(*apply, stdin="---\n".join(one for one in _manifests() if _INTERCEPTOR not in one))
    kubectl("wait", "--for=condition=Established", "crd/clusterinterceptors.triggers.tekton.dev", "--timeout=60s")
    service = kubectl.json("-n", _NAMESPACE, "get", "service", _INTERCEPTORS)
    address = str(service["spec"]["clusterIP"])
    secret, fresh = _certificate(address)
    kubectl(*apply, stdin=json.dumps(secret))
    kubectl(*apply, stdin="---\n".join(_by_address(one, address) for one in _manifests() if _INTERCEPTOR in one))
    if fresh:
        kubectl("-n", _NAMESPACE, "rollout", "restart", f"deployment/{_INTERCEPTORS}")
    for name in _DEPLOYMENTS:
        kubectl("-n", _NAMESPACE, "rollout", "status", f"deployment/tekton-triggers-{name}", "--timeout=300s")

    def webhook() -> bool:
        try:
            kubectl("apply", "--dry-run=server", "-f", "-", stdin=_LISTENER)
        except RuntimeError as error:
            raise NotYet(str(error)) from error
        return True

    until("the webhook of Tekton Triggers answers", webhook, 180)


def listens(kubectl: Kubectl, namespace: str, listener: str) -> str:
    """Wait until an EventListener does, and return the address of its pod."""
    deployment = f"deployment/el-{listener}"
    kubectl("-n", namespace, "wait", "--for=create", deployment, "--timeout=60s")
    kubectl("-n", namespace, "rollout", "status", deployment, "--timeout=180s")
    (pod, *_) = kubectl.json("-n", namespace, "get", "pods", "-l", f"eventlistener={listener}")["items"]
    return f"http://{pod['status']['podIP']}:8080"


def _certificate(address: str) -> tuple[dict[str, object], bool]:
    """The Secret with the certificate of the interceptors, for their address; and whether it is a new one.

    This cluster has no DNS, and the certificate that they would make for themselves is for a name.
    """
    run = Run(layout.run().folder / "triggers")
    fresh = not (run.pki / "interceptors.crt").exists()
    if fresh:
        names = (address, f"{_INTERCEPTORS}.{_NAMESPACE}.svc")
        Authority(run).issue("interceptors", _INTERCEPTORS, alternatives=names)
    files = {"server-key.pem": "interceptors.key", "server-cert.pem": "interceptors.crt", "ca-cert.pem": "ca.crt"}
    data = {key: base64.b64encode((run.pki / file).read_bytes()).decode() for key, file in files.items()}
    metadata = {"name": f"{_INTERCEPTORS}-certs", "namespace": _NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}, fresh


def _by_address(manifest: str, address: str) -> str:
    """A ClusterInterceptor that is found without DNS."""
    found = yaml.safe_load(manifest)
    authority = (Run(layout.run().folder / "triggers").pki / "ca.crt").read_bytes()
    found["spec"]["clientConfig"] = {
        "url": f"https://{address}:8443/{found['metadata']['name']}", "caBundle": base64.b64encode(authority).decode(),
    }  # fmt: skip
    return yaml.safe_dump(found)


def _manifests() -> Iterator[str]:
    for path in sorted(TRIGGERS.yaml.rglob("*.yaml")):
        yield from on_node0(replaced(path.read_text(), _IMAGES))
