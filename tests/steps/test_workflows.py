"""The workflows of GitHub for real: their steps build a small module for a real kernel, and say what is red."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dtkpipe.values.image import ImageRef
from dtkpipe.values.key import KeyTag
from tests.fixtures.cli import Cli
from tests.fixtures.github import Done, Runner, environment
from tests.fixtures.matrix import Shelf
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.submit import source

pytestmark = pytest.mark.tools
BRANCH = "fix/$(touch${IFS}pwned);`touch${IFS}pwned`&'\"{{x}}"
INPUTS = {"releases": "debian-12", "variant": "cloud"}
Run = Callable[..., Done]


def commit(folder: Path, branch: str = "main") -> None:
    """Make a folder a repository with all that is in it, or commit what has changed."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(folder)]
    if not (folder / ".git").exists():
        subprocess.run([*git, "init", "--quiet", f"--initial-branch={branch}"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "a commit"], check=True)


@pytest.fixture
def run(shell: Cli, tmp_path: Path, registry: LoopbackRegistry) -> Run:
    """Run a workflow in a repository, each time on a fresh machine."""
    count = itertools.count()
    environ = environment(shell.environ({"DTKPIPE_INSECURE_REGISTRIES": registry.host}))

    def run(name: str, repository: Path, *, branch: str = "main", place: ImageRef | str = "", **inputs: str) -> Done:
        machine = Runner(
            tmp_path / f"machine-{next(count)}", repository, branch, environ,
            variables={"MATRIX_PUSH_TO": str(place)}, secrets={"registry-auth": "{}", "REGISTRY_AUTH": "{}"},
        )  # fmt: skip
        return machine.run(name, **inputs)

    return run


@pytest.fixture
def place(registry: LoopbackRegistry, tmp_path: Path) -> ImageRef:
    return registry.repo(tmp_path.name.replace("_", "-"))


def keys(registry: LoopbackRegistry, place: ImageRef, name: str) -> list[KeyTag]:
    tags = registry.client.tags(ImageRef.parse(f"{place}/{name}"))
    return [tag for text in tags if (tag := KeyTag.parse(text))]


def test_rebuild_builds_a_push_once_whatever_its_branch_is_called(
    run: Run, tmp_path: Path, registry: LoopbackRegistry, place: ImageRef
) -> None:
    repository = source(tmp_path / "kmod", name="pushed")
    (repository / "dtkpipe.yaml").write_text("apiVersion: dtkpipe/v1\nname: pushed\nmodules: [pushed]\n")
    commit(repository, BRANCH)
    push = {"push-to": str(place), **INPUTS}
    first = run("rebuild.yml", repository, branch=BRANCH, **push)
    assert first.succeeded, first.said
    assert "1 missing" in first.step("See what is stale").said
    assert "1 built" in first.step("Build it").said
    assert "current" in first.summary
    assert (first.artifacts / "matrix" / "index.html").is_file()
    assert not list(tmp_path.rglob("pwned"))

    # The module is known by its commit: a catalogue that only names the repository finds it current.
    (key,) = keys(registry, place, "pushed")
    head = subprocess.run(["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert head.stdout.startswith(key.key.commit)
    catalogue = tmp_path / "catalogue"
    (catalogue / "modules").mkdir(parents=True)
    spec = f"apiVersion: dtkpipe/v1\nname: pushed\nsource: {{repo: 'file://{repository}'}}\n"
    (catalogue / "modules" / "pushed.yaml").write_text(spec)
    commit(catalogue)
    second = run("rebuild.yml", catalogue, modules="modules/*", **push)
    assert second.succeeded, second.said
    assert "1 reused" in second.step("Build it").said


def test_the_matrix_reports_what_is_red_and_fails(run: Run, tmp_path: Path, place: ImageRef) -> None:
    shelf = Shelf(tmp_path / "catalogue")
    shelf.module("night", source="return no_such_thing();")
    commit(shelf.root)
    done = run("matrix.yml", shelf.root, place=place, modules="modules/*", **INPUTS)
    assert [step.code for step in done.steps] == [0, 0, 10, 0], done.said
    assert "1 failed" in done.step("Build it").said
    assert "implicit declaration" in done.summary
    assert list((done.artifacts / "matrix" / "logs").iterdir())


@pytest.mark.parametrize(("inputs", "codes", "words"), [
    ({"modules": "$(touch pwned)/*"}, [0, 9, 9], "finds no module spec"),
    ({"releases": "--help;touch pwned"}, [0, 5, 5], "--help;touch pwned"),
])  # fmt: skip
def test_what_is_asked_wrongly_ends_with_its_exit_code(
    run: Run, tmp_path: Path, place: ImageRef, inputs: dict[str, str], codes: list[int], words: str
) -> None:
    shelf = Shelf(tmp_path / "catalogue")
    shelf.module("wrong")
    commit(shelf.root)
    done = run("matrix.yml", shelf.root, place=place, **{"modules": "modules/*", **INPUTS, **inputs})
    assert [step.code for step in done.steps] == codes, done.said
    assert words in done.steps[1].said
    assert not done.summary
    assert not list(tmp_path.rglob("pwned"))


def test_a_matrix_without_a_place_for_its_images_does_nothing(run: Run, tmp_path: Path) -> None:
    commit(Shelf(tmp_path / "catalogue").module("lost").parents[1])
    done = run("matrix.yml", tmp_path / "catalogue")
    assert [step.code for step in done.steps] == [1], done.said
    assert "say where images go (push-to)" in done.said
    assert not done.artifacts.exists()
