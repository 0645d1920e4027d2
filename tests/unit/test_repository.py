"""The rules that the repository itself keeps: layout, size, names, imports, where processes start."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {
    ".ci", ".dockerignore", ".github", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile",
    "README.md", "catalog", "docs", "dtkpipe", "pipelines", "pyproject.toml", "tests",
}  # fmt: skip
BANNED_NAMES = {"common", "helper", "helpers", "misc", "util", "utils"}
HEAVY = {
    "argparse",
    "cryptography",
    "elftools",
    "hera",
    "jsonschema",
    "kubernetes",
    "pydantic",
    "urllib3",
    "virt",
    "yaml",
}
CHEAP_ROOMS = ("cli", "steps", "values", "model", "tasks.py", "errors.py", "resources.py")


def tracked() -> list[Path]:
    """Every file that git knows, or would take, as a path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file() and not path.is_symlink()]


def sources(*parts: str) -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[: len(parts)] == parts]


def imports_at_the_top(path: Path) -> set[str]:
    """The root packages that importing this file imports: function bodies and TYPE_CHECKING blocks do not count."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
        waiting += ast.iter_child_nodes(node)
    return found


def test_top_level_holds_what_the_layout_says() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} == TOP_LEVEL


def test_files_stay_short_enough_to_read() -> None:
    long = {
        str(path.relative_to(ROOT)): lines for path in sources() if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_no_module_is_a_drawer_for_anything() -> None:
    assert not [path for path in sources() if path.stem in BANNED_NAMES]


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_every_public_function_and_class_says_what_it_is_for() -> None:
    silent = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in [*sources("dtkpipe"), *sources("pipelines")]
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not silent


def test_commands_are_never_shell_text() -> None:
    word = re.compile(r"shell\s*=\s*True|os\.system\(|os\.popen\(|\bgetoutput\(")
    here = Path(__file__)
    assert not [str(path) for path in sources() if path != here and word.search(path.read_text())]


def test_one_file_starts_processes() -> None:
    starters = {str(path.relative_to(ROOT)) for path in sources("dtkpipe") if "subprocess" in imports_at_the_top(path)}
    assert starters == {"dtkpipe/tools/process.py"}


def test_nothing_is_left_unfinished() -> None:
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError|NotImplemented)\b")
    here = Path(__file__)
    assert not [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path != here and path.suffix in {".py", ".md", ".sh", ".yml", ".yaml"}
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]


def test_no_test_is_skipped() -> None:
    """What a machine lacks is an error that names the fix, never a test that did not run."""
    words = re.compile(r"pytest\.skip|skipif|importorskip|xfail|unittest\.skip|mark\.skip")
    here = Path(__file__)
    assert not [str(path) for path in sources("tests") if path != here and words.search(path.read_text())]


@pytest.mark.parametrize("room", CHEAP_ROOMS)
def test_what_every_command_imports_is_cheap(room: str) -> None:
    """`dtkpipe --help` and `dtkpipe step` read these files: heavy imports belong into functions."""
    heavy = {
        str(path.relative_to(ROOT)): sorted(found)
        for path in sources("dtkpipe", room)
        if (found := imports_at_the_top(path) & HEAVY)
    }
    assert not heavy


@pytest.mark.parametrize("argv", [["--help"], ["version"], ["step", "--help"]])
def test_start_up_imports_no_client_and_no_engine(argv: list[str]) -> None:
    program = (
        "import sys, runpy\n"
        f"sys.argv = ['dtkpipe', *{argv!r}]\n"
        "try:\n    runpy.run_module('dtkpipe', run_name='__main__')\n"
        "except SystemExit as ended:\n    assert not ended.code, ended.code\n"
        f"loaded = sorted(name for name in {sorted(HEAVY - {'argparse'})!r} if name in sys.modules)\n"
        "sys.stderr.write(f'LOADED {loaded}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.endswith("LOADED []"), done.stderr


def test_import_directions() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_no_package_registry_or_mirror_is_named() -> None:
    """Where packages come from is the machine's business: its apt sources, its pip and Go settings."""
    names = (
        "pypi org", "files pythonhosted org", "deb debian org", "security debian org", "ftp debian",
        "snapshot debian org", "proxy golang org", "sum golang org", "registry npmjs org",
    )  # fmt: skip
    hosts = [name.replace(" ", ".") for name in names]
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in tracked()
        for text in [path.read_bytes().decode(errors="replace")]
        for host in hosts
        if host in text
    ]
    assert not found


def test_no_path_of_one_machine() -> None:
    machine = re.compile("/work" + "/(main|shared)|/roo" + "t/[.a-z]*env|/home/[a-z]+/")
    found = [
        str(path.relative_to(ROOT)) for path in tracked() if machine.search(path.read_bytes().decode(errors="replace"))
    ]
    assert not found


def test_license_is_what_pyproject_says() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0" in text
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()


def workflow(name: str) -> dict[str, Any]:
    import yaml

    flow: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return flow


def test_workflow_pins_actions_and_has_least_rights() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        flow = workflow(path.name)
        assert flow["permissions"] in ({}, {"contents": "read"})
        jobs = flow["jobs"].values()
        if called := [job["uses"] for job in jobs if "uses" in job]:
            assert all((ROOT / one).is_file() for one in called)
            continue
        uses = [step["uses"] for job in jobs for step in job["steps"] if "uses" in step]
        assert uses
        assert all(re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", use) for use in uses), uses


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    called = re.findall(r"\bmake (\w+)", script.read_text())
    assert called == ["test", "e2e"]
    readme = (ROOT / "README.md").read_text()
    assert all(f"make {target}\n" in readme for target in (*called, "e2e", "demo"))
    assert any(step.get("run") == ".ci/run" for step in workflow("ci.yml")["jobs"]["test"]["steps"])


def test_make_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: ([\w-]+)$", text, re.MULTILINE))
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[1] for line in listed.splitlines()} == phony


def test_what_the_command_line_calls_a_step_is_a_step() -> None:
    from dtkpipe.cli.step import names
    from dtkpipe.tasks import ALL

    assert names() == sorted(task.step for task in ALL)
