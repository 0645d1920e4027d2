"""submit on a real cluster, both engines, with a pipeline of two tiny tasks."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.app.clusters import ENGINES
from tests.e2e.cluster.faults import Faults
from tests.e2e.cluster.target import Cluster
from tests.fixtures.cli import Cli, Said

PIPELINE = """\
from dtkpipe.model import InputRef, Pipeline, ResultPath, Rights, container, param

what, value = param("what", "What the second task does", "true")
push, to = param("push-to", "What is locked", "")
one = container(
    "one", image={image!r}, rights=Rights(root=True), results={{"TAGS": "t"}},
    argv=("/bin/busybox", "sh", "-c", 'echo from one; echo -n of-one > "$1"', "sh", ResultPath("TAGS")),
)
two = container(
    "two", image={image!r}, rights=Rights(root=True), inputs={{"in": one.TAGS, "what": value, "to": to}},
    argv=("/bin/busybox", "sh", "-c", 'echo "got $2"; eval "$3"', "sh", "--", InputRef("in"), InputRef("what")),
    env={{"TO": InputRef("to")}}, params=(what, push),
)
mine = Pipeline("mine", "Two tasks", tasks=(one, two))
"""
both = pytest.mark.parametrize("engine", list(ENGINES))


@dataclass(frozen=True)
class Site:
    """A namespace with the pipeline `mine` for both engines. Every test has a target of its own."""

    cluster: Cluster
    namespace: str
    cli: Cli
    target: str = field(default_factory=lambda: f"registry.example.org/{secrets.token_hex(4)}")

    def words(self, what: str, *more: str, engine: str = "argo") -> list[str]:
        own = ["--engine", engine] if engine else []
        return ["submit", *own, "-n", self.namespace, "--pipeline", "mine.py", "-p", f"what={what}",
                "--push-to", self.target, *more]  # fmt: skip

    def submit(self, what: str, *more: str, engine: str = "argo", env: Mapping[str, str] | None = None) -> Said:
        said = self.cli(*self.words(what, *more, engine=engine), env={**self.cluster.environ, **(env or {})})
        assert "Traceback" not in said.err, said.err
        return said

    def start(self, what: str, *more: str, engine: str = "argo") -> subprocess.Popen[str]:
        return subprocess.Popen(
            # What a shell puts into its background ignores SIGINT, and so does what that starts.
            ["env", "--default-signal=INT", *self.cli.argv(*self.words(what, *more, engine=engine))],
            cwd=self.cli.here, text=True, env=self.cli.environ(self.cluster.environ), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def card(self, what: str, *more: str, engine: str = "argo") -> dict[str, Any]:
        """Submit, wait, and return the card."""
        said = self.submit(what, "--wait", "-o", "json", *more, engine=engine)
        assert said.out.startswith("{"), said.err
        found: dict[str, Any] = json.loads(said.out)
        return found

    def name(self, what: str, engine: str = "argo") -> str:
        said = self.submit(what, "--dry-run=client", "-o", "name", engine=engine)
        return said.out.strip().removeprefix("run/")

    def runs(self, engine: str = "argo") -> list[dict[str, Any]]:
        """The runs for the test's own target."""
        words = ENGINES[engine].runs.words
        items = self.cluster.kubectl.json("get", words, "-n", self.namespace)["items"]
        return [one for one in items if self.target in json.dumps(one["spec"])]

    def leases(self) -> list[dict[str, Any]]:
        """The Leases that are held by runs for the test's own target."""
        holders = [f"{engine}/{run['metadata']['name']}" for engine in ENGINES for run in self.runs(engine)]
        items = self.cluster.kubectl.json("get", "leases", "-n", self.namespace)["items"]
        return [one for one in items if one["spec"]["holderIdentity"] in holders]


