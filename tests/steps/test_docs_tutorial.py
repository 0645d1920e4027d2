"""The tutorial does what it says: its blocks that are marked `run` are run, in order, in one folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT, Block, blocks

TUTORIAL = ROOT / "docs" / "tutorial" / "first-module.md"


@pytest.mark.tools
def test_tutorial(tmp_path: Path) -> None:
    run = [block for block in blocks(TUTORIAL) if block.info.startswith("sh run")]
    assert len(run) >= 6
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DTKPIPE_")},
        **({"DTKPIPE_CACHE": os.environ["DTKPIPE_CACHE"]} if "DTKPIPE_CACHE" in os.environ else {}),
        "DTKPIPE_STATE": str(tmp_path / "state"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    said = {block.line: execute(block, tmp_path, environment) for block in run}
    refused = next(text for line, text in said.items() if "ENODEV" in text or "load-failed" in text)
    assert "refused: load-failed" in refused


def execute(block: Block, folder: Path, environment: dict[str, str]) -> str:
    """Run a block as its reader would; return what it printed."""
    expected = int(found[1]) if (found := re.search(r"exit-(\d+)", block.info)) else 0
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.body], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == expected, f"{block.where} ended with {done.returncode}\n{done.stdout}"
    return done.stdout
