"""The workflows of GitHub: actionlint takes them, nothing from outside can become code, the logic is elsewhere."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtkpipe import __version__
from dtkpipe.engines.triggers.github import REBUILD
from dtkpipe.model.images import DEFAULTS, RUNNER
from tests.fixtures.cli import Cli
from tests.fixtures.github import ROOT, WORKFLOWS
from tests.pages import blocks
from tests.validators import program

PAGE = ROOT / "docs" / "how-to" / "rebuild-from-github.md"
FLOWS = sorted(WORKFLOWS.glob("*.yml"))


def steps(flow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in flow["jobs"].values() for step in job.get("steps", ())]


# Which linters of scripts a machine has must not decide what is right.
def lint(*files: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    argv = [program("actionlint"), "-no-color", "-oneline", "-shellcheck=", "-pyflakes=", *files]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True)


def test_actionlint_finds_nothing() -> None:
    done = lint(*FLOWS)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_actionlint_would_find_something(tmp_path: Path) -> None:
    flow = (WORKFLOWS / "matrix.yml").read_text()
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(flow.replace('cron: "43 2 * * *"', 'cron: "43 25 * * *"').replace("vars.MATRIX", "var.MATRIX"))
    done = lint(wrong)
    assert done.returncode == 1
    assert "invalid CRON" in done.stdout
    assert 'undefined variable "var"' in done.stdout


def test_examples_of_the_page_call_it_rightly(tmp_path: Path) -> None:
    called = f"dtkpipe/dtkpipe/.github/workflows/rebuild.yml@v{__version__}"
    examples = [block.body for block in blocks(PAGE) if block.info == "yaml"]
    assert len(examples) == 2
    assert all(called in text for text in examples)
    (tmp_path / ".git").mkdir()
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    shutil.copy(WORKFLOWS / "rebuild.yml", folder)
    local = [text.replace(called, "./.github/workflows/rebuild.yml") for text in examples]
    for number, text in enumerate([*local, local[0].replace("push-to", "push-for")]):
        (folder / f"{number}.yml").write_text(text)
    done = lint(folder / "0.yml", folder / "1.yml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert 'input "push-for" is not defined' in lint(folder / "2.yml", cwd=tmp_path).stdout


def test_what_trigger_create_prints_calls_it_rightly(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / ".git").mkdir()
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    shutil.copy(WORKFLOWS / "rebuild.yml", folder)
    matrix = ("--modules", "mods/*,dtkpipe.yaml", "--releases", "4.16", "--push-to", "quay.io/org", "--jobs", "7")
    own = ("driver", "--repo", "github.com/Org/kmod", "--engine", "github")
    for on in (("push", "--path", "src/*"), ("catalog",)):
        made = cli("trigger", "create", *own, "--on", *on, "--", *matrix, "--retry-failed")
        assert made.code == 0, made.err
        (folder / f"{on[0]}.yml").write_text(made.out.replace(REBUILD, "./.github/workflows/rebuild.yml"))
    done = lint(folder / "push.yml", folder / "catalog.yml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    flows = {one: yaml.safe_load((folder / f"{one}.yml").read_text()) for one in ("push", "catalog")}
    assert flows["push"]["on"]["push"]["paths"] == ["src/**"]
    assert flows["catalog"]["on"]["push"]["paths"] == ["mods/**", "dtkpipe.yaml"]
    assert "'org/kmod'" in flows["push"]["jobs"]["rebuild"]["if"], "not in a fork"
    for words, why in (((*own, "--on", "push", "--secret", "s"), "--secret is not"),
                       ((*own, "--on", "push", "-n", "x"), "--namespace is not"),
                       ((own[0], "--repo", "gitlab.com/a/b", *own[3:], "--on", "push"), "no workflows")):  # fmt: skip
        said = cli("trigger", "create", *words, "--", *matrix)
        assert (said.code, why in said.err) == (2, True), said.err
    said = cli("trigger", "create", *own, "--on", "push", "--", *matrix, "--cell-timeout", "9")
    assert (said.code, "--cell-timeout is not" in said.err) == (2, True), said.err
    said = cli("trigger", "create", *own, "--on", "push", "--", "--releases", "${{ secrets.A }}", "--modules", "a")
    assert said.code == 2, said.out


def test_the_page_names_every_input() -> None:
    flow = yaml.safe_load((WORKFLOWS / "rebuild.yml").read_text())
    assert not [one for one in flow[True]["workflow_call"]["inputs"] if f"`{one}`" not in PAGE.read_text()]


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.stem)
def test_no_value_is_pasted_into_a_script(path: Path) -> None:
    pasted = [step["run"] for step in steps(yaml.safe_load(path.read_text())) if "${{" in step.get("run", "")]
    assert not pasted


def test_rebuild_runs_in_the_released_runner_image() -> None:
    flow = yaml.safe_load((WORKFLOWS / "rebuild.yml").read_text())
    assert flow[True]["workflow_call"]["inputs"]["runner-image"]["default"] == DEFAULTS[RUNNER]


def test_scripts_leave_the_logic_to_the_command_line() -> None:
    flow = yaml.safe_load((WORKFLOWS / "rebuild.yml").read_text())
    scripts = "\n".join(step.get("run", "") for step in steps(flow))
    called = re.findall(r"\bdtkpipe (\w+ \w+)", scripts)
    assert called == ["matrix plan", "matrix submit", "matrix report"]