@pytest.fixture(scope="module")
def place(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Cli]]:
    """A namespace with everything installed, and a folder with the pipeline."""
    folder, name = tmp_path_factory.mktemp("submit"), f"t-{secrets.token_hex(4)}"
    (folder / "here").mkdir()
    cli = Cli(folder / "here", folder / "home")
    (cli.here / "mine.py").write_text(PIPELINE.format(image=cluster.busybox))
    cluster.kubectl("create", "namespace", name)
    for engine in ENGINES:
        words = ["-n", name, "--target-namespace", f"{name}-drivers"]
        assert cli("install", "--engine", engine, *words, env=cluster.environ).code == 0
        compiled = cli("compile", "--engine", engine, "--pipeline", "mine.py")
        assert compiled.code == 0, compiled.err
        cluster.kubectl("apply", "-n", name, "-f", "-", stdin=compiled.out)
    yield name, cli
    for engine in ENGINES:
        cli("uninstall", "--engine", engine, "-n", name, "--target-namespace", f"{name}-drivers", env=cluster.environ)
    cluster.kubectl("delete", "namespace", name, f"{name}-drivers", "--wait=false", "--ignore-not-found")


@pytest.fixture
def site(cluster: Cluster, place: tuple[str, Cli]) -> Site:
    return Site(cluster, *place)


@pytest.mark.core
@both
def test_a_run_is_followed_to_its_end(site: Site, engine: str) -> None:
    said = site.submit("echo from two; exit 3", "--follow", engine=engine)
    assert said.code == 10, said.err
    assert "[one] from one" in said.err
    assert "[two] from two" in said.err
    lines = said.err.splitlines()
    assert [line.split()[1:3] for line in lines if " succeeded " in line or " failed " in line][:2] == [
        ["one", "succeeded"], ["two", "failed"]
    ]  # fmt: skip
    assert "argo=true" not in said.err
    assert f"error: run {site.name('echo from two; exit 3', engine)} failed: two: ended with exit code 3" in said.err
    again = site.submit("echo from two; exit 3", engine=engine)
    assert (again.code, "is there already: failed" in again.out) == (0, True)
    assert "submit with --force" in again.err


@pytest.mark.core
@both
def test_twenty_at_once_are_one_run(site: Site, engine: str) -> None:
    with ThreadPoolExecutor(20) as pool:
        said = list(pool.map(lambda _: site.submit("sleep 1", engine=engine), range(20)))
    assert {one.code for one in said} == {0}, [one.err for one in said if one.code]
    assert sum(" created" in one.out for one in said) == 1
    (run,) = site.runs(engine)
    (lease,) = site.leases()
    assert lease["spec"]["holderIdentity"] == f"{engine}/{run['metadata']['name']}"
    (owner,) = lease["metadata"]["ownerReferences"]
    assert owner["uid"] == run["metadata"]["uid"]


@both
def test_who_is_killed_submits_again(site: Site, engine: str) -> None:
    process = site.start("true", "--wait", engine=engine)
    site.cluster.wait("there is a run", lambda: site.runs(engine))
    process.kill()
    process.communicate()
    assert site.card("true", engine=engine)["state"] == "succeeded"
    (run,) = site.runs(engine)
    (lease,) = site.leases()
    assert [one["uid"] for one in lease["metadata"].get("ownerReferences", ())] in ([], [run["metadata"]["uid"]])


def test_force_is_another_run(site: Site) -> None:
    first = site.card("true")
    other = site.card("true", "--force")
    assert other["name"] == f"{first['name']}-2"
    assert len(site.runs()) == 2


@both
def test_a_lease_goes_with_its_run(site: Site, engine: str) -> None:
    card = site.card("true", engine=engine)
    (lease,) = site.leases()
    name = lease["metadata"]["name"]
    site.cluster.kubectl("delete", ENGINES[engine].runs.words, card["name"], "-n", site.namespace)
    there = lambda: site.cluster.kubectl("get", "lease", name, "-n", site.namespace, "--ignore-not-found", "-o", "name")  # noqa: E731
    site.cluster.wait("the Lease is gone", lambda: not there())


def test_another_run_for_the_same_target_waits(site: Site) -> None:
    """Across engines: what counts is where the images go."""
    site.submit("sleep 8", engine="argo")
    refused = site.submit("true", "--on-conflict", "fail", engine="tekton")
    assert (refused.code, "is at work for the same module and target" in refused.err) == (6, True), refused.err
    late = site.submit("true", "--timeout", "1", engine="tekton")
    assert (late.code, "the time to wait is over" in late.err) == (12, True), late.err
    assert not site.runs("tekton")
    second = site.card("true", engine="tekton")
    first = site.card("sleep 8", engine="argo")
    assert (first["state"], second["state"]) == ("succeeded", "succeeded")
    assert second["created"] >= first["finished"] - 1


