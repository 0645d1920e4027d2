"""The modules of a matrix: a dtkpipe.yaml without a source is the module that it lies with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dtkpipe.errors import DtkpipeError
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


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """A repository of module specs, with a branch on which there is one more."""
    root = tmp_path / "catalogue.git"
    (root / "modules").mkdir(parents=True)
    (root / "modules/one.yaml").write_text("name: one\nsource: {repo: github.com/org/one, ref: v1}\n")
    (root / "modules/near.yaml").write_text("name: near\nsource: {repo: ../sources}\n")
    (root / "dtkpipe.yaml").write_text(SPEC)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "all")
    git(root, "checkout", "--quiet", "-b", "next")
    (root / "modules/two.yaml").write_text("name: two\nsource: {repo: 'apt:two-dkms/trixie'}\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "two")
    git(root, "checkout", "--quiet", "main")
    return root


def test_specs_are_read_out_of_a_git_repository(catalogue: Path, tmp_path: Path) -> None:
    found = choose([f"file://{catalogue}//modules/*"], tmp_path)
    assert [(one.name, str(one.source)) for one in found.good] == [("one", "https://github.com/org/one v1")]
    assert [one.file.name for one in found.broken] == ["near.yaml"]
    assert "`../sources` is a path, and this file is read out of git" in str(found.broken[0].error)
    later = choose([f"file://{catalogue}//modules/*?ref=next", f"file://{catalogue}//modules/one.yaml"], tmp_path)
    assert [one.name for one in later.good] == ["one", "two"]


def test_a_module_of_a_git_repository_is_its_commit(catalogue: Path, tmp_path: Path) -> None:
    (own,) = choose([f"file://{catalogue}//dtkpipe.yaml"], tmp_path).good
    assert own.source == Source(GIT, f"file://{catalogue}", git(catalogue, "rev-parse", "HEAD"))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("file://{0}//nowhere/*", "catalogue.git//nowhere/*` finds no module spec"),
        ("file://{0}//modules/*?ref=gone", "has no branch, tag or commit `gone`"),
        ("file://{0}//../modules/*", "is not inside the repository"),
        ("file://{0}/gone//modules/*", "there is no git repository"),
        ("file://{0}//modules/*?ref=--upload-pack=x", "is not a branch, tag or commit"),
        ("https://name:secret@localhost/catalogue//modules/*", "the URL of the source holds credentials"),
        ("ext::sh//modules/*", "not fetched through `ext::`"),
    ],
)
def test_a_repository_that_gives_no_specs(catalogue: Path, tmp_path: Path, pattern: str, said: str) -> None:
    with pytest.raises(DtkpipeError) as error:
        choose([pattern.format(catalogue)], tmp_path)
    assert said in str(error.value)
    assert "secret" not in str(error.value)


def test_two_slashes_alone_are_no_repository(catalogue: Path, tmp_path: Path) -> None:
    (tmp_path / "catalogue.git/modules/near.yaml").unlink()
    assert [one.name for one in choose(["catalogue.git//modules/*"], tmp_path).good] == ["one"]
    assert [one.name for one in choose([f"{catalogue}//modules/*"], tmp_path).good] == ["one"]
