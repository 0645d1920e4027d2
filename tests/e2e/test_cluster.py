"""The test cluster does what the other tests take for granted; and what they break comes back."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.cluster import layout
from tests.e2e.cluster.faults import Faults
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.processes import Box
from tests.e2e.cluster.target import Cluster, Node
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.toolkit import Toolkit

WORKFLOW = """\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: two-steps}
spec:
  entrypoint: both
  serviceAccountName: default
  templates:
    - name: both
      steps: [[{name: first, template: say}], [{name: second, template: say}]]
    - name: say
      container: {image: IMAGE, command: [uname, -r]}
"""
TASK_RUN = """\
apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: two-steps}
spec:
  taskSpec:
    steps:
      - {name: first, image: IMAGE, command: [uname, -r]}
      - {name: second, image: IMAGE, command: [uname, -r]}
"""
REPORTS = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reports}
rules: [{apiGroups: [argoproj.io], resources: [workflowtaskresults], verbs: [create, patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reports}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reports}
subjects: [{kind: ServiceAccount, name: default}]
"""


def pod(name: str, image: str, node: str = "", *command: str) -> str:
    """A pod that runs a command, or sleeps."""
    container = {
        "name": "main", "image": image, "command": list(command) or ["sleep", "600"],
        "securityContext": {"runAsUser": 65532, "allowPrivilegeEscalation": False},
    }  # fmt: skip
    spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def test_argo_runs_workflows(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=REPORTS)
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=WORKFLOW.replace("IMAGE", cluster.busybox))
    cluster.kubectl("-n", namespace, "wait", "workflow/two-steps", "--for=condition=Completed", "--timeout=300s")
    assert cluster.kubectl.json("-n", namespace, "get", "workflow/two-steps")["status"]["phase"] == "Succeeded"


def test_tekton_runs_tasks(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=TASK_RUN.replace("IMAGE", cluster.busybox))
    cluster.kubectl("-n", namespace, "wait", "taskrun/two-steps", "--for=condition=Succeeded", "--timeout=300s")


def test_workers_run_the_kernels_of_the_toolkits(
    cluster: Cluster, namespace: str, workers: tuple[Node, ...], toolkit_cloud: Toolkit, toolkit_std: Toolkit
) -> None:
    assert {one.kernel for one in workers} == {str(toolkit_cloud.kernel), str(toolkit_std.kernel)}
    for one in workers:
        made = pod(one.name, cluster.busybox, one.name, "uname", "-r")
        cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=made)
        done = "--for=jsonpath={.status.phase}=Succeeded"
        cluster.kubectl("-n", namespace, "wait", f"pod/{one.name}", done, "--timeout=300s")
        assert cluster.kubectl("-n", namespace, "logs", one.name).strip() == one.kernel


@pytest.mark.usefixtures("workers")
def test_the_api_server_keeps_its_address_whichever_pods_come_and_go() -> None:
    (bridge,) = json.loads(Box(layout.run()).command(["ip", "-json", "link", "show", layout.BRIDGE]))
    assert bridge["address"] == layout.BRIDGE_MAC


def test_images_of_other_registries_come_from_the_clusters_own(
    cluster: Cluster, namespace: str, registry: LoopbackRegistry, workers: tuple[Node, ...]
) -> None:
    assert registry.client.digest(registry.repo("kaniko-project/executor").tagged(cluster.kaniko.rpartition(":")[2]))
    made = pod("elsewhere", "quay.io/busybox:1", workers[0].name, "true")
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=made)
    done = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("-n", namespace, "wait", "pod/elsewhere", done, "--timeout=300s")


def test_pod_security_refuses_privileged_pods(cluster: Cluster, namespace: str) -> None:
    made = json.loads(pod("privileged", cluster.busybox))
    made["spec"]["hostNetwork"] = True
    with pytest.raises(RuntimeError, match="violates PodSecurity"):
        cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(made))


def test_the_git_server_stands_for_the_real_ones(
    cluster: Cluster, namespace: str, git_server: GitServer, tmp_path: Path
) -> None:
    (tmp_path / "kmod.c").write_text("first")
    first = git_server.serve("github.com/org/kmod", tmp_path)
    (tmp_path / "kmod.c").write_text("second")
    second = git_server.serve("github.com/org/kmod", tmp_path)
    assert first != second
    said = subprocess.run(
        ["git", "ls-remote", "https://github.com/org/kmod", "HEAD"],
        capture_output=True, text=True, check=True, env=git_server.environ,
    )  # fmt: skip
    assert said.stdout.split()[0] == second
    git_server.secret(namespace)
    server = f"{cluster.address}:{git_server.port}"
    made = pod("reaches", cluster.busybox, "", "nc", "-w", "3", *server.split(":"), "-e", "true")
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=made)
    done = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("-n", namespace, "wait", "pod/reaches", done, "--timeout=180s")


def test_a_killed_api_server_comes_back(cluster: Cluster, faults: Faults) -> None:
    with faults.without("apiserver"), pytest.raises(RuntimeError, match="refused"):
        cluster.kubectl("get", "nodes")
    assert cluster.nodes


@pytest.mark.parametrize(
    ("engine", "run", "ended"),
    [("argo", WORKFLOW, "workflow/two-steps=Completed"), ("tekton", TASK_RUN, "taskrun/two-steps=Succeeded")],
    ids=("argo", "tekton"),
)
def test_what_was_asked_of_a_killed_controller_is_done_by_the_next(
    cluster: Cluster, namespace: str, faults: Faults, engine: str, run: str, ended: str
) -> None:
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=REPORTS)
    name, _, condition = ended.partition("=")
    with faults.without_controller(engine):
        cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=run.replace("IMAGE", cluster.busybox))
        assert "status" not in cluster.kubectl.json("-n", namespace, "get", name)
    cluster.kubectl("-n", namespace, "wait", name, f"--for=condition={condition}", "--timeout=300s")


def test_a_registry_that_is_gone_comes_back(registry: LoopbackRegistry, faults: Faults) -> None:
    busybox = registry.repo("busybox").tagged("1")
    with faults.without("registry"):
        host, _, port = registry.host.partition(":")
        with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), 5):
            pass
    assert registry.client.digest(busybox)


def test_a_killed_container_is_seen_as_killed(cluster: Cluster, namespace: str, faults: Faults) -> None:
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=pod("victim", cluster.busybox, "node0"))
    cluster.kubectl("-n", namespace, "wait", "pod/victim", "--for=condition=Ready", "--timeout=180s")
    faults.kill_container(namespace, "victim", "main")
    cluster.kubectl("-n", namespace, "wait", "pod/victim", "--for=jsonpath={.status.phase}=Failed", "--timeout=180s")
    status = cluster.kubectl.json("-n", namespace, "get", "pod", "victim")["status"]["containerStatuses"][0]
    assert status["state"]["terminated"]["exitCode"] == 137


def test_a_worker_comes_back_with_another_kernel(cluster: Cluster, workers: tuple[Node, ...], faults: Faults) -> None:
    one = workers[0]
    other = next(kernel for kernel in faults.kernels() if kernel != one.kernel)
    faults.power_off(one.name)
    faults.power_on(one.name, other)
    assert {node.name: node.kernel for node in cluster.workers}[one.name] == other
    faults.power_off(one.name)
    faults.power_on(one.name)
    assert {node.name: node.kernel for node in cluster.workers}[one.name] == one.kernel
