"""install without a cluster: what it would apply, the table of rights, and which versions are old enough to refuse."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from dtkpipe.app.clusters import ENGINES
from dtkpipe.app.compile import Wanted, compile_pipeline
from dtkpipe.app.pipelines import load, names
from dtkpipe.app.versions import check, engine_version, reaches
from dtkpipe.builders import BUILDERS, CAPABILITIES, with_builder
from dtkpipe.clients.cluster import Resource, resource_of
from dtkpipe.engines import rbac
from dtkpipe.engines.rendered import Form
from dtkpipe.engines.rights import ACCOUNTS, BELL, CALLERS, EXECUTOR, PEOPLE, PLANNER, SEEN, TOKENLESS, WATCHER
from dtkpipe.errors import NotAllowedError, UnsupportedError
from tests.fixtures.cli import Cli

# Pod Security Standards, `baseline`: capabilities that a container may add.
BASELINE = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_what_would_be_applied_needs_no_cluster(cli: Cli, engine: str) -> None:
    nowhere = {"KUBECONFIG": "", "HOME": str(cli.home)}
    said = cli("install", "-e", engine, "--dry-run=client", "-o", "yaml", "--target-namespace", "d", env=nowhere)
    assert said.code == 0, said.err
    objects = list(yaml.safe_load_all(said.out))
    assert [one["metadata"]["name"] for one in objects[:2]] == ["dtkpipe", "d"]
    for one in objects:
        kind = resource_of(one)
        assert bool(one["metadata"].get("namespace")) == kind.namespaced, one["metadata"]["name"]
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "dtkpipe"
    assert '"d"' in json.dumps([one for one in objects if one["kind"] in ("WorkflowTemplate", "Pipeline")])


@pytest.mark.parametrize("name", names())
def test_only_tasks_that_ask_the_cluster_get_a_token(name: str) -> None:
    asks = {task.name for task in load(name).all_tasks if task.rights.service_account not in TOKENLESS}
    assert asks == ({"deploy", "smoke-test", "rollback"} if name == "kmod" else set())
    given = {
        "repo": "https://git.example/a",
        "push-to": "r.example/a",
        "release": "debian-12",
        "image": "r.example/a:b",
    }
    params = {one.name: given[one.name] for one in load(name).params if one.name in given}
    (template,) = compile_pipeline(load(name), Wanted(engine="argo", params={})).objects
    assert {
        one["name"] for one in template["spec"]["templates"] if one.get("automountServiceAccountToken", True)
    } == asks | {"pipeline"}
    assert template["spec"]["executor"] == {"serviceAccountName": EXECUTOR}
    (run,) = compile_pipeline(load(name), Wanted(engine="tekton", form=Form.RUN, params=params)).objects
    assert not run["spec"]["taskRunTemplate"]["podTemplate"]["automountServiceAccountToken"]
    assert {
        one["pipelineTaskName"]
        for one in run["spec"].get("taskRunSpecs", ())
        if one.get("podTemplate", {}).get("automountServiceAccountToken")
    } == asks


@pytest.mark.parametrize(("words", "code", "text"), [
    (["install", "-e", "jenkins"], 2, "engines: argo, tekton"),
    (["install", "-e", "argo", "--runner-image", "quay.io/x/y:latest", "--dry-run=client"], 6, "another one tomorrow"),
    (["install", "-e", "argo", "--kubeconfig", "no-such-file"], 6, "no-such-file"),
    (["uninstall", "-e", "argo", "--dry-run=client"], 2, "--dry-run=server"),
    (["doctor", "--for", "cluster,build"], 2, "--for cluster"),
    (["doctor", "--for", "cluster", "--fix"], 2, "--for cluster"),
    (["doctor", "--engine", "argo"], 2, "--for cluster"),
])  # fmt: skip
def test_what_is_asked_wrongly(cli: Cli, words: list[str], code: int, text: str) -> None:
    said = cli(*words, env={"KUBECONFIG": "", "HOME": str(cli.home)})
    assert said.code == code, said.err
    assert text in said.err


def test_tasks_use_accounts_of_the_table_and_all_of_them() -> None:
    pipelines = [with_builder(load(name), builder) for name in names() for builder in BUILDERS]
    tasks = [task for pipeline in pipelines for task in pipeline.all_tasks]
    used = {task.rights.service_account for task in tasks}
    others = {EXECUTOR, PLANNER, WATCHER, BELL, *CALLERS.values()}
    assert used | others == {one.name for one in ACCOUNTS if one.tasks}
    assert not others & used
    rooted = {
        task.rights.service_account for task in tasks for one in task.programs if (one.rights or task.rights).root
    }
    assert rooted == {"dtkpipe-build"}
    added = {name for task in tasks for one in task.programs for name in (one.rights or task.rights).capabilities}
    assert added == set(CAPABILITIES) <= BASELINE


def test_only_deploy_writes_only_the_planner_makes_runs_and_no_account_sees_secrets() -> None:
    writes = ("create", "update", "patch", "delete")
    for account in ACCOUNTS:
        changed = {one.resource for one in account.rights if set(one.verbs) & set(writes)}
        changed -= {"pods/exec"}
        if account.name == PLANNER:
            runs = {"workflows.argoproj.io", "pipelineruns.tekton.dev"}
            assert changed == {*runs, "leases.coordination.k8s.io", "configmaps"}
            assert [one.name for one in account.rights if one.resource == "configmaps"] == [SEEN], "and no other"
            others = [one for one in account.rights if "leases" not in one.resource and not one.name]
            verbs = {verb for one in others for verb in one.verbs}
            assert not verbs & {"update", "patch", "delete"}, "it makes runs, and changes and ends none"
            continue
        if account.name == WATCHER:
            made = {
                one.resource: set(one.verbs) & set(writes) for one in account.rights if set(one.verbs) & set(writes)
            }
            bells = {"leases.coordination.k8s.io": {"delete"}, "workflows.argoproj.io": {"delete"}}
            assert made == {"jobs.batch": {"create"}, **bells}, "it starts planners, and switches bells off"
            continue
        if account.name in (BELL, *CALLERS.values()):
            rings = {one.resource: one.verbs for one in account.rights if one.resource in changed}
            bell = "leases.coordination.k8s.io" if account.name == BELL else "workflows.argoproj.io"
            assert rings == {bell: ("create",)}
            continue
        assert not changed or account.name in ("dtkpipe-deploy", EXECUTOR)
        assert not [one for one in account.rights if "secrets" in one.resource or "*" in (*one.verbs, one.resource)]
    assert all(one.why for account in ACCOUNTS for one in account.rights)
    assert all(one.why for one in PEOPLE)


def test_both_engines_in_one_namespace_give_what_they_share_alike() -> None:
    def by_name(engine: str) -> dict[tuple[str, str, str], object]:
        made = rbac.objects(engine, "team", "drivers")
        return {(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one for one in made}

    argo, tekton = by_name("argo"), by_name("tekton")
    assert {name for name in argo.keys() & tekton.keys() if argo[name] != tekton[name]} == set()


def test_two_installations_in_one_drivers_namespace_do_not_meet() -> None:
    def keys(namespace: str) -> set[tuple[str, str]]:
        made = rbac.objects("argo", namespace, "drivers")
        return {(one["kind"], one["metadata"]["name"]) for one in made if one["metadata"].get("namespace") != namespace}

    shared = {name for _, name in keys("a") & keys("b")}
    assert shared == {"dtkpipe-driver", "dtkpipe-driver-privileged"}


@pytest.mark.parametrize(("version", "floor", "will_do"), [
    ("v4.0.7", "3.7.16 or 4.0.7", True),
    ("v4.0.6", "3.7.16 or 4.0.7", False),
    ("v3.7.16", "3.7.16 or 4.0.7", True),
    ("v3.7.15", "3.7.16 or 4.0.7", False),
    ("v3.6.20", "3.7.16 or 4.0.7", False),
    ("v5.0.0", "3.7.16 or 4.0.7", True),
    ("v1.10.0", "1.9", True),
    ("v0.68.0", "1.9", False),
    ("v1.29.4+k3s1", "1.29", True),
    ("v1.28.15-gke.100", "1.29", False),
    ("", "1.9", True),
])  # fmt: skip
def test_floors(version: str, floor: str, will_do: bool) -> None:
    assert reaches(version, floor) is will_do


@dataclass
class Answers:
    """What a cluster says of its versions."""

    kubernetes: str = "v1.34.1"
    apis: dict[str, set[str]] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    deployments: list[dict[str, Any]] = field(default_factory=list)
    configured: dict[str, str] = field(default_factory=dict)
    refuses: bool = False
    host: str = "https://cluster"

    def version(self) -> str:
        return self.kubernetes

    def served(self, api: str) -> set[str]:
        return self.apis.get(api, set())

    def versions(self, group: str) -> tuple[str, ...]:
        return self.groups.get(group, ())

    def find(self, resource: Resource, name: str, namespace: str) -> dict[str, Any] | None:
        return {"data": {"version": self.configured[namespace]}} if namespace in self.configured else None

    def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[dict[str, Any]]:
        if self.refuses:
            raise NotAllowedError("no")
        return self.deployments


def deployment(image: str) -> dict[str, Any]:
    spec = {"template": {"spec": {"containers": [{"image": image}]}}}
    return {"metadata": {"name": "controller", "namespace": "there"}, "spec": spec}


ARGO = {"argoproj.io/v1alpha1": {"workflows", "workflowtemplates"}}
TEKTON = {"tekton.dev/v1": {"pipelines", "pipelineruns", "tasks", "taskruns"}}


@pytest.mark.parametrize(("answers", "engine", "text"), [
    (Answers(kubernetes="v1.28.9"), "argo", "Kubernetes v1.28.9 is too old"),
    (Answers(), "argo", "it knows nothing of argoproj.io"),
    (Answers(groups={"tekton.dev": ("v1beta1",)}), "tekton", "it serves tekton.dev/v1beta1"),
    (Answers(apis=ARGO, deployments=[deployment("quay.io/argoproj/controller:v3.5.4")]), "argo", "v3.5.4 is too old"),
    (Answers(apis=TEKTON, configured={"tekton-pipelines": "v0.68.0"}), "tekton", "v0.68.0 is too old"),
    (Answers(apis=TEKTON, configured={"openshift-pipelines": "v1.6.0"}), "tekton", "v1.6.0 is too old"),
])  # fmt: skip
def test_clusters_that_are_refused(answers: Any, engine: str, text: str) -> None:
    with pytest.raises(UnsupportedError) as refused:
        check(answers, ENGINES[engine])
    assert text in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize("answers", [
    Answers(apis=ARGO, refuses=True),
    Answers(apis=ARGO, deployments=[deployment("registry.example/argo@sha256:" + "0" * 64)]),
    Answers(apis=ARGO),
])  # fmt: skip
def test_a_version_that_cannot_be_told_is_said_to_be_unknown(answers: Any) -> None:
    assert engine_version(answers, ENGINES["argo"]).version == ""
    assert "unknown" in str(check(answers, ENGINES["argo"])[1])


def test_development_builds_of_tekton_are_known_by_their_image() -> None:
    answers: Any = Answers(
        apis=TEKTON, configured={"tekton-pipelines": "devel"},
        deployments=[deployment("ghcr.io/tektoncd/pipeline/controller-10a3:v1.15.0@sha256:" + "0" * 64)],
    )  # fmt: skip
    assert engine_version(answers, ENGINES["tekton"]).version == "v1.15.0"
