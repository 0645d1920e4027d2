"""submit for a cluster, up to where the cluster is asked: names, refusals, what is pinned, the object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtkpipe.app.submit.lock import lock_name
from dtkpipe.app.submit.request import Named, run_name
from dtkpipe.engines.argo.proven import proven_object
from tests.fixtures.api import Answer, FakeApi, fake_api, refusal
from tests.fixtures.cli import Cli, Said
from tests.fixtures.keys import certificate, der, ec_key

COMMIT = "1" * 40
NONE = refusal(404, "NotFound", "not found", kind="x", name="x")


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as found:
        yield found


@pytest.fixture
def there(cli: Cli, api: FakeApi) -> Cli:
    """A command line that knows a cluster."""
    api.kubeconfig(cli.here / "kubeconfig")
    return cli


def submit(cli: Cli, *words: str, engine: str = "argo", env: dict[str, str] | None = None) -> Said:
    own = ["--engine", engine] if engine else []
    done = cli("submit", *own, *words, env={"KUBECONFIG": str(cli.here / "kubeconfig"), **(env or {})})
    assert "Traceback" not in done.err, done.err
    return done


def prebuild(*more: str, repo: str = "https://example.org/org/kmod", ref: str = COMMIT) -> list[str]:
    return ["--pipeline", "prebuild", "--release", "debian-12", "--repo", repo, "--ref", ref, "--push-to",
            "registry.example.org/org/kmod", *more]  # fmt: skip


def dry(cli: Cli, *words: str, engine: str = "argo") -> dict[str, Any]:
    done = submit(cli, *prebuild(*words), "--dry-run", "-o", "json", engine=engine)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_the_object_is_the_smallest(there: Cli, engine: str) -> None:
    run = dry(there, engine=engine)
    assert run["metadata"]["name"].startswith("kmod-debian-12-")
    assert run["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "dtkpipe"
    assert run["metadata"]["labels"]["dtkpipe.io/module"] == "kmod"
    if engine == "argo":
        assert sorted(run["spec"]) == ["arguments", "workflowTemplateRef"]
        assert proven_object(run) == run  # rendered without Hera, which agrees
    else:
        assert run["spec"]["pipelineRef"] == {"name": "prebuild"}


def test_the_name_is_a_function_of_the_inputs(there: Cli) -> None:
    name = dry(there)["metadata"]["name"]
    assert dry(there)["metadata"]["name"] == name
    assert dry(there, "--variant", "cloud")["metadata"]["name"] != name
    assert dry(there, "--builder", "kaniko")["metadata"]["name"] != name
    assert dry(there, "--builder", "kaniko")["spec"]["workflowTemplateRef"] == {"name": "prebuild-kaniko"}


def test_names_fit_into_labels() -> None:
    long = Named(module="m" * 80, commit="", params={"kernel": "6.12.0-211.28.1.el10_2.x86_64", "variant": "v" * 20})
    name, digest = run_name(long, "kmod")
    assert len(name) <= 63 - len("-x")
    assert name.endswith(digest[:8])
    assert len(lock_name("m" * 80, {"push-to": "r.example.org/x", "kernel": "k" * 80})) <= 63


def test_one_lock_for_one_target() -> None:
    same = {"push-to": "r.example.org/x", "kernel": "6.1.0-1-amd64"}
    assert lock_name("m", same) == lock_name("m", {**same, "ref": "other", "sign-cert": "x"})
    for other in ({**same, "kernel": "6.1.0-2-amd64"}, {**same, "push-to": "r.example.org/y"}, {**same, "arch": "x"}):
        assert lock_name("m", other) != lock_name("m", same)


@pytest.mark.parametrize(
    ("words", "flag", "instead"),
    [
        (["--sign-key", "k.pem"], "--sign-key", "kubectl create secret generic dtkpipe-signing-key"),
        (["--sign-passphrase-file", "p"], "--sign-passphrase-file", "--from-file=passphrase=FILE -n here"),
        (["--auth-file", "a"], "--auth-file", "kubectl create secret generic dtkpipe-registry"),
        (["--secret", "a=b"], "--secret", "kubectl create secret generic NAME"),
        (["--load-on-this-host"], "--load-on-this-host", "--engine local"),
        (["--from-step", "build"], "--from-step", "dtkpipe retry"),
        (["--keep"], "--keep", "dtkpipe logs"),
    ],
)  # fmt: skip
def test_flags_of_this_machine_are_refused(there: Cli, words: list[str], flag: str, instead: str) -> None:
    done = submit(there, *prebuild(*words))
    assert (done.code, f"{flag} is for runs on this machine" in done.err) == (2, True), done.err
    assert instead in done.err.split("hint: ")[1]


@pytest.mark.parametrize(
    "words", [["--namespace", "x"], ["--context", "one"], ["--on-conflict", "wait"], ["--timeout", "9"],
              ["--dry-run=server"], ["--builder", "kaniko"]],
)  # fmt: skip
def test_flags_of_clusters_are_refused_on_this_machine(there: Cli, words: list[str]) -> None:
    done = submit(there, *prebuild(*words), engine="local")
    assert (done.code, f"{words[0]} is for runs on a cluster" in done.err) == (2, True), done.err


@pytest.mark.parametrize("repo", ["./module", "/tmp/module", "module.tar.gz", "file:///tmp/module"])
def test_a_source_that_only_this_machine_has(there: Cli, repo: str) -> None:
    done = submit(there, *(word for word in prebuild(repo=repo, ref="") if word not in ("--ref", "")))
    assert (done.code, "a pod cannot read it" in done.err) == (2, True), done.err


def test_a_source_that_this_machine_cannot_read(there: Cli) -> None:
    """Then the run finds the commit: a cluster may see what we do not."""
    done = submit(there, *prebuild(repo="https://127.0.0.1:9/org/kmod", ref="v1"), "--dry-run", "-o", "json")
    assert done.code == 0, done.err
    assert "the run finds its commit; from here it cannot be read" in done.err
    assert {"name": "ref", "value": "v1"} in json.loads(done.out)["spec"]["arguments"]["parameters"]


def test_what_is_chosen_is_said_and_asked_for(there: Cli) -> None:
    words = [
        "--release=4.14",
        "--repo",
        "https://example.org/org/kmod",
        "--ref",
        COMMIT,
        "--push-to",
        "r.example.org/x",
    ]
    done = submit(there, *words, "--dry-run", "-o", "json")
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("release 4.14 is 4.14.")]
    version = line.split()[3].rstrip(":")
    assert {"name": "release", "value": version} in json.loads(done.out)["spec"]["arguments"]["parameters"]
    assert json.loads(done.out)["spec"]["workflowTemplateRef"] == {"name": "kmod"}


def test_settings_are_enough(there: Cli) -> None:
    (there.here / "dtkpipe.toml").write_text(
        'engine = "tekton"\nnamespace = "team"\npush-to = "registry.example.org/org/kmod"\n'
    )
    done = submit(there, "--release", "4.14", "--repo", "example.org/org/kmod", "--ref", COMMIT, "--dry-run",
                  "-o", "yaml", engine="")  # fmt: skip
    assert done.code == 0, done.err
    assert yaml.safe_load(done.out)["kind"] == "PipelineRun"
    done = submit(there, *prebuild("--sign-key", "x"), engine="", env={"DTKPIPE_NAMESPACE": "other"})
    assert "-n other" in done.err


def test_push_to_is_needed(there: Cli) -> None:
    done = submit(there, "--release", "4.14", "--repo", "example.org/org/kmod")
    assert (done.code, "--push-to" in done.err) == (2, True), done.err


def test_an_engine_is_found(there: Cli, api: FakeApi) -> None:
    api.give(NONE, Answer(200, {"kind": "Pipeline", "metadata": {"name": "prebuild"}}))
    done = submit(there, *prebuild("--dry-run"), engine="")
    assert (done.code, "engine tekton: pipeline prebuild is installed in namespace here" in done.err) == (0, True)
    assert [one.path.rpartition("/")[0].rpartition("/")[2] for one in api.asked] == ["workflowtemplates", "pipelines"]


def test_no_engine_on_the_cluster_is_this_machine(there: Cli, api: FakeApi) -> None:
    api.give(NONE)
    done = submit(there, *prebuild("--dry-run"), engine="")
    assert (done.code, "engine" in done.err) == (0, False), done.err
    done = submit(there, *prebuild("--dry-run", "--context", "one"), engine="")
    assert (done.code, "is not installed on the cluster for any engine" in done.err) == (5, True), done.err


@pytest.mark.parametrize(("answers", "code", "said", "hint"), [
    ([Answer(200, {"resources": [{"name": "pipelines"}]})], 5, "is not installed in namespace here",
     "dtkpipe install --engine tekton -n here"),
    ([NONE, NONE], 8, "Tekton is not on this cluster", "install Tekton (at least 1.9)"),
    ([NONE, Answer(200, {"versions": [{"version": "v1beta1"}]})], 8, "serves: v1beta1", "install Tekton"),
])  # fmt: skip
def test_what_is_not_there_says_how(
    there: Cli, api: FakeApi, answers: list[Answer], code: int, said: str, hint: str
) -> None:
    api.give(NONE, Answer(200, {"kind": "Namespace", "metadata": {"name": "here"}}), *answers)
    done = submit(there, *prebuild(), engine="tekton")
    assert (done.code, said in done.err, hint in done.err.split("hint: ")[1]) == (code, True, True), done.err


def test_another_builder_has_pipelines_of_its_own(there: Cli, api: FakeApi) -> None:
    found = Answer(200, {"resources": [{"name": "pipelines"}]})
    api.give(NONE, Answer(200, {"kind": "Namespace", "metadata": {"name": "here"}}), found)
    done = submit(there, *prebuild("--builder", "kaniko"), engine="tekton")
    assert "dtkpipe install --engine tekton -n here --builder kaniko" in done.err.split("hint: ")[1]


def test_a_word_that_is_no_engine(there: Cli) -> None:
    done = submit(there, *prebuild(), engine="tekon")
    assert (done.code, "did you mean `tekton`?" in done.err) == (2, True)
    done = submit(there, *prebuild("--builder", "kanico"))
    assert (done.code, "did you mean `kaniko`?" in done.err) == (5, True)


def test_a_key_without_its_secret(there: Cli, api: FakeApi, tmp_path: Path) -> None:
    cert = tmp_path / "cert.der"
    cert.write_bytes(der(certificate(ec_key())))
    template = {"kind": "WorkflowTemplate", "metadata": {"labels": {"app.kubernetes.io/version": "0.0.1"}}}
    api.give(Answer(200, template), NONE)
    done = submit(there, *prebuild("--sign-cert", str(cert)))
    assert (done.code, "there is no Secret dtkpipe-signing-key in namespace here" in done.err) == (5, True), done.err
    assert "is installed as of dtkpipe 0.0.1" in done.err
