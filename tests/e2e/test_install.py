"""install and uninstall on a real cluster, both engines; and the same as files for kubectl."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.cluster.target import Cluster
from tests.fixtures.cli import Cli, Said

ENGINES = ("argo", "tekton")
_KINDS = "serviceaccounts,roles,rolebindings,workflowtemplates,pipelines.tekton.dev,tasks.tekton.dev"
_OTHERS = "clusterroles,clusterrolebindings"


@dataclass(frozen=True)
class Site:
    """A pair of namespaces, and what is in them."""

    cluster: Cluster
    cli: Cli
    namespace: str

    @property
    def target(self) -> str:
        return f"{self.namespace}-drivers"

    @property
    def words(self) -> list[str]:
        return ["-n", self.namespace, "--target-namespace", self.target]

    def run(self, *words: str) -> Said:
        return self.cli(*words, *self.words, env=self.cluster.environ)

    def states(self, *words: str) -> dict[str, str]:
        said = self.run(*words, "-o", "json")
        assert said.code == 0, said.err
        return {one["object"]: one["state"] for one in json.loads(said.out)}

    def there(self) -> set[str]:
        """Every object of ours, in both namespaces and in none."""
        select = ["-l", "app.kubernetes.io/managed-by=dtkpipe", "-o", "name"]
        found = set()
        for place in (self.namespace, self.target):
            found |= {f"{place}/{one}" for one in self.cluster.kubectl("get", _KINDS, "-n", place, *select).split()}
        every = self.cluster.kubectl("get", _OTHERS, *select).split()
        return found | {one for one in every if one.endswith(f":{self.namespace}")}


@pytest.fixture
def site(cluster: Cluster, cli: Cli, namespace: str) -> Iterator[Site]:
    made = Site(cluster, cli, namespace)
    yield made
    for engine in ENGINES:
        made.run("uninstall", "--engine", engine)
    cluster.kubectl("delete", "namespace", made.target, "--wait=false", "--ignore-not-found")


@pytest.mark.core
@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_time_changes_nothing_and_uninstall_leaves_what_is_the_users(site: Site, engine: str) -> None:
    first = site.states("install", "--engine", engine)
    assert first.pop(f"namespace/{site.namespace}") == "unchanged", "somebody else's namespace is left as it is"
    assert set(first.values()) == {"created"}
    assert set(site.states("install", "--engine", engine).values()) == {"unchanged"}
    assert set(site.states("install", "--engine", engine, "--dry-run=server").values()) == {"unchanged"}
    levels = site.cluster.kubectl.json("get", "namespace", site.target)["metadata"]["labels"]
    assert levels["pod-security.kubernetes.io/enforce"] == "privileged"

    secret = ["create", "secret", "generic", "dtkpipe-registry", "-n", site.namespace, "--from-literal=config.json={}"]
    site.cluster.kubectl(*secret)
    installed = site.there()
    assert set(site.states("uninstall", "--engine", engine, "--dry-run=server").values()) == {"deleted"}
    assert site.there() == installed
    said = site.run("uninstall", "--engine", engine)
    assert "secrets" in said.err
    assert site.there() == set()
    site.cluster.kubectl("get", "secret", "dtkpipe-registry", "-n", site.namespace)
    assert "nothing of" in site.run("uninstall", "--engine", engine).err


def test_both_engines_share_accounts_and_one_leaves_them_to_the_other(site: Site) -> None:
    site.states("install", "--engine", "argo")
    site.states("install", "--engine", "tekton")
    assert set(site.states("install", "--engine", "argo").values()) == {"unchanged"}
    site.states("uninstall", "--engine", "argo")
    left = site.there()
    assert f"{site.namespace}/serviceaccount/dtkpipe-task" in left
    assert not [one for one in left if "workflowtemplate" in one]
    assert set(site.states("install", "--engine", "tekton").values()) == {"unchanged"}


def test_an_upgrade_takes_away_what_is_not_there_any_more_and_nothing_else(site: Site) -> None:
    site.states("install", "--engine", "tekton")
    kubectl, place = site.cluster.kubectl, ["-n", site.namespace]
    stale = kubectl.json("get", "task.tekton.dev/kmod-report", *place)
    for name, labels in (("kmod-gone", stale["metadata"]["labels"]), ("kmod-own", {})):
        copy = {**stale, "metadata": {"name": name, "labels": {**labels, "app.kubernetes.io/managed-by": "dtkpipe"}}}
        kubectl("create", *place, "-f", "-", stdin=json.dumps(copy))
    changed = {
        name: state for name, state in site.states("install", "--engine", "tekton").items() if state != "unchanged"
    }
    assert changed == {"task/kmod-gone": "deleted"}


def test_drivers_that_run_keep_their_account(site: Site) -> None:
    site.states("install", "--engine", "argo")
    daemons = {
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "some-driver", "labels": {"app.kubernetes.io/managed-by": "dtkpipe"}},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {
                    "nodeSelector": {"no": "node"},
                    "containers": [{"name": "a", "image": site.cluster.busybox}],
                },
            },
        },
    }  # fmt: skip
    site.cluster.kubectl("create", "-n", site.target, "-f", "-", stdin=json.dumps(daemons))
    said = site.run("uninstall", "--engine", "argo")
    assert "some-driver run with it" in said.err
    left = {f"{site.target}/serviceaccount/dtkpipe-driver"}
    assert {one for one in site.there() if "serviceaccount" in one} == left


@pytest.mark.parametrize("engine", ENGINES)
def test_a_name_that_is_somebody_elses_is_never_taken(site: Site, engine: str) -> None:
    site.cluster.kubectl("create", "serviceaccount", "dtkpipe-deploy", "-n", site.namespace)
    said = site.run("install", "--engine", engine)
    assert said.code == 6
    assert f"serviceaccount/dtkpipe-deploy in namespace {site.namespace}" in said.err
    assert site.there() == set()
    site.run("uninstall", "--engine", engine)
    site.cluster.kubectl("get", "serviceaccount", "dtkpipe-deploy", "-n", site.namespace)


@pytest.mark.parametrize("engine", ENGINES)
def test_as_files_for_kubectl(site: Site, engine: str, tmp_path: Path) -> None:
    folder = tmp_path / engine
    said = site.run("compile", "--engine", engine, "--dir", str(folder))
    assert said.code == 0, said.err
    kubectl = site.cluster.kubectl
    kubectl("apply", "-f", str(folder), "--validate=strict")
    kubectl("apply", "-k", str(folder), "--validate=strict", "--dry-run=server")
    rehearsed = site.states("install", "--engine", engine, "--dry-run=server")
    assert "created" not in rehearsed.values(), "the files hold all of it"
    said = site.run("doctor", "--for", "cluster", "--engine", engine, "-o", "json")
    found = {one["name"]: one["ok"] for one in json.loads(said.out)}
    assert found[f"{engine} accounts"]
    assert found[f"{engine} pipelines"]
    kubectl("delete", "-k", str(folder), "--wait=false", "--ignore-not-found")  # a token goes with its account


def test_somebody_who_may_not_changes_nothing(site: Site, tmp_path: Path) -> None:
    kubectl = site.cluster.kubectl
    kubectl("create", "serviceaccount", "guest", "-n", site.namespace)
    guest = f"--serviceaccount={site.namespace}:guest"
    kubectl("create", "rolebinding", "guest", "--clusterrole=edit", guest, "-n", site.namespace)
    token = kubectl("create", "token", "guest", "-n", site.namespace).strip()
    config = kubectl.json("config", "view", "--flatten", "--minify")
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
    kubeconfig = tmp_path / "guest.json"
    kubeconfig.write_text(json.dumps(config))
    said = site.cli("install", "--engine", "argo", *site.words, env={"KUBECONFIG": str(kubeconfig)})
    assert said.code == 4
    assert "hint: " in said.err
    assert site.there() == set()
