"""Part of deploy: the objects of one driver on one kernel, as a pure function of what is deployed.

A DaemonSet puts one pod on every node whose label names the kernel. The pod's main process is the loader
(catalog/driver/load), which comes from a ConfigMap, so that images made elsewhere work too: they need sh and modprobe.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dtkpipe.steps.deploy.plan import FIRMWARE_FOLDER, HOST_MODULES
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.node import Toleration

Object = dict[str, Any]

OURS = {"app.kubernetes.io/managed-by": "dtkpipe", "app.kubernetes.io/component": "driver"}
"""Labels of every object of ours in the target namespace."""
MODULE_LABEL = "dtkpipe.io/module"
DRIVER_LABEL = "dtkpipe.io/driver"
"""Label of the pods: the DaemonSet's name."""
IMAGE, KERNEL, RUN, PREVIOUS, REVISION, ROLLOUT = (
    f"dtkpipe.io/{name}" for name in ("image", "kernel", "run", "previous-image", "revision", "rollout")
)
"""Annotations of the DaemonSet. `revision` is the pods' too; `rollout` is PROGRESSING or COMPLETE."""
PROGRESSING, COMPLETE = "progressing", "complete"
SERVICE_ACCOUNT = "dtkpipe-driver"
CONTAINER = "driver"

_LOADER = "/dtkpipe"
_RUN = "/run/dtkpipe"
_SEARCH = "/sys/module/firmware_class/parameters"
_LOADING_LIMIT = 900
"""Seconds after which a container that has not loaded its modules is started again."""
_UNLOADING_LIMIT = 60


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One driver, one kernel, one image: what shall be on the nodes."""

    module: str
    kernel: Kernel
    image: ImageRef
    acts: tuple[str, ...]
    """The loader's arguments."""
    loader: str
    """The loader's text."""
    label: str
    """The node label whose value names the kernel."""
    host_folder: str = "/"
    """Folder in the pod below which the node's lib/modules is mounted."""
    firmware_folder: str = FIRMWARE_FOLDER
    run: str = ""
    tolerations: tuple[Toleration, ...] = ()
    priority_class_name: str = ""
    max_unavailable: str = "1"
    pull_secret: str = ""
    previous_image: str = ""
    only: Mapping[str, str] = field(default_factory=dict)
    """More labels that nodes must have: those of the canaries, while only they are served."""

    @property
    def name(self) -> str:
        """The DaemonSet's name."""
        return workload_name(self.module, self.kernel)

    @property
    def config_map(self) -> str:
        """The name of the ConfigMap that holds the loader. Another loader is another ConfigMap: pods keep theirs."""
        return f"{self.name}-{_short(self.loader)}"


def workload_name(module: str, kernel: Kernel) -> str:
    """Return the name of the DaemonSet of `module` for `kernel`: `hello-1f0c5a72`."""
    plain = re.sub(r"[^a-z0-9]+", "-", module.lower()).strip("-")[:50].strip("-") or "module"
    return f"{plain}-{_short(f'{module} {kernel}')}"


def module_label(module: str) -> str:
    """Return the value of MODULE_LABEL for a module: its name, as far as label values can hold it."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", module)[:63].strip("._-")


def config_map(wanted: Deployment, owner: Mapping[str, Any]) -> Object:
    """Return the ConfigMap with the loader; it goes with its `owner`, the DaemonSet."""
    owned = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": wanted.name, "uid": owner["metadata"]["uid"]}
    metadata = {"name": wanted.config_map, "labels": _labels(wanted), "ownerReferences": [owned]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"load": wanted.loader}}


def daemon_set(wanted: Deployment, *, strategy: str = "RollingUpdate") -> Object:
    """Return the DaemonSet. `strategy` OnDelete leaves it to the caller which nodes get a new image, and when."""
    template = _template(wanted)
    template["metadata"]["annotations"][REVISION] = _short(json.dumps(template, sort_keys=True))
    update: Object = {"type": strategy}
    if strategy == "RollingUpdate":
        share = wanted.max_unavailable
        # The old module must be gone before the new one comes: there is never a second pod on a node.
        update["rollingUpdate"] = {"maxUnavailable": int(share) if share.isdecimal() else share, "maxSurge": 0}
    annotations = {
        IMAGE: str(wanted.image), KERNEL: str(wanted.kernel), RUN: wanted.run, PREVIOUS: wanted.previous_image,
        REVISION: template["metadata"]["annotations"][REVISION], ROLLOUT: PROGRESSING,
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": wanted.name,
            "labels": _labels(wanted),
            "annotations": {key: value for key, value in annotations.items() if value},
        },
        "spec": {
            "selector": {"matchLabels": {DRIVER_LABEL: wanted.name}},
            "updateStrategy": update,
            "template": template,
        },
    }


def _labels(wanted: Deployment) -> dict[str, str]:
    return {
        **OURS,
        "app.kubernetes.io/name": module_label(wanted.module),
        MODULE_LABEL: module_label(wanted.module),
    }


def _template(wanted: Deployment) -> Object:
    firmware = any(act.startswith("firmware-folder ") for act in wanted.acts)
    volumes: list[Object] = [
        {"name": "loader", "configMap": {"name": wanted.config_map}},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "modules", "hostPath": {"path": HOST_MODULES, "type": "Directory"}},
    ]
    mounts: list[Object] = [
        {"name": "loader", "mountPath": _LOADER, "readOnly": True},
        {"name": "run", "mountPath": _RUN},
        {"name": "modules", "mountPath": f"{wanted.host_folder.rstrip('/')}{HOST_MODULES}", "readOnly": True},
    ]
    if firmware:
        folder = wanted.firmware_folder
        # /sys is read only beside a read-only root: of it, only the kernel's word on where firmware lies is writable.
        for name, path, kind in (("firmware", folder, "DirectoryOrCreate"), ("search-path", _SEARCH, "Directory")):
            volumes.append({"name": name, "hostPath": {"path": path, "type": kind}})
            mounts.append({"name": name, "mountPath": path})
    container = {
        "name": CONTAINER,
        "image": str(wanted.image),
        "command": ["/bin/sh", f"{_LOADER}/load"],
        # `$(NAME)` is a variable to Kubernetes; a doubled `$` is a plain one.
        "args": [act.replace("$", "$$") for act in wanted.acts],
        # Ready is who has loaded its modules. Nothing is asked of a pod after that.
        "startupProbe": {
            "exec": {"command": ["/bin/sh", f"{_LOADER}/load", "ready"]},
            "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": _LOADING_LIMIT,
        },
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }  # fmt: skip
    spec: Object = {
        "nodeSelector": {wanted.label: wanted.kernel.tag, **wanted.only},
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": _UNLOADING_LIMIT,
        "tolerations": [one.to_mapping() for one in wanted.tolerations],
        "priorityClassName": wanted.priority_class_name,
        "imagePullSecrets": [{"name": wanted.pull_secret}] if wanted.pull_secret else [],
        "containers": [container],
        "volumes": volumes,
    }
    return {
        "metadata": {
            "labels": {**_labels(wanted), DRIVER_LABEL: wanted.name},
            "annotations": {KERNEL: str(wanted.kernel), IMAGE: str(wanted.image)},
        },
        "spec": {key: value for key, value in spec.items() if value not in ("", [])},
    }


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
