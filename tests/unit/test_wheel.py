"""The wheel that users install: built, installed alone into a fresh environment, run outside the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of what git tracks, so that nothing of this machine gets into it."""
    copy = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.split(b"\0")  # fmt: skip
    for name in filter(None, map(os.fsdecode, listed)):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    dist = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", dist, copy], check=True
    )
    (built,) = dist.glob("dtkpipe-*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, and nothing else, into a folder; what it depends on comes from this environment."""
    site = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel], check=True
    )
    return site


@pytest.fixture
def dtkpipe(site: Path) -> list[str]:
    """The command line of the installed wheel. -S leaves the checkout's editable install out of the import path."""
    program = (
        f"import sys; sys.path[:0] = [{str(site)!r}, {sysconfig.get_path('purelib')!r}]; "
        "import dtkpipe; assert dtkpipe.__file__.startswith(sys.path[0]), dtkpipe.__file__; "
        "from dtkpipe.__main__ import main; sys.exit(main())"
    )
    return [sys.executable, "-S", "-P", "-c", program]


def run(dtkpipe: list[str], *words: str, cwd: Path) -> str:
    done = subprocess.run([*dtkpipe, *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_general_name_lands_in_site_packages(site: Path) -> None:
    assert {path.name for path in site.iterdir()} - {"bin"} == {"dtkpipe", f"dtkpipe-{version()}.dist-info"}


def test_the_wheel_carries_what_the_program_reads_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("pipelines", "catalog"):
        shipped = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
        wanted = {f"dtkpipe/_data/{path}" for path in shipped if "__pycache__" not in path.parts}
        assert wanted
        assert wanted <= names
    assert "dtkpipe/py.typed" in names
    assert not [name for name in names if "tests" in Path(name).parts or Path(name).name.startswith("test_")]
    assert not [name for name in names if "__pycache__" in name]


def test_license_travels_with_it(site: Path) -> None:
    (license_file,) = site.glob("*.dist-info/licenses/LICENSE")
    assert license_file.read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_it_works_outside_a_checkout(dtkpipe: list[str], tmp_path: Path) -> None:
    assert run(dtkpipe, "version", cwd=tmp_path).strip() == f"dtkpipe {version()}"
    assert "verify" in run(dtkpipe, "graph", cwd=tmp_path)
    assert "kind: Pipeline" in run(dtkpipe, "compile", "--engine", "tekton", cwd=tmp_path)
    assert "kind: WorkflowTemplate" in run(dtkpipe, "compile", "--engine", "argo", cwd=tmp_path)


def test_it_finds_its_catalogue(dtkpipe: list[str], site: Path, tmp_path: Path) -> None:
    command = [*dtkpipe[:-1], dtkpipe[-1].partition("from dtkpipe.__main__")[0] + (
        "from dtkpipe.resources import shipped; print(shipped('catalog/toolkits'))"
    )]  # fmt: skip
    found = Path(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip())
    assert found.is_relative_to(site)
    assert list(found.iterdir())


def version() -> str:
    scope: dict[str, str] = {}
    exec((ROOT / "dtkpipe" / "__init__.py").read_text(), scope)
    return scope["__version__"]
