"""Settings: where they come from, which one wins, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dtkpipe.errors import InvalidError
from dtkpipe.settings import KEYS, load
from tests.fixtures.cli import Cli


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project" / "deep" / "below"
    folder.mkdir(parents=True)
    return folder


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), **more}


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_defaults(tmp_path: Path, project: Path) -> None:
    found = load(environ(tmp_path), project)
    assert list(found) == [key.name for key in KEYS]
    assert {one.origin for one in found.values()} == {"default"}
    assert (found["engine"].value, found["insecure-registries"].value) == ("", ())


def test_the_strongest_wins_and_each_knows_its_origin(tmp_path: Path, project: Path) -> None:
    user = write(tmp_path / "config/dtkpipe/dtkpipe.toml", 'release = "user"\narch = "user"\nvariant = "user"')
    own = write(project.parent / "dtkpipe.toml", 'arch = "project"\nvariant = "project"')
    write(project.parent.parent / "dtkpipe.toml", 'variant = "farther away"')
    found = load(environ(tmp_path, DTKPIPE_VARIANT="environment"), project)
    assert {name: (found[name].value, found[name].origin) for name in ("release", "arch", "variant")} == {
        "release": ("user", str(user)),
        "arch": ("project", str(own)),
        "variant": ("environment", "DTKPIPE_VARIANT"),
    }


def test_a_table_of_pyproject_counts_and_an_own_file_comes_first(tmp_path: Path, project: Path) -> None:
    write(project / "pyproject.toml", "[project]\nname = 'x'")
    shared = write(project.parent / "pyproject.toml", '[tool.dtkpipe]\nrelease = "shared"')
    assert load(environ(tmp_path), project)["release"].origin == str(shared)
    own = write(project.parent / "dtkpipe.toml", 'release = "own"')
    assert load(environ(tmp_path), project)["release"].origin == str(own)


def test_one_file_can_be_named_instead_of_all(tmp_path: Path, project: Path) -> None:
    write(project / "dtkpipe.toml", 'release = "project"')
    only = write(tmp_path / "only.toml", 'arch = "only"')
    found = load(environ(tmp_path, DTKPIPE_CONFIG=str(only)), project)
    assert (found["release"].value, found["arch"].value) == ("", "only")
    assert load(environ(tmp_path, DTKPIPE_CONFIG=""), project)["release"].value == ""


def test_paths_are_relative_to_their_file(tmp_path: Path, project: Path) -> None:
    write(project.parent / "dtkpipe.toml", 'sign-key = "keys/key.pem"\nsign-cert = "/abs/cert.pem"')
    found = load(environ(tmp_path, DTKPIPE_AUTH_FILE="auth.json"), project)
    assert found["sign-key"].value == str(project.parent / "keys/key.pem")
    assert found["sign-cert"].value == "/abs/cert.pem"
    assert found["auth-file"].value == str(project / "auth.json")


def test_lists(tmp_path: Path, project: Path) -> None:
    write(project / "dtkpipe.toml", 'insecure-registries = ["a:1", "b:2"]')
    assert load(environ(tmp_path), project)["insecure-registries"].value == ("a:1", "b:2")
    more = environ(tmp_path, DTKPIPE_INSECURE_REGISTRIES="c:3, d:4")
    assert load(more, project)["insecure-registries"].value == ("c:3", "d:4")


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ('relaese = "x"', "there is no setting `relaese`", "did you mean `release`?"),
        ("release = 4.14", "`release` is a string, not 4.14", 'release = "4.14"'),
        ('insecure-registries = "x"', "is a list of strings, not 'x'", ""),
        ("release = ", "is not TOML", ""),
    ],
)
def test_mistakes_are_told(tmp_path: Path, project: Path, text: str, what: str, hint: str) -> None:
    file = write(project / "dtkpipe.toml", text)
    with pytest.raises(InvalidError) as caught:
        load(environ(tmp_path), project)
    assert what in str(caught.value)
    assert str(file) in str(caught.value)
    assert caught.value.hint == hint


def test_a_mistyped_variable_is_told(tmp_path: Path, project: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        load(environ(tmp_path, DTKPIPE_RELAESE="x"), project)
    assert caught.value.hint == "did you mean `DTKPIPE_RELEASE`?"


def test_config_show(cli: Cli) -> None:
    write(cli.here / "dtkpipe.toml", 'release = "debian-12"')
    said = cli("config", "show")
    assert f"release                debian-12   {cli.here}/dtkpipe.toml\n" in said.out
    data = json.loads(cli("config", "show", "-o", "json", env={"DTKPIPE_VARIANT": "rt"}).out)
    assert data["release"] == {"value": "debian-12", "origin": f"{cli.here}/dtkpipe.toml"}
    assert data["variant"] == {"value": "rt", "origin": "DTKPIPE_VARIANT"}


def test_a_mistake_ends_the_command(cli: Cli) -> None:
    write(cli.here / "dtkpipe.toml", 'relaese = "debian-12"')
    for words in (["config", "show"], ["submit", "--repo=."], ["compile", "--engine=tekton"]):
        said = cli(*words)
        assert (said.code, said.out) == (6, "")
        assert "did you mean `release`?" in said.err


def test_a_setting_is_no_business_of_a_pipeline_without_that_parameter(cli: Cli) -> None:
    write(cli.here / "dtkpipe.toml", 'release = "debian-12"\nvariant = "rt"\npush-to = "localhost:1/x"')
    (cli.here / "mine.py").write_text(
        "from dtkpipe.model import InputRef, Pipeline, container, param\n"
        "release, value = param('release', 'What it is for')\n"
        "one = container('one', image='quay.io/a/b:1', argv=['x', '--', InputRef('r')], inputs={'r': value}, "
        "params=(release,))\n"
        "mine = Pipeline('mine', 'One task', tasks=(one,))\n"
    )
    said = cli("submit", "--pipeline=mine.py", "--dry-run", "-o", "json")
    assert (said.code, json.loads(said.out)["inputs"]) == (0, {"release": "debian-12"}), said.err
    for engine in ("argo", "tekton"):
        assert cli("compile", "--engine", engine, "--as", "run", "--pipeline=mine.py").code == 0
    # Who types it is told.
    said = cli("submit", "--pipeline=mine.py", "--dry-run", "--variant=rt")
    assert (said.code, "pipeline `mine` has no parameter `variant`" in said.err) == (2, True)


def test_settings_stand_in_for_flags(cli: Cli) -> None:
    write(cli.here / "dtkpipe.toml", 'release = "debian-12"\npush-to = "localhost:1/x"\ninsecure-registries = ["a:1"]')
    (cli.here / "src").mkdir()
    (cli.here / "src/Makefile").write_text("obj-m := x.o\n")
    words = ("submit", "--repo=src", "--dry-run", "-o", "json")
    inputs = json.loads(cli(*words).out)["inputs"]
    assert (inputs["release"], inputs["push-to"]) == ("debian-12", "localhost:1/x")
    assert json.loads(inputs["insecure-registries"]) == ["a:1"]
    assert json.loads(cli(*words, "--release=debian-13").out)["inputs"]["release"] == "debian-13"
    # A kernel that is named says what to build for; the project's release would contradict it.
    assert "release" not in json.loads(cli(*words, "--kernel=6.1.0-1-amd64").out)["inputs"]