@both
def test_another_run_takes_the_place_of_the_first(site: Site, engine: str) -> None:
    site.submit("sleep 60", engine=engine)
    second = site.card("true", "--on-conflict", "supersede", engine=engine)
    assert second["state"] == "succeeded"
    said = site.submit("sleep 60", "--wait", "-o", "json", engine=engine)
    assert (said.code, json.loads(said.out)["state"]) == (11, "cancelled"), said.err


def test_a_holder_that_never_came_is_replaced(site: Site) -> None:
    card = site.card("true")
    (lease,) = site.leases()
    name = lease["metadata"]["name"]
    site.cluster.kubectl("delete", "workflows", card["name"], "-n", site.namespace)
    labels = {"app.kubernetes.io/managed-by": "dtkpipe"}
    for lost, when in ((name, "2999-01-01T00:00:00.000000Z"), (f"{name}-old", "2020-01-01T00:00:00.000000Z")):
        made = {
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": lost, "labels": labels},
            "spec": {"holderIdentity": "argo/never-was", "acquireTime": when},
        }  # fmt: skip
        site.cluster.wait("the Lease of the run is gone", lambda made=made: _apply(site, made))
    assert site.card("echo again")["state"] == "succeeded"
    names = [
        one["metadata"]["name"] for one in site.cluster.kubectl.json("get", "leases", "-n", site.namespace)["items"]
    ]
    assert f"{name}-old" not in names


def _apply(site: Site, one: dict[str, Any]) -> bool:
    try:
        site.cluster.kubectl("create", "-n", site.namespace, "-f", "-", stdin=json.dumps(one))
    except RuntimeError as error:
        if "already exists" not in str(error):
            raise
        return False
    return True


@both
def test_a_name_that_is_taken_by_something_else(site: Site, engine: str) -> None:
    name = site.name("echo taken", engine)
    run = json.loads(site.submit("echo other", "--dry-run=client", "-o", "json", engine=engine).out)
    run["metadata"]["name"] = name
    site.cluster.kubectl("create", "-n", site.namespace, "-f", "-", stdin=json.dumps(run))
    said = site.submit("echo taken", engine=engine)
    assert (said.code, "is not the run that was asked for" in said.err) == (6, True), said.err
    assert site.submit("echo taken", "--force", engine=engine).out.strip() == f"run/{name}-2 created"


@both
def test_a_quota_that_is_used_up(site: Site, engine: str) -> None:
    words = ENGINES[engine].runs.words
    site.cluster.kubectl("create", "quota", f"no-{engine}", f"--hard=count/{words}=0", "-n", site.namespace)
    try:
        site.cluster.wait("the quota counts", lambda: _counts(site, f"no-{engine}"))
        said = site.submit("echo quota", engine=engine)
        assert (said.code, "the quota of namespace" in said.err) == (4, True), said.err
        assert not site.runs(engine)
        assert not _held(site), "a Lease of a run that could not be made is given back"
    finally:
        site.cluster.kubectl("delete", "quota", f"no-{engine}", "-n", site.namespace)


def _counts(site: Site, name: str) -> bool:
    return "hard" in site.cluster.kubectl.json("get", "quota", name, "-n", site.namespace).get("status", {})


def _held(site: Site) -> list[str]:
    items = site.cluster.kubectl.json("get", "leases", "-n", site.namespace)["items"]
    return [one["metadata"]["name"] for one in items if not one["metadata"].get("ownerReferences")]


