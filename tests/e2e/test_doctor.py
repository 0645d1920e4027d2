"""doctor on a real cluster: what it finds where everything is there, and each thing that is taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dtkpipe.app.clusters import ENGINES
from dtkpipe.values.image import ImageRef
from tests.e2e.cluster.target import Cluster
from tests.fixtures.cli import Cli


@dataclass(frozen=True)
class Ward:
    """Namespaces in which everything is installed."""

    cluster: Cluster
    cli: Cli
    namespace: str

    @property
    def target(self) -> str:
        return f"{self.namespace}-drivers"

    def run(self, *words: str) -> dict[str, dict[str, str]]:
        """What doctor found, by name."""
        where = ["-n", self.namespace, "--target-namespace", self.target]
        environ = {**self.cluster.environ, "DTKPIPE_INSECURE_REGISTRIES": self.cluster.registry}
        said = self.cli("doctor", "--for", "cluster", "-o", "json", *where, *words, env=environ)
        assert said.code in (0, 1), said.err
        found = {one["name"]: one for one in json.loads(said.out)}
        assert said.code == (0 if all(one["ok"] for one in found.values()) else 1)
        return found

    def sick(self, *words: str) -> dict[str, str]:
        """What is wrong, and the fix; a fault without one fails."""
        wrong = {name: one["fix"] for name, one in self.run(*words).items() if not one["ok"]}
        assert all(wrong.values()), wrong
        return wrong


@pytest.fixture
def ward(cluster: Cluster, cli: Cli, namespace: str) -> Iterator[Ward]:
    made = Ward(cluster, cli, namespace)
    where = ["-n", namespace, "--target-namespace", made.target]
    said = cli("install", "--engine", "tekton", *where, env=cluster.environ)
    assert said.code == 0, said.err
    for name, key in (("dtkpipe-registry", "config.json"), ("dtkpipe-registry-pull", "config.json")):
        cluster.kubectl("create", "secret", "generic", name, "-n", namespace, f"--from-literal={key}={{}}")
    yield made
    cli("uninstall", "--engine", "tekton", *where, env=cluster.environ)
    cluster.kubectl("delete", "namespace", made.target, "--wait=false", "--ignore-not-found")


def test_what_is_taken_away_is_found_and_its_fix_mends_it(ward: Ward) -> None:
    kubectl, place = ward.cluster.kubectl, ["-n", ward.namespace]
    healthy = ward.run()
    labels = {"kernel labels"}  # of the nodes, which are not this test's
    assert {name for name, one in healthy.items() if not one["ok"]} <= labels
    assert not [name for name in healthy if name.startswith("argo")], "of two engines the one that is used is looked at"

    install = f"dtkpipe install --engine tekton -n {ward.namespace} --target-namespace {ward.target}"
    kubectl("delete", "role", f"dtkpipe-deploy:{ward.namespace}", "-n", ward.target)
    kubectl("delete", "pipeline.tekton.dev", "prebuild", *place)
    kubectl("delete", "secret", "dtkpipe-registry", *place)
    kubectl("label", "--overwrite", "namespace", ward.namespace, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("label", "--overwrite", "namespace", ward.target, "pod-security.kubernetes.io/enforce=baseline")
    wrong = ward.sick()
    enforce = "pod-security.kubernetes.io/enforce"
    assert {name: fix for name, fix in wrong.items() if name not in labels} == {
        "tekton accounts": install,
        "tekton pipelines": install,
        "pod security": f"kubectl label --overwrite namespace {ward.namespace} {enforce}=baseline",
        "drivers": f"kubectl label --overwrite namespace {ward.target} {enforce}=privileged",
        "secret dtkpipe-registry": f"kubectl create secret generic dtkpipe-registry {' '.join(place)} "
        "--from-file=config.json=FILE",
    }
    for fix in wrong.values():
        words = fix.split()
        if words[0] == "dtkpipe" and words[1] == "install":
            assert ward.cli(*words[1:], env=ward.cluster.environ).code == 0
        elif words[1] == "label":
            kubectl(*words[1:])
    assert set(ward.sick()) - labels == {"secret dtkpipe-registry"}


def test_more_rights_than_the_table_says_are_found(ward: Ward) -> None:
    rule = [{"op": "add", "path": "/rules/-", "value": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}}]
    role = ["role", f"dtkpipe-smoke-test:{ward.namespace}", "-n", ward.target]
    ward.cluster.kubectl("patch", *role, "--type=json", "-p", json.dumps(rule))
    assert "differs" in ward.run()["tekton accounts"]["found"]


def test_a_quota_that_leaves_no_room(ward: Ward) -> None:
    ward.cluster.kubectl("create", "quota", "none", "--hard=pods=0", "-n", ward.namespace)
    found = ward.run()["pod security"]
    assert not found["ok"]
    assert "none" in found["found"]
    assert "quota" in found["fix"]


def test_nothing_is_installed(cluster: Cluster, cli: Cli, namespace: str) -> None:
    found = Ward(cluster, cli, namespace).run("--engine", "argo")
    wrong = {name: one for name, one in found.items() if not one["ok"]}
    assert {"argo pipelines", "argo accounts", "pod security", "drivers"} <= set(wrong)
    assert all("dtkpipe install --engine argo" in wrong[name]["fix"] for name in ("pod security", "drivers"))


@pytest.mark.parametrize("engine", list(ENGINES))
def test_tasks_with_an_image_and_a_builder_of_the_users_choice(ward: Ward, runner_image: ImageRef, engine: str) -> None:
    where = ["-n", ward.namespace, "--target-namespace", ward.target]
    chosen = ["--builder", "kaniko", "--runner-image", str(runner_image)]
    try:
        said = ward.cli("install", "--engine", engine, *where, *chosen, env=ward.cluster.environ)
        assert said.code == 0, said.err
        found = ward.run("--engine", engine, "--push-to", f"{ward.cluster.registry}/doctor/kmod")
    finally:
        ward.cli("uninstall", "--engine", engine, *where, env=ward.cluster.environ)
    assert found[f"{engine} pipelines"]["found"].startswith("prebuild-kaniko, kmod-kaniko, resign in"), found
    assert (found[f"{engine} pipelines"]["ok"], found["registry"]["ok"]) == (True, True), found


def test_the_registry_from_a_pod(ward: Ward, runner_image: ImageRef) -> None:
    words = ["--runner-image", str(runner_image), "--push-to"]
    reached = ward.run(*words, f"{ward.cluster.registry}/doctor/kmod")["registry"]
    assert reached["ok"], reached
    gone = ward.run(*words, f"{ward.cluster.registry.partition(':')[0]}:9/doctor/kmod")["registry"]
    assert not gone["ok"]
    assert "from a pod" in gone["found"]
    absent = ward.run("--runner-image", f"{ward.cluster.registry}/no/such:1", "--push-to", "quay.io/a/b")["registry"]
    assert "cannot be pulled" in absent["found"]
    get = ["get", "pods", "-n", ward.namespace, "-o", "name"]
    ward.cluster.wait("doctor's pods are gone", lambda: "doctor" not in ward.cluster.kubectl(*get))
