"""The programs of node0: what they are called with, in the order in which they can be started."""

from __future__ import annotations

import json
import ssl

import urllib3

from tests.e2e.cluster import layout
from tests.e2e.cluster.binaries import ARGO, ARGO_VERSION, KUBERNETES
from tests.e2e.cluster.layout import Run
from tests.e2e.cluster.node import Place, pods_network
from tests.e2e.cluster.processes import Argv, Box
from tests.e2e.cluster.waiting import NotYet, until

_ETCD = "http://127.0.0.1:2379"
_PEER = "http://127.0.0.1:2380"


def etcd(run: Run) -> Argv:
    return [
        KUBERNETES.program("etcd"), "--data-dir", run.folder / "etcd", "--unsafe-no-fsync",
        "--listen-client-urls", _ETCD, "--advertise-client-urls", _ETCD, "--listen-peer-urls", _PEER,
        "--initial-advertise-peer-urls", _PEER, "--initial-cluster", f"default={_PEER}",
    ]  # fmt: skip


def apiserver(run: Run) -> Argv:
    pki = run.pki
    options = {
        "etcd-servers": _ETCD,
        "advertise-address": layout.HOST,
        "secure-port": "6443",
        "service-cluster-ip-range": layout.SERVICES,
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "client-ca-file": pki / "ca.crt",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": pki / "accounts.pub",
        "service-account-signing-key-file": pki / "accounts.key",
        "kubelet-client-certificate": pki / "kubelet-client.crt",
        "kubelet-client-key": pki / "kubelet-client.key",
        "kubelet-certificate-authority": pki / "ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
    }
    return [KUBERNETES.program("kube-apiserver"), *(f"--{name}={value}" for name, value in options.items())]


def controllers(run: Run) -> Argv:
    return [
        KUBERNETES.program("kube-controller-manager"), f"--kubeconfig={run.folder}/controllers.kubeconfig",
        "--leader-elect=false", f"--service-account-private-key-file={run.pki}/accounts.key",
        f"--root-ca-file={run.pki}/ca.crt", "--use-service-account-credentials=true",
        "--node-monitor-grace-period=40s", "--node-monitor-period=2s",
    ]  # fmt: skip


def scheduler(run: Run) -> Argv:
    return [
        KUBERNETES.program("kube-scheduler"), f"--kubeconfig={run.folder}/scheduler.kubeconfig",
        "--leader-elect=false",
    ]  # fmt: skip


def proxy(run: Run) -> Argv:
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{run.folder}/proxy.kubeconfig"},
        "mode": "iptables",
        "clusterCIDR": layout.NETWORK,
        "conntrack": {"maxPerCore": 0},
        "hostnameOverride": layout.NODE,
    }
    file = run.folder / "proxy.json"
    file.write_text(json.dumps(configuration))
    return [KUBERNETES.program("kube-proxy"), f"--config={file}"]


def _place(run: Run) -> Place:
    return Place(
        str(run.pki), layout.NODE, f"{run.folder}/cni", f"{run.folder}/containerd", str(run.containerd),
        restricted=True, kubelet={"cgroupRoot": f"/{layout.CGROUP}"},
    )  # fmt: skip


def containerd(run: Run) -> Argv:
    network = pods_network("10.245.0.0/24", bridge=layout.BRIDGE, first="10.245.0.50", data=f"{run.folder}/ipam")
    (run.folder / "cni").mkdir(exist_ok=True)
    (run.folder / "cni/10-e2e.conflist").write_text(network)
    file = run.folder / "containerd.toml"
    file.write_text(_place(run).containerd_toml())
    return ["containerd", "--config", file]


def kubelet(run: Run) -> Argv:
    file = run.folder / "kubelet.json"
    file.write_text(_place(run).kubelet_json())
    return [
        KUBERNETES.program("kubelet"), f"--config={file}", f"--kubeconfig={run.folder}/{layout.NODE}.kubeconfig",
        f"--hostname-override={layout.NODE}", f"--node-ip={layout.HOST}", f"--root-dir={run.folder}/kubelet",
    ]  # fmt: skip


def registry(run: Run) -> Argv:
    file = run.folder / "registry.yml"
    file.write_text(f"""\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {run.registry}}}, delete: {{enabled: true}}}}
http: {{addr: "{layout.REGISTRY}"}}
""")
    return ["docker-registry", "serve", file]


def argo_controller(run: Run) -> Argv:
    return [
        ARGO.program("workflow-controller"), "--kubeconfig", run.kubeconfig, "--namespace", "argo",
        "--executor-image", f"{layout.REGISTRY}/argoexec:{ARGO_VERSION}",
        "--executor-image-pull-policy", "IfNotPresent",
    ]  # fmt: skip


ARGO_ENVIRONMENT = {"LEADER_ELECTION_DISABLE": "true", "DEFAULT_REQUEUE_TIME": "1s"}


def argo_server(run: Run) -> tuple[Argv, dict[str, str]]:
    """With its environment: it speaks for callers by their tokens, to the cluster of a kubeconfig without a user."""
    kubeconfig = json.loads(run.kubeconfig.read_text())
    for one in kubeconfig["users"]:
        one["user"] = {}
    nobody = run.folder / "nobody.kubeconfig"
    nobody.write_text(json.dumps(kubeconfig))
    argv = [
        ARGO.program("argo"), "server", "--kubeconfig", run.kubeconfig, "--namespace", "argo", "--auth-mode", "client",
        "--secure=false", "--port", layout.ARGO_SERVER.rpartition(":")[2],
    ]  # fmt: skip
    return argv, {"KUBECONFIG": str(nobody)}


_ANSWERS = {
    "apiserver": f"{layout.API}/readyz",
    "registry": f"http://{layout.REGISTRY}/v2/",
    "argo-controller": f"http://{layout.HOST}:6060/healthz",
    "argo-server": f"{layout.ARGO_SERVER}/",
}
"""Programs that say by themselves when they are ready."""


def wait_ready(box: Box, name: str, seconds: float = 180, status: int = 200) -> None:
    """Return when a program answers with a status, or for one that never answers, at once. Raises when it has ended."""
    if not (url := _ANSWERS.get(name)):
        return
    trust = ssl.create_default_context()
    if name == "apiserver":
        trust.load_verify_locations(box.run.pki / "ca.crt")
        trust.load_cert_chain(box.run.pki / "admin.crt", box.run.pki / "admin.key")

    def answers() -> bool:
        if not box.alive(name):
            raise RuntimeError(f"{name} has ended; its last words are in {box.run.log(name)}")
        try:
            return client.request("GET", url, timeout=5, retries=False).status == status
        except urllib3.exceptions.HTTPError as error:
            raise NotYet(str(error)) from error

    with urllib3.PoolManager(ssl_context=trust) as client:
        until(f"{name} answers at {url}", answers, seconds)
