"""Pages do what they say: their blocks that are marked `run` are run, in order, in one folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.registry import LoopbackRegistry
from tests.pages import PAGES, ROOT, Block, blocks
from tests.validators import program

DOCS = ROOT / "docs"
FIRST = DOCS / "tutorial" / "first-module.md"
GITOPS = DOCS / "how-to" / "gitops.md"
NIGHTLY = DOCS / "tutorial" / "nightly-matrix.md"
EVERY = {FIRST: 6, GITOPS: 3, NIGHTLY: 7}
"""The pages that are run, and how many blocks each has at least."""


def run(page: Path, folder: Path, **more: str) -> dict[int, str]:
    """Run a page; return what each block printed, by its line."""
    run = [block for block in blocks(page) if block.info.startswith("sh run")]
    assert len(run) >= EVERY[page]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DTKPIPE_")},
        **({"DTKPIPE_CACHE": os.environ["DTKPIPE_CACHE"]} if "DTKPIPE_CACHE" in os.environ else {}),
        "DTKPIPE_STATE": str(folder / "state"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more,
    }  # fmt: skip
    return {block.line: execute(block, folder, environment) for block in run}


def test_every_page_that_is_to_be_run_is() -> None:
    assert {page for page in PAGES for block in blocks(page) if block.info.startswith("sh run")} == set(EVERY)


@pytest.mark.tools
def test_tutorial(tmp_path: Path) -> None:
    said = run(FIRST, tmp_path)
    refused = next(text for line, text in said.items() if "ENODEV" in text or "load-failed" in text)
    assert "refused: load-failed" in refused


@pytest.mark.tools
def test_tutorial_of_the_matrix(tmp_path: Path, registry: LoopbackRegistry) -> None:
    # The registry of the cache knows the images of the last time.
    place = {"DTKPIPE_PUSH_TO": str(registry.repo("nightly")), "DTKPIPE_INSECURE_REGISTRIES": registry.host}
    _, plan, submit, again, broken, *_, aside = run(NIGHTLY, tmp_path, **place).values()
    assert "4 cells: 4 missing" in plan
    assert "4 cells: 4 built" in submit
    assert "4 cells: 4 current" in again
    assert "4 cells: 2 reused, 2 failed" in broken
    assert "2 current" in aside
    assert "2 quarantined" in aside
    page = (tmp_path / "kmods" / "public" / "index.html").read_text()
    assert "expected" in page


def test_gitops(tmp_path: Path) -> None:
    run(GITOPS, tmp_path)
    kustomize = [program("kustomize"), "build", tmp_path / "kmods" / "deploy"]
    done = subprocess.run(kustomize, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "namespace: kmods-drivers" in done.stdout


def execute(block: Block, folder: Path, environment: dict[str, str]) -> str:
    """Run a block as its reader would; return what it printed."""
    expected = int(found[1]) if (found := re.search(r"exit-(\d+)", block.info)) else 0
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.body], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == expected, f"{block.where} ended with {done.returncode}\n{done.stdout}"
    return done.stdout
