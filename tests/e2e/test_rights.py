"""What each account may do on a real cluster, tried with its own token; what it may not, the API server refuses."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.clients.cluster import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NODES,
    PIPELINE_RUNS,
    PODS,
    ROLE_BINDINGS,
    SECRETS,
    WORKFLOWS,
    Resource,
)
from dtkpipe.clients.cluster import Cluster as Client
from dtkpipe.engines import rbac
from dtkpipe.engines.rights import ACCOUNTS, PEOPLE, Account, Right, Scope
from dtkpipe.errors import NotAllowedError
from dtkpipe.steps import smoke_test
from dtkpipe.steps.contract import Room, StepRefusedError
from dtkpipe.steps.deploy.rollout import Rollout
from dtkpipe.values.kernel import Kernel
from tests.e2e.cluster.target import Cluster, Node
from tests.fixtures.cli import Cli
from tests.fixtures.drivers import Drivers, Ground
from tests.fixtures.modules import SOURCES

_TASKS = [one for one in ACCOUNTS if one.tasks]
# Resources that an account which is not named for them must not touch, anywhere.
_FORBIDDEN = (
    "secrets", "configmaps", "pods", "pods/exec", "serviceaccounts/token", "daemonsets.apps", "deployments.apps",
    "jobs.batch", "cronjobs.batch", "workflows.argoproj.io", "workflowtemplates.argoproj.io", "pipelineruns.tekton.dev",
    "taskruns.tekton.dev", "tasks.tekton.dev", "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io", "nodes", "namespaces",
    "leases.coordination.k8s.io",
)  # fmt: skip
_WRITES = ("create", "update", "patch", "delete", "deletecollection")
_READS = ("get", "list", "watch")


@dataclass(frozen=True)
class Place:
    """What was installed: both engines, in namespaces of their own."""

    cluster: Cluster
    namespace: str
    folder: Path

    @property
    def target(self) -> str:
        return f"{self.namespace}-drivers"

    def as_account(self, name: str, namespace: str = "") -> Client:
        """A client with the account's own token, and nothing else."""
        kubectl, where = self.cluster.kubectl, namespace or self.namespace
        token = kubectl("create", "token", name, "-n", where).strip()
        config = kubectl.json("config", "view", "--flatten", "--minify")
        config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
        file = self.folder / f"{where}-{name}.json"
        file.write_text(json.dumps(config))
        return Client(file)


@pytest.fixture(scope="module")
def place(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("rights")
    (folder / "here").mkdir()
    cli, name = Cli(folder / "here", folder), f"t-{secrets.token_hex(4)}"
    made = Place(cluster, name, folder)
    words = ["-n", name, "--target-namespace", made.target]
    for engine in ("argo", "tekton"):
        said = cli("install", "--engine", engine, *words, env=cluster.environ)
        assert said.code == 0, said.err
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "there"},
        "spec": {"containers": [{"name": "main", "image": cluster.busybox, "command": ["sleep", "600"]}]},
    }  # fmt: skip
    for where in (name, made.target):
        cluster.kubectl("-n", where, "wait", "--for=create", "serviceaccount/default", "--timeout=60s")
        cluster.kubectl("create", "-n", where, "-f", "-", stdin=json.dumps(pod))
        cluster.kubectl("create", "secret", "generic", "dtkpipe-signing-key", "-n", where, "--from-literal=key=x")
    yield made
    for engine in ("argo", "tekton"):
        cli("uninstall", "--engine", engine, *words, env=cluster.environ)
    cluster.kubectl("delete", "namespace", name, made.target, "--wait=false")


def resource(text: str) -> tuple[Resource, str]:
    right = Right(resource=text, verbs=(), scope=Scope.RUNS, why="")
    name, _, part = right.plural.partition("/")
    return Resource(f"{right.group}/v1" if right.group else "v1", name, ""), part


def may(client: Client, verb: str, text: str, namespace: str, name: str = "") -> bool:
    kind, part = resource(text)
    return client.allowed(verb, kind, namespace, subresource=part, name=name)


