"""What is compiled into the repository is what the pipelines say today."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import HERE, ROOT, catalog, expected


@pytest.mark.parametrize(("path", "text"), [
    pytest.param(path, text, id=str(path.relative_to(ROOT))) for path, text in expected()
])  # fmt: skip
def test_compiled_files_are_fresh(path: Path, text: str) -> None:
    assert path.read_text() == text, "if the change is meant: python -m tests.golden"


def test_nothing_stale_lies_about() -> None:
    fresh = {path for path, _ in expected()}
    folders = {path.parent for path, _ in catalog()} | {
        path for path in HERE.iterdir() if (path / "argo.yaml").exists()
    }
    assert {path for folder in folders for path in folder.iterdir()} <= fresh


def test_ci_does_not_write() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden"], cwd=ROOT, env={**os.environ, "CI": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "CI compares" in done.stderr
