"""Runs on a real cluster, on both engines with one grammar: list, describe, logs, wait, cancel, retry, delete.

All runs are started together, and each test looks at its own.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dtkpipe.app.clusters import ENGINES, Place
from dtkpipe.app.runs_on_cluster import ClusterRuns
from dtkpipe.clients.cluster import Object
from dtkpipe.values.run import RunCard
from tests.e2e.bench.many_runs import Counting
from tests.e2e.cluster.faults import Faults
from tests.e2e.cluster.target import Cluster
from tests.fixtures.cli import Cli, Said

PIPELINES = '''
from dtkpipe.model import InputRef, Pipeline, Resources, ResultPath, Rights, Secret, container, param
from dtkpipe.model import Param

DOES = """
echo "asked to $1"
case "$1" in
fail) printf 'it broke\\nhint: mend it' > "$3"; exit 10 ;;
sleep) sleep 600 ;;
eat) x=x; while :; do x=$x$x$x; done ;;
esac
printf bye > "$2"
"""
SMALL = Resources(cpu="10m", memory="16Mi", memory_limit="32Mi", scratch="64Mi")
TOKEN = Secret(name="api", param="api-secret", files=("token",), optional=False)
mode, value = param("mode", "what to do", "well")

def task(name, *argv, image="{busybox}", **more):
    return container(
        name, image=image, argv=argv, rights=Rights(root=True), resources=SMALL, **{{"timeout": 600, **more}}
    )

first = task(
    "first", "sh", "-c", 'printf hello > "$1"; echo first', "--", ResultPath("WORD"), results={{"WORD": "a word"}}
)
def small_one(name, seconds):
    second = task(
        "second", "sh", "-c", DOES, "--", InputRef("mode"), ResultPath("ANSWER"), ResultPath("CAUSE"),
        inputs={{"mode": value, "word": first.word}}, env={{"WORD": InputRef("word")}}, params=[mode],
        results={{"ANSWER": "a", "CAUSE": "why"}}, timeout=seconds,
    )
    return Pipeline(name, "Two tasks", tasks=(first, second), finally_=(task("last", "sh", "-c", "echo last"),))

small, brief = small_one("small", 600), small_one("brief", 30)
image = Pipeline("image", "An image that is not there", tasks=(task("only", "sh", image="{nowhere}", timeout=60),))
secret = Pipeline("secret", "A Secret that is not there", tasks=(task(
    "only", "sh", secrets=[TOKEN], params=[Param(name="api-secret", description="", default="not-there")], timeout=60,
),))
'''
STARTED = {"well": "small", "fail": "small", "sleep": "brief", "eat": "small", "image": "image", "secret": "secret"}


@dataclass(frozen=True)
class Site:
    """A namespace with runs, and the command line that looks at them."""

    cluster: Cluster
    cli: Cli
    namespace: str

    def __call__(self, *words: str) -> Said:
        return self.cli(*words, "-n", self.namespace, env=self.cluster.environ)

    def argv(self, *words: str) -> list[str]:
        return self.cli.argv(*words, "-n", self.namespace)

    def start(self, engine: str, pipeline: str, name: str, *words: str) -> None:
        """Create a run that carries its whole pipeline."""
        made = self.cli(
            "compile", "--engine", engine, "--pipeline", f"{self.cli.here}/pipelines.py:{pipeline}", "--as", "inline",
            "--run-name", name, *words,
        )  # fmt: skip
        assert made.code == 0, made.err
        self.cluster.kubectl("-n", self.namespace, "create", "-f", "-", stdin=made.out)

    def card(self, name: str, engine: str) -> RunCard:
        said = self("describe", name, "--engine", engine, "-o", "json")
        assert said.code == 0, said.err
        return RunCard.from_json(said.out)


@pytest.fixture(scope="module")
def site(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("runs")
    text = PIPELINES.format(busybox=cluster.busybox, nowhere=f"{cluster.registry}/no/such:1")
    (folder / "pipelines.py").write_text(text)
    one = Site(cluster, Cli(folder, folder / "home"), f"t-runs-{secrets.token_hex(3)}")
    # For its accounts alone: the runs here carry their pipelines, and run busybox.
    for engine in ENGINES:
        made = one("install", "--engine", engine, "--target-namespace", f"{one.namespace}-drivers")
        assert made.code == 0, made.err
    for engine in ENGINES:
        for case, pipeline in STARTED.items():
            one.start(
                engine,
                pipeline,
                f"{engine}-{case}",
                *(["-p", f"mode={case}"] if pipeline in ("small", "brief") else []),
            )
    yield one
    for engine in ENGINES:
        one("uninstall", "--engine", engine, "--target-namespace", f"{one.namespace}-drivers")
    for name in (one.namespace, f"{one.namespace}-drivers"):
        cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_goes_well(site: Site, engine: str) -> None:
    said = site("wait", f"{engine}-well", "-o", "name")
    assert (said.code, said.out) == (0, f"run/{engine}-well\n"), said.err
    card = site.card(f"{engine}-well", engine)
    assert (card.state, card.namespace, card.inputs["mode"]) == ("succeeded", site.namespace, "well")
    assert (card.result("first", "WORD"), card.result("second", "ANSWER")) == ("hello", "bye")
    assert all(0 < step.queued <= step.started <= step.finished for step in card.steps)
    logs = site("logs", f"{engine}-well")
    assert logs.out.splitlines() == ["[first] first", "[second] asked to well", "[last] last"]
    assert f"run {engine}-well: {ENGINES[engine].title} in namespace {site.namespace}" in logs.err
    assert site("logs", f"{engine}-well", "-t", "first", "--no-prefix", "-f").out == "first\n"


@pytest.mark.core
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_fails_says_why_and_is_tried_again(site: Site, engine: str) -> None:
    name = f"{engine}-fail"
    said = site("wait", name, "--engine", engine)
    assert said.code == 10
    assert f"error: run {name} failed: second: it broke\n" in said.err
    assert "hint: mend it" in said.err
    assert site("logs", name, "--failed", "--no-prefix").out.splitlines()[0] == "asked to fail"
    again = site("retry", name, "--from-failed", "-o", "json")
    assert again.code == 0, again.err
    assert f"taken over from {name}: first\n" in again.err
    made = RunCard.from_json(again.out)
    assert site("wait", made.name).code == 10
    card = site.card(made.name, engine)
    assert [(step.name, step.state, step.reused) for step in card.steps] == [
        ("first", "succeeded", True), ("second", "failed", False), ("last", "succeeded", False),
    ]  # fmt: skip
    assert card.result("first", "WORD") == "hello"
    assert site("delete", made.name).out == f"run/{made.name} deleted\n"
    assert site("describe", made.name).code == 5


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_is_cancelled(site: Site, engine: str) -> None:
    name = f"{engine}-cancel"
    site.start(engine, "small", name, "-p", "mode=sleep")
    late = site("wait", name, "--timeout", "2")
    assert (late.code, late.out) == (12, "")
    assert site("retry", name).code == 2
    assert site("delete", name).code == 2
    assert site("cancel", name).out == f"run/{name} cancelled\n"
    assert site("wait", name).code == 11
    assert site("cancel", name).out == f"run/{name} has ended: cancelled\n"
    assert site.card(name, engine).cause == "somebody cancelled it"
    again = site("retry", name, "--from-failed")
    assert f"next: dtkpipe wait {name}-2 -n {site.namespace}" in again.err
    late = site("wait", f"{name}-2", "--timeout", "5")
    assert (late.code, late.out) == (12, ""), "what was cancelled is not what is tried again"
    assert site("cancel", f"{name}-2").code == 0


@pytest.mark.parametrize(
    ("case", "cause", "code"),
    [
        ("sleep", "second: did not end within its time", 12),
        ("eat", "second: out of memory: it may use 32Mi", 10),
        ("image", "/no/such:1 cannot be pulled: ", None),
        ("secret", 'its pod cannot start: MountVolume.SetUp failed for volume "secret-api" : secret "not-there"', 12),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_causes_that_no_log_tells(site: Site, engine: str, case: str, cause: str, code: int | None) -> None:
    said = site("wait", f"{engine}-{case}", "--engine", engine)
    assert said.code in ((10, 12) if code is None else (code,)), said.err
    assert cause in site.card(f"{engine}-{case}", engine).cause


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_somebody_deletes_while_it_is_waited_for(site: Site, engine: str) -> None:
    name = f"{engine}-deleted"
    site.start(engine, "small", name, "-p", "mode=sleep")
    environ = site.cli.environ(site.cluster.environ)
    with subprocess.Popen(site.argv("wait", name), stderr=subprocess.PIPE, text=True, env=environ) as waiting:
        assert waiting.stderr
        assert waiting.stderr.readline().startswith(f"run {name}: ")  # it has found the run, and waits
        site.cluster.wait("a pod of the run", lambda: _pods(site, engine, name), seconds=300)
        site.cluster.kubectl("-n", site.namespace, "delete", ENGINES[engine].runs.words, name)
        _, said = waiting.communicate(timeout=120)
    assert waiting.returncode == 12
    assert f"run {name} was deleted while it was waited for" in said


@pytest.mark.parametrize("engine", ENGINES)
def test_logs_of_pods_that_are_gone(site: Site, engine: str) -> None:
    name = f"{engine}-gone"
    site.start(engine, "small", name)
    assert site("wait", name).code == 0
    site.cluster.kubectl("-n", site.namespace, "delete", "pod", "-l", ENGINES[engine].selector(name))
    said = site("logs", name)
    assert (said.code, said.out) == (5, "")
    assert "is gone, and its log with it" in said.err
    assert site.card(name, engine).result("first", "WORD") == "hello"


@pytest.mark.parametrize("engine", ENGINES)
def test_logs_are_followed_as_they_are_written(site: Site, engine: str) -> None:
    name = f"{engine}-follow"
    site.start(engine, "small", name)
    said = site("logs", name, "-f")
    assert (said.code, said.out.splitlines()) == (0, ["[first] first", "[second] asked to well", "[last] last"])
    assert f"run {name} succeeded" in said.err


def test_lists_are_of_both_engines_and_ask_little(site: Site) -> None:
    assert site("wait", "argo-well").code == site("wait", "tekton-well").code == 0
    rows = [line.split() for line in site("list").out.splitlines()]
    assert {("argo-well", "argo", "succeeded"), ("tekton-well", "tekton", "succeeded")} <= {
        (row[0], row[1], row[2]) for row in rows
    }
    alone = json.loads(site("list", "-e", "tekton", "-o", "json", "--limit", "2").out)
    assert [card["engine"] for card in alone] == ["tekton"] * 2
    for engine in ENGINES.values():
        client = Counting(site.cluster.kubeconfig)
        assert ClusterRuns(Place(client, site.namespace), engine).all(50)
        assert client.asked <= 4, "one is for those that were made by hand"


def test_names_that_are_not_there(site: Site) -> None:
    said = site("describe", "argo-wel")
    assert said.code == 5
    assert "hint: did you mean `argo-well`?" in said.err
    assert site("logs", "argo-well", "-t", "secnod").code == 5
    assert site("list", "--engine", "argoo").code == 2


def test_waiting_survives_a_restart_of_the_api_server(site: Site, faults: Faults) -> None:
    site.start("tekton", "small", "tekton-patient", "-p", "mode=sleep")
    environ = site.cli.environ(site.cluster.environ)
    with subprocess.Popen(
        site.argv("wait", "tekton-patient"), stderr=subprocess.PIPE, text=True, env=environ
    ) as waiting:
        site.cluster.wait("a pod of the run", lambda: _pods(site, "tekton", "tekton-patient"), 300)
        with faults.without("apiserver"):
            assert waiting.poll() is None
        assert site("cancel", "tekton-patient").code == 0
        waiting.communicate(timeout=180)
    assert waiting.returncode == 11


def _pods(site: Site, engine: str, name: str) -> list[Object]:
    label = ENGINES[engine].selector(name)
    found: list[Object] = site.cluster.kubectl.json("-n", site.namespace, "get", "pods", "-l", label)["items"]
    return [pod for pod in found if pod["status"].get("phase") == "Running"]