@pytest.mark.parametrize("account", _TASKS, ids=lambda one: one.name)
def test_it_may_what_the_table_says_and_nothing_else(place: Place, account: Account) -> None:
    client = place.as_account(account.name)
    where = {Scope.RUNS: place.namespace, Scope.TARGET: place.target, Scope.CLUSTER: ""}
    named = {(verb, one.resource, where[one.scope], one.name) for one in account.rights for verb in one.verbs}
    assert [one for one in named if not may(client, *one)] == []
    given = {one[:3] for one in named if not one[3]}
    everywhere = {
        ("nodes", verb) for name, verb in ((one[1], one[0]) for one in given if not one[2]) if name == "nodes"
    }
    asked = [
        (verb, name, namespace)
        for namespace in (place.namespace, place.target, "kube-system")
        for name in _FORBIDDEN
        for verb in (*_WRITES, *_READS)
        if (verb, name, namespace) not in given and (name, verb) not in everywhere
    ]
    assert [one for one in asked if may(client, *one)] == []


def workload(kind: str, name: str, image: str) -> dict[str, Any]:
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": image}]}}
    return {
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": pod},
    }  # fmt: skip


def attempts(place: Place, client: Client) -> dict[str, Callable[[], object]]:
    """What somebody would try who has taken over a task's pod. Nothing is a dry run."""
    image, runs, target = place.cluster.busybox, place.namespace, place.target
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "a", "image": image}]},
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "x"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "dtkpipe-task", "namespace": runs}],
    }  # fmt: skip
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "x"},
        "spec": {"workflowTemplateRef": {"name": "kmod"}},
    }  # fmt: skip
    pipeline_run = {
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": "x"},
        "spec": {"pipelineRef": {"name": "kmod"}},
    }  # fmt: skip
    tries: dict[str, Callable[[], object]] = {
        "read the signing key": lambda: client.read(SECRETS, "dtkpipe-signing-key", runs),
        "list secrets": lambda: client.list(SECRETS, runs),
        "start a workflow": lambda: client.create(WORKFLOWS, workflow, runs),
        "start a pipeline run": lambda: client.create(PIPELINE_RUNS, pipeline_run, runs),
        "bind cluster-admin": lambda: client.create(ROLE_BINDINGS, binding, runs),
        "label a node": lambda: client.patch(NODES, "node0", "", {"metadata": {"labels": {"x": "y"}}}),
    }
    for name, where in (("runs", runs), ("drivers", target), ("kube-system", "kube-system")):
        tries |= {
            f"pod in {name}": lambda where=where: client.create(PODS, pod, where),
            f"deployment in {name}": lambda where=where: client.create(
                DEPLOYMENTS, workload("Deployment", "x", image), where
            ),
            f"daemonset in {name}": lambda where=where: client.apply(workload("DaemonSet", "x", image), where),
            f"program in {name}": lambda where=where: client.exec(where, "there", "main", ["true"]),
            f"pods of {name}": lambda where=where: client.list(PODS, where),
            f"configmaps of {name}": lambda where=where: client.list(CONFIG_MAPS, where),
        }
    return tries


@pytest.mark.core
@pytest.mark.parametrize(("account", "allowed"), [
    ("dtkpipe-task", set()),
    ("dtkpipe-build", set()),
    ("dtkpipe-executor", set()),
    ("dtkpipe-deploy", {"daemonset in drivers", "pods of drivers"}),
    ("dtkpipe-smoke-test", {"program in drivers", "pods of drivers"}),
    ("dtkpipe-planner", {"start a workflow", "start a pipeline run", "pods of runs"}),
])  # fmt: skip
def test_what_is_forbidden_is_tried_and_refused(place: Place, account: str, allowed: set[str]) -> None:
    there = place.cluster.kubectl
    there("-n", place.target, "wait", "--for=condition=Ready", "pod/there", "--timeout=90s")
    done = set()
    for name, attempt in attempts(place, place.as_account(account)).items():
        try:
            attempt()
        except NotAllowedError:
            continue
        done.add(name)
    there("delete", "daemonset", "x", "-n", place.target, "--ignore-not-found", "--wait=false")
    assert done == allowed


