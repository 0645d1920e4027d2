"""Argo Workflows and Tekton Pipelines, installed from their own manifests, and quick to go on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from tests.e2e.cluster import layout
from tests.e2e.cluster.access import Kubectl
from tests.e2e.cluster.binaries import ARGO, TEKTON, TEKTON_VERSION
from tests.e2e.cluster.control_plane import ARGO_ENVIRONMENT, argo_controller, wait_ready
from tests.e2e.cluster.processes import Box
from tests.e2e.cluster.waiting import NotYet, until

Replacements = tuple[tuple[str, str], ...]

_OURS = "|".join(TEKTON.programs)
_IMAGES = (
    (rf"ko://github.com/tektoncd/pipeline/cmd/({_OURS})\b", rf"{layout.REGISTRY}/tekton-\1:{TEKTON_VERSION}"),
    (r"ko://github.com/tektoncd/pipeline/cmd/sidecarlogresults", f"{layout.REGISTRY}/tekton-nop:{TEKTON_VERSION}"),
    (r"cgr.dev/chainguard/busybox@sha256:[0-9a-f]+", f"{layout.REGISTRY}/busybox:1"),
    (r'"devel"', f'"{TEKTON_VERSION}"'),  # what upstream's release puts in
)
_FLAGS = ((r'(running-in-environment-with-injected-sidecars): "true"', r'\1: "false"'),)
"""As docs/how-to/install-on-tekton.md has it, where nothing puts sidecars into pods."""
_PARTS = ("100-namespace/*", "200-*", "201-*", "config-*", "300-crds/*", "500-webhooks.yaml")
_TASK = """\
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: answers, namespace: default}
spec: {steps: [{name: one, image: any}]}
"""


def argo(box: Box, kubectl: Kubectl) -> None:
    """Install Argo's types and start its controller, which is a process beside the cluster and can be killed."""
    types = "---\n".join(path.read_text() for path in sorted(ARGO.yaml.glob("argoproj.io_*.yaml")))
    _create(kubectl, f"{types}---\n{_namespace('argo')}")
    kubectl("-n", "argo", "create", "configmap", "workflow-controller-configmap")
    until("Argo's types are served", lambda: _established(kubectl) >= set(_argo_types()), 180)
    box.start("argo-controller", argo_controller(box.run), ARGO_ENVIRONMENT)
    wait_ready(box, "argo-controller")


def _established(kubectl: Kubectl) -> set[str]:
    found = kubectl.json("get", "customresourcedefinitions")["items"]
    return {
        one["metadata"]["name"]
        for one in found
        for said in one.get("status", {}).get("conditions") or ()
        if (said["type"], said["status"]) == ("Established", "True")
    }


def _argo_types() -> Iterator[str]:
    for path in ARGO.yaml.glob("argoproj.io_*.yaml"):
        yield f"{path.stem.partition('_')[2]}.argoproj.io"


def tekton(kubectl: Kubectl) -> None:
    """Install Tekton in pods of node0; returns when its webhook answers."""
    _create(kubectl, "---\n".join(_tekton_manifests()))
    for name in ("controller", "webhook"):
        kubectl("-n", "tekton-pipelines", "rollout", "status", f"deployment/tekton-pipelines-{name}", "--timeout=300s")

    def webhook() -> bool:
        try:
            kubectl("apply", "--dry-run=server", "-f", "-", stdin=_TASK)
        except RuntimeError as error:
            raise NotYet(str(error)) from error
        return True

    until("Tekton's webhook answers", webhook, 180)


def _tekton_manifests() -> Iterator[str]:
    for part in _PARTS:
        for path in sorted(TEKTON.yaml.glob(part)):
            yield replaced(path.read_text(), (*_IMAGES, *_FLAGS))
    for name in ("controller.yaml", "webhook.yaml"):
        yield from on_node0(replaced((TEKTON.yaml / name).read_text(), _IMAGES))


def on_node0(text: str) -> Iterator[str]:
    """The documents of a manifest; what runs is put onto node0, and is looked at every second."""
    for document in yaml.safe_load_all(text):
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            pod["nodeSelector"] = {"kubernetes.io/hostname": layout.NODE}
            for container in pod["containers"]:
                for probe in ("livenessProbe", "readinessProbe"):
                    if probe in container:
                        container[probe] |= {"initialDelaySeconds": 0, "periodSeconds": 1, "failureThreshold": 60}
        yield yaml.safe_dump(document)


def replaced(text: str, replacements: Replacements) -> str:
    """A manifest with what upstream's release puts in."""
    for pattern, replacement in replacements:
        text = re.sub(pattern, replacement, text)
    return text


def _create(kubectl: Kubectl, manifests: str) -> None:
    """Create what upstream has validated; to apply types that large costs the API server many times as much."""
    kubectl("create", "--validate=ignore", "-f", "-", stdin=manifests)


def _namespace(name: str) -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"
