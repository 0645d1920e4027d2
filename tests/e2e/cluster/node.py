"""What makes a machine a node: the configurations of containerd, kubelet and the pods' network."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from tests.e2e.cluster import layout


@dataclass(frozen=True)
class Place:
    """Where a node has its things; folders without a slash at the end."""

    certificates: str
    node: str
    """The node's name, which its certificate has as well."""
    cni: str
    containerd: str
    """containerd's data."""
    socket: str
    runtime: str = "runc"
    """What runs containers, for containerd."""
    restricted: bool = False
    """Whether the kernel forbids what a container may lack as well: this machine may be one."""
    kubelet: dict[str, object] = field(default_factory=dict)
    """What is special about this node's kubelet."""

    def containerd_toml(self) -> str:
        """All images come from the cluster's registry, whatever registry they name: there is no other."""
        return f"""\
version = 2
root = "{self.containerd}/root"
state = "{self.containerd}/state"
[grpc]
 address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
 restrict_oom_score_adj = {str(self.restricted).lower()}
 disable_apparmor = true
 sandbox_image = "{layout.REGISTRY}/pause:1"
 [plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{self.cni}"
 [plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
   runtime_type = "io.containerd.runc.v2"
   options = {{ BinaryName = "{self.runtime}" }}
 [plugins."io.containerd.grpc.v1.cri".registry.mirrors."{layout.REGISTRY}"]
  endpoint = ["http://{layout.REGISTRY}"]
 [plugins."io.containerd.grpc.v1.cri".registry.mirrors."*"]
  endpoint = ["http://{layout.REGISTRY}"]
"""

    def kubelet_json(self) -> str:
        """Kubelet reads JSON as the YAML that it is."""
        configuration: dict[str, object] = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{self.certificates}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "tlsCertFile": f"{self.certificates}/{self.node}.crt",
            "tlsPrivateKeyFile": f"{self.certificates}/{self.node}.key",
            "resolvConf": "",  # there is nobody to ask
            "localStorageCapacityIsolation": False,
            "failSwapOn": False,
            "serializeImagePulls": False,
            "evictionHard": {"memory.available": "50Mi"},
            "nodeStatusUpdateFrequency": "4s",
            "nodeLeaseDurationSeconds": 16,
            **self.kubelet,
        }
        if self.restricted:
            configuration["featureGates"] = {"KubeletInUserNamespace": True}
        return json.dumps(configuration, indent=1)


def pods_network(subnet: str, *, bridge: str, first: str = "", data: str, routed: bool = False) -> str:
    """The CNI configuration: a bridge, and addresses of `subnet` from `first` on.

    Where the subnet is `routed` nothing is translated: that is some ten programs less for a pod.
    """
    addresses = {"subnet": subnet, **({"rangeStart": first} if first else {})}
    network = {
        "type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": not routed, "hairpinMode": not routed,
        "ipam": {
            "type": "host-local", "dataDir": data, "ranges": [[addresses]], "routes": [{"dst": "0.0.0.0/0"}],
        },
    }  # fmt: skip
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    plugins = [network] if routed else [network, ports]
    return json.dumps({"cniVersion": "0.4.0", "name": "dtkpipe-e2e", "plugins": plugins})