def test_what_deploy_rollback_and_smoke_test_do_needs_no_more(
    ground: Ground, drivers: Drivers, workers: tuple[Node, ...], place: Place, tmp_path: Path
) -> None:
    """The steps themselves, each with its account's token: rolled out, tested, replaced, put back, removed."""
    for one in rbac.objects("tekton", place.namespace, ground.namespace):
        if one["metadata"].get("namespace") == ground.namespace and one["kind"] != "ServiceAccount":
            place.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(one))
    deploying, testing = (place.as_account(name) for name in ("dtkpipe-deploy", "dtkpipe-smoke-test"))
    kernel, source = Kernel.parse(workers[0].kernel), (SOURCES / "good.c").read_text()
    sources = (source, source.replace("1.0", "2.0"), (SOURCES / "finds_no_device.c").read_text())
    name, spec = "rights_test", {"name": "rights-test", "modules": ["rights_test"]}
    first, second, refuses = (drivers.image(kernel, {name: drivers.module(kernel, name, one)}, spec) for one in sources)
    ground.deploy(first, kernel, client=deploying)
    results = ground.deploy(second, kernel, client=deploying, run_name="run-2")
    args = smoke_test.Args(
        image=second, kernel=kernel, workload=results["workload"], target_namespace=ground.namespace,
        insecure_registries=(ground.registry.host,),
    )  # fmt: skip
    room = Room(work=tmp_path, cache=tmp_path, environ={}, say=print)
    assert json.loads(smoke_test.run_on(testing, args, room).nodes)[workers[0].name] == "healthy"
    with pytest.raises(StepRefusedError):
        ground.deploy(refuses, kernel, client=deploying, run_name="run-3")
    assert ground.state(workers[0].name, name) == "Live", "deploy has put the image before back"
    (workload,) = (rollout := Rollout(deploying, ground.namespace, print, time.monotonic() + 300)).all()
    assert rollout.put_back(workload, remove=True)


def test_the_drivers_account_may_nothing_and_gets_no_token(place: Place) -> None:
    client = place.as_account("dtkpipe-driver", place.target)
    assert not [
        (verb, name)
        for name in _FORBIDDEN
        for verb in (*_WRITES, *_READS)
        for namespace in (place.namespace, place.target)
        if may(client, verb, name, namespace)
    ]
    account = place.cluster.kubectl.json("get", "serviceaccount", "dtkpipe-driver", "-n", place.target)
    assert account["automountServiceAccountToken"] is False


def test_edit_of_the_namespace_is_enough_for_people(place: Place) -> None:
    """What engines add to `edit` comes with their manifests, of which the tests' cluster applies only some."""
    kubectl, where = place.cluster.kubectl, place.namespace
    kubectl("create", "serviceaccount", "person", "-n", where)
    kubectl("create", "rolebinding", "person", "--clusterrole=edit", f"--serviceaccount={where}:person", "-n", where)
    client = place.as_account("person")
    asked = [(verb, one.resource, where) for one in PEOPLE if not one.engine for verb in one.verbs]
    assert [one for one in asked if not may(client, *one)] == []
    assert not may(client, "create", "daemonsets.apps", place.target)


def secrets_of(pods: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    """Task -> what its installed template mounts of Secrets, by the parameter that names them."""
    return {
        task: {volume["secret"]["secretName"] for volume in spec.get("volumes", ()) if "secret" in volume}
        for task, spec in pods.items()
    }


def installed(place: Place, engine: str) -> dict[str, dict[str, Any]]:
    get, where = place.cluster.kubectl.json, ["-n", place.namespace]
    if engine == "argo":
        found = get("get", "workflowtemplate", "kmod", *where)["spec"]["templates"]
        return {one["name"]: one for one in found if "dag" not in one}
    listed = get("get", "tasks.tekton.dev", *where)["items"]
    names = {one["metadata"]["name"]: one["spec"] for one in listed}
    return {name.removeprefix("kmod-"): spec for name, spec in names.items() if name.startswith("kmod-")}


@pytest.mark.core
@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_the_key_is_mounted_in_sign_alone_and_verify_holds_nothing_that_can_write(place: Place, engine: str) -> None:
    held = secrets_of(installed(place, engine))
    assert {task for task, names in held.items() if any("sign-secret" in one for one in names)} == {"sign"}
    assert [name.partition("registry-")[2].strip("})") for name in held["verify"]] == ["pull-secret"]
    assert held["report"] == set()
    pushing = {task for task, names in held.items() if any("registry-secret" in one for one in names)}
    assert pushing == {"resolve", "build", "sign", "publish", "clean"}
