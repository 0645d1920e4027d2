"""compile --dir: a folder that Argo CD, Flux and kubectl take as it is, and that is left alone when nothing changes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtkpipe.app.clusters import ENGINES
from dtkpipe.app.compile import name_of
from dtkpipe.app.install import Installation
from dtkpipe.app.layout import write
from dtkpipe.clients.cluster import resource_of
from dtkpipe.engines.installed import KUSTOMIZATION
from dtkpipe.engines.rights import ACCOUNTS
from dtkpipe.errors import ExistsError
from tests.fixtures.cli import Cli, Said
from tests.validators import judge, program

JUDGED = {"WorkflowTemplate", "Pipeline", "Task"}
_ACCOUNT = "kubernetes.io/service-account.name"


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def compiled(cli: Cli, engine: str, *more: str) -> Said:
    return cli("compile", "-e", engine, "-n", "team-a", "--dir", "deploy", *more, env={"HOME": str(cli.home)})


def held(folder: Path) -> dict[str, tuple[str, int]]:
    """What is in a folder: text, and when it was written."""
    return {path.name: (path.read_text(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


def objects(folder: Path) -> list[dict[str, Any]]:
    """What kustomize makes of a folder, as Argo CD and Flux call it."""
    done = subprocess.run([program("kustomize"), "build", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_it_is_what_install_applies_a_file_for_each_object(cli: Cli, engine: str) -> None:
    said = compiled(cli, engine, "--openshift")
    assert said.code == 0, said.err
    folder = cli.here / "deploy"
    listed = yaml.safe_load((folder / KUSTOMIZATION).read_text())["resources"]
    assert {path.name for path in folder.iterdir()} == {*listed, KUSTOMIZATION}
    assert said.out.splitlines() == [f"deploy/{name}" for name in (*listed, KUSTOMIZATION)]
    alone = [yaml.safe_load((folder / name).read_text()) for name in listed]
    wanted = Installation(engine=ENGINES[engine], namespace="team-a").objects(openshift=True)
    assert alone == wanted

    def ordered(some: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(some, key=name_of)

    assert ordered(objects(folder)) == ordered(wanted), "kustomize changes nothing"
    namespaced = [name for name, one in zip(listed, alone, strict=True) if resource_of(one).namespaced]
    assert max(name for name in listed if name.startswith("namespace-")) < min(namespaced), "kubectl goes by name"
    tokens = {
        one["metadata"]["annotations"][_ACCOUNT]: name
        for name, one in zip(listed, alone, strict=True)
        if one["kind"] == "Secret"
    }
    assert all(f"serviceaccount-{account}.yaml" < name for account, name in tokens.items()), "a token alone is removed"


def test_the_engine_takes_it(cli: Cli, engine: str) -> None:
    compiled(cli, engine)
    texts = [path.read_text() for path in sorted((cli.here / "deploy").glob("*.yaml"))]
    judged = [text for text in texts if yaml.safe_load(text)["kind"] in JUDGED]
    assert len(judged) >= 2
    assert judge(engine, ["---\n".join(judged)]) == [[]]


def test_every_account_is_bound_where_it_runs(cli: Cli, engine: str) -> None:
    compiled(cli, engine)
    bound = [one for one in objects(cli.here / "deploy") if "subjects" in one]
    subjects = {(one["name"], one["namespace"]) for made in bound for one in made["subjects"]}
    wanted = {
        (one.name, "team-a" if one.tasks else "dtkpipe-drivers")
        for one in ACCOUNTS
        if (one.rights or one.privileged) and one.engine in ("", engine)
    }
    assert subjects == wanted


def test_a_second_time_changes_nothing_and_what_is_no_more_goes(cli: Cli, engine: str) -> None:
    folder = cli.here / "deploy"
    compiled(cli, engine)
    (folder / "ours.yaml").write_text("kind: ConfigMap\n")
    (folder / "README.md").write_text((folder / KUSTOMIZATION).read_text())
    (folder / "inner").mkdir()
    before = held(folder)
    again = compiled(cli, engine)
    assert (again.code, again.out, held(folder)) == (0, "", before)
    assert "nothing changed" in again.err

    less = compiled(cli, engine, "--pipeline", "prebuild")
    assert less.code == 0, less.err
    gone = {name for name in before if "kmod" in name or "resign" in name}
    assert gone
    assert set(held(folder)) == set(before) - gone
    assert set(less.out.splitlines()) == {f"deploy/{name}" for name in (KUSTOMIZATION, *gone)}
    objects(folder)


def test_what_others_wrote_is_never_touched(cli: Cli, engine: str) -> None:
    folder = cli.here / "deploy"
    folder.mkdir()
    for name in ("namespace-team-a.yaml", "kustomization.yaml"):
        (folder / name).write_text("kind: Namespace\n")
        before = held(folder)
        said = compiled(cli, engine)
        assert (said.code, said.out, held(folder)) == (6, "", before)
        assert name in said.err
        assert "a folder of its own" in said.err
        (folder / name).unlink()
    elsewhere = cli.here / "elsewhere"
    elsewhere.write_text("mine")
    (folder / "namespace-team-a.yaml").symlink_to(elsewhere)
    assert compiled(cli, engine).code == 6
    assert elsewhere.read_text() == "mine"


def test_the_other_engine_needs_a_folder_of_its_own(cli: Cli) -> None:
    compiled(cli, "argo")
    before = held(cli.here / "deploy")
    said = compiled(cli, "tekton")
    assert (said.code, held(cli.here / "deploy")) == (6, before)


def test_killed_in_the_middle_it_leaves_a_folder_that_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def files(*names: str) -> dict[str, str]:
        head = "# Written by `dtkpipe compile --dir` for argo. Change what it is made of, not this file.\n"
        return {**dict.fromkeys(names, f"{head}{names}\n"), KUSTOMIZATION: f"{head}resources: {list(names)}\n"}

    class KilledError(BaseException):
        pass

    def replace(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError
        return swap(path, target)

    swap = Path.replace
    old, new = ("a.yaml", "b.yaml"), ("b.yaml", "c.yaml")
    for stop in range(3):
        folder = tmp_path / str(stop)
        write(files(*old), folder, "argo")
        left = stop
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", replace)
            with pytest.raises(KilledError):
                write(files(*new), folder, "argo")
        listed = yaml.safe_load((folder / KUSTOMIZATION).read_text())["resources"]
        assert listed == list(old)
        assert {*listed} <= set(held(folder)) <= {*old, *new, KUSTOMIZATION}
        assert write(files(*new), folder, "argo")
        assert set(held(folder)) == {*new, KUSTOMIZATION}
    with pytest.raises(ExistsError):
        write(files(*new), folder, "tekton")


def test_check_and_diff_say_what_would_change(cli: Cli, engine: str) -> None:
    compiled(cli, engine)
    assert compiled(cli, engine, "--check").code == 0
    assert cli("diff", "deploy", "-e", engine, "-n", "team-a").code == 0
    folder = cli.here / "deploy"
    first, second, *_ = sorted(folder.glob("*.yaml"))
    first.write_text(first.read_text().replace("dtkpipe", "changed").replace("changed compile", "dtkpipe compile"))
    second.unlink()
    (folder / "old.yaml").write_text((folder / KUSTOMIZATION).read_text())
    before = held(folder)
    said = compiled(cli, engine, "--check")
    assert (said.code, held(folder)) == (1, before)
    assert f"deploy/{first.name} differs" in said.err
    assert f"deploy/{second.name} is missing" in said.err
    assert "deploy/old.yaml is written no more" in said.err
    said = cli("diff", "deploy", "-e", engine, "-n", "team-a")
    assert said.code == 1
    assert {f"--- deploy/{name}" for name in (first.name, second.name, "old.yaml")} <= set(said.out.splitlines())
    said = cli("diff", str(first.relative_to(cli.here)), "-e", engine, "-n", "team-a")
    assert (said.code, said.out.count("+++")) == (1, 1)


def test_inputs_are_defaults_and_a_pipeline_of_ones_own_is_taken(cli: Cli) -> None:
    (cli.here / "dtkpipe.toml").write_text('push-to = "quay.io/org/kmod"\n')
    own = Path(__file__).parents[1] / "fixtures/pipelines/scan.py"
    said = compiled(cli, "tekton", "--pipeline", str(own), "-p", "severity=low", "--target-namespace", "d")
    assert said.code == 0, said.err
    (pipeline,) = (one for one in objects(cli.here / "deploy") if one["kind"] == "Pipeline")
    given = {one["name"]: one.get("default") for one in pipeline["spec"]["params"]}
    assert (given["severity"], given["push-to"]) == ("low", "quay.io/org/kmod")
    assert pipeline["metadata"]["namespace"] == "team-a"