def test_an_admission_policy_that_refuses(site: Site) -> None:
    name = f"no-runs-{site.namespace}"
    rule = {"apiGroups": ["argoproj.io"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["workflows"]}
    only = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": site.namespace}}}
    api = "admissionregistration.k8s.io/v1"
    policy = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false", "message": "no!"}]}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": only}
    objects = [
        {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, spec in (("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", binding))
    ]
    site.cluster.kubectl("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, objects)))
    try:
        said = site.cluster.wait("the policy is in force", lambda: _refused(site))
        assert (said.code, f"the admission policy {name} refuses" in said.err, "no!" in said.err) == (6, True, True)
    finally:
        site.cluster.kubectl("delete", "-f", "-", stdin="\n---\n".join(map(json.dumps, objects)))


def _refused(site: Site) -> Said | None:
    said = site.submit("echo policy", "--dry-run=server")
    return said if said.code else None


@both
def test_a_dry_run_on_the_server_makes_nothing(site: Site, engine: str) -> None:
    said = site.submit("echo dry", "--dry-run=server", "-o", "json", engine=engine)
    assert (said.code, "the cluster takes it" in said.err) == (0, True), said.err
    assert json.loads(said.out)["kind"] == ENGINES[engine].runs.kind
    assert not site.runs(engine)
    assert not _held(site)


def test_rights_that_are_missing_are_named(site: Site, tmp_path: Path) -> None:
    site.cluster.kubectl("create", "serviceaccount", "reader", "-n", site.namespace)
    rights = ["--verb=get", "--resource=workflows.argoproj.io,workflowtemplates.argoproj.io,leases.coordination.k8s.io"]
    site.cluster.kubectl("create", "role", "reader", *rights, "-n", site.namespace)
    who = f"--serviceaccount={site.namespace}:reader"
    site.cluster.kubectl("create", "rolebinding", "reader", "--role=reader", who, "-n", site.namespace)
    token = site.cluster.kubectl("create", "token", "reader", "-n", site.namespace).strip()
    config = site.cluster.kubectl.json("config", "view", "--raw", "--minify")
    for user, code, words in (
        ({"token": token}, 4, "you are not allowed to create leases.coordination.k8s.io/"),
        ({"token": "wrong"}, 4, "the cluster does not know you"),
    ):
        config["users"][0]["user"] = user
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        said = site.submit("echo rights", "--kubeconfig", str(tmp_path / "kubeconfig"))
        assert (said.code, words in said.err, token in said.err) == (code, True, False), said.err


def test_a_namespace_that_is_going(site: Site) -> None:
    name = f"{site.namespace}-goes"
    site.cluster.kubectl("create", "namespace", name)
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.org/held"]}}
    site.cluster.kubectl("create", "-n", name, "-f", "-", stdin=json.dumps(held))
    site.cluster.kubectl("delete", "namespace", name, "--wait=false")
    try:
        said = site.cli("submit", "--engine", "argo", "--pipeline", "mine.py", "-n", name, env=site.cluster.environ)
        assert (said.code, f"namespace {name} is being deleted" in said.err) == (4, True), said.err
    finally:
        site.cluster.kubectl("patch", "configmap", "held", "-n", name, "-p", '{"metadata":{"finalizers":null}}')
    said = site.cli("submit", "--engine", "argo", "--pipeline", "mine.py", "-n", f"{name}-2", env=site.cluster.environ)
    assert (said.code, f"there is no namespace `{name}-2`" in said.err) == (5, True), said.err


def test_the_engine_is_found_and_old_templates_are_said(site: Site) -> None:
    old = ["label", "workflowtemplate", "mine", "-n", site.namespace, "--overwrite"]
    site.cluster.kubectl(*old, "app.kubernetes.io/version=0.0.1")
    said = site.submit("true", engine="")
    assert said.code == 0, said.err
    assert f"engine argo: pipeline mine is installed in namespace {site.namespace}" in said.err
    assert "is installed as of dtkpipe 0.0.1" in said.err


@both
def test_ctrl_c_detaches(site: Site, engine: str) -> None:
    process = site.start("sleep 5", "--follow", engine=engine)
    site.cluster.wait("there is a run", lambda: site.runs(engine))
    time.sleep(2)  # it may be about to say so
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    name = site.name("sleep 5", engine)
    assert process.returncode == 130, err
    assert f"run {name} goes on; dtkpipe logs -f {name} -n {site.namespace}; dtkpipe cancel {name}" in err
    assert site.card("sleep 5", engine=engine)["state"] == "succeeded"


@both
def test_following_outlives_the_api_server(site: Site, engine: str, faults: Faults) -> None:
    process = site.start("for i in 1 2 3 4 5 6 7 8 9; do echo tick $i; sleep 2; done", "--follow", engine=engine)
    site.cluster.wait("there is a run", lambda: site.runs(engine))
    with faults.without("apiserver"):
        time.sleep(8)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert [line for line in err.splitlines() if "[two] tick" in line] == [f"[two] tick {i}" for i in range(1, 10)]
