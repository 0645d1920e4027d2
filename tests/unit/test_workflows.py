"""The workflows of GitHub: actionlint takes them, nothing from outside can become code, the logic is elsewhere."""

import re
import subprocess
from typing import Any

import pytest
import yaml

from dtkpipe.model.images import DEFAULTS, RUNNER
from tests.fixtures.github import ROOT, WORKFLOWS
from tests.validators import program

FLOWS = sorted(WORKFLOWS.glob("*.yml"))


def steps(flow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in flow["jobs"].values() for step in job.get("steps", ())]


# Which linters of scripts a machine has must not decide what is right.
def lint(*files: object) -> subprocess.CompletedProcess[str]:
    argv = [program("actionlint"), "-no-color", "-oneline", "-shellcheck=", "-pyflakes=", *files]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)


def test_actionlint_finds_nothing() -> None:
    done = lint(*FLOWS)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_actionlint_would_find_something(tmp_path: Any) -> None:
    flow = (WORKFLOWS / "matrix.yml").read_text()
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(flow.replace('cron: "43 2 * * *"', 'cron: "43 25 * * *"').replace("vars.MATRIX", "var.MATRIX"))
    done = lint(wrong)
    assert done.returncode == 1
    assert "invalid CRON" in done.stdout
    assert 'undefined variable "var"' in done.stdout


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.stem)
def test_no_value_is_pasted_into_a_script(path: Any) -> None:
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
