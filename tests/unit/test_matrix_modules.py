"""The modules of a matrix: a dtkpipe.yaml without a source is the module that it lies with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dtkpipe.matrix.modules import choose
from dtkpipe.source.fetch import fetch, resolve_commit
from dtkpipe.values.arch import X86_64
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.key import content_key
from dtkpipe.values.module import ModuleSpec
from dtkpipe.values.source import FOLDER, GIT, Source

SPEC = "apiVersion: dtkpipe/v1\nname: own\nbuild: {recipe: kbuild}\nmodules: [own]\nkernels: {min: '5'}\n"


@pytest.fixture(params=["", "drivers/own"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of a module, in a repository with a name that URLs do not have."""
    root = tmp_path / "a repository, 100%"
    folder = root / request.param
    folder.mkdir(parents=True)
    (folder / "dtkpipe.yaml").write_text(SPEC)
    (folder / "Makefile").write_text("obj-m := own.o\n")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "all")
    return folder


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    done = subprocess.run(["git", "-C", folder, *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_is_checked_out_is_what_a_catalogue_would_build(folder: Path, tmp_path: Path) -> None:
    (own,) = choose(["dtkpipe.yaml"], folder).good
    head = git(folder, "rev-parse", "HEAD")
    assert (own.source.kind, resolve_commit(own.source)) == (GIT, head)
    assert (fetch(own.source, tmp_path / "copy").folder / "dtkpipe.yaml").read_text() == SPEC
    assert own.spec.kernels == ModuleSpec.from_text(SPEC).kernels

    catalogue = ModuleSpec.from_text("apiVersion: dtkpipe/v1\nname: own\nsource: {repo: example.org/own}\n")
    facts = {"module": "own", "commit": head, "kernel": Kernel("6.1.0-1-amd64"), "arch": X86_64, "toolkit": ""}
    keys = {content_key(**facts, path=own.source.path, spec=spec) for spec in (own.spec, catalogue, None)}
    assert len(keys) == 1


def test_what_was_changed_since_is_the_folder(folder: Path) -> None:
    (folder / "Makefile").write_text("obj-m := other.o\n")
    (own,) = choose(["dtkpipe.yaml"], folder).good
    assert own.source.kind == FOLDER
    assert resolve_commit(own.source).startswith("sha256:")
    assert Path(own.source.repo, own.source.path) == folder


def test_without_git_it_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "dtkpipe.yaml").write_text(SPEC)
    (own,) = choose([str(tmp_path / "dtkpipe.yaml")], Path("/")).good
    assert own.source == Source(FOLDER, str(tmp_path))


@pytest.mark.parametrize(("name", "more"), [("own.yaml", ""), ("dtkpipe.yaml", "source: {path: driver}\n")])
def test_any_other_spec_names_its_source(tmp_path: Path, name: str, more: str) -> None:
    (tmp_path / name).write_text(SPEC + more)
    (broken,) = choose([name], tmp_path).broken
    assert "source.repo: is required" in broken.error.what
    assert "dtkpipe.yaml" in broken.error.hint
