"""doctor finds what is missing by looking for the thing itself, and knows the package that has it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from dtkpipe.app.doctor import DEFAULT_JOBS, JOBS, NEEDS, Finding, examine, fix, missing, parse_jobs
from dtkpipe.app.doctor_pod import read
from dtkpipe.errors import DtkpipeError, UnsupportedError, UsageError
from dtkpipe.tools import process
from tests.fixtures.cli import Cli


def test_jobs_are_parsed() -> None:
    assert parse_jobs("") == DEFAULT_JOBS
    assert parse_jobs("all") == tuple(JOBS)
    assert parse_jobs("build, verify") == ("build", "verify")
    with pytest.raises(UsageError, match="there is no job `biuld`") as caught:
        parse_jobs("biuld")
    assert caught.value.hint == "did you mean `build`?"


def test_every_need_is_for_a_job_and_every_job_has_needs() -> None:
    assert {job for need in NEEDS for job in need.jobs} == set(JOBS)


@pytest.mark.tools
def test_every_package_exists_and_has_what_it_is_for() -> None:
    known = process.run(["apt-cache", "pkgnames"]).output.split()
    assert {need.package for need in NEEDS} <= set(known)


@pytest.mark.tools
def test_this_machine_can_do_everything(cli: Cli) -> None:
    said = cli("doctor", "--for", ",".join((*DEFAULT_JOBS, "tests")), "-o", "json")
    findings = json.loads(said.out)
    assert [one["name"] for one in findings if not one["ok"]] == []
    assert said.code == 0
    assert {"building", "archive", "disk", "kvm"} <= {one["name"] for one in findings}
    assert next(one for one in findings if one["name"] == "buildah")["found"].endswith("/buildah")


def path_without(program: str, folder: Path) -> str:
    """Make a PATH that has everything but one program."""
    folder.mkdir()
    for place in (*os.environ["PATH"].split(":"), "/usr/sbin", "/sbin"):
        for file in sorted(Path(place).glob("*")):
            if file.name != program and not (folder / file.name).exists():
                (folder / file.name).symlink_to(file)
    return str(folder)


@pytest.mark.parametrize(("program", "package"), [("buildah", "buildah"), ("qemu-system-x86_64", "qemu-system-x86")])
def test_what_is_missing_is_named_with_its_package(cli: Cli, tmp_path: Path, program: str, package: str) -> None:
    said = cli("doctor", env={"PATH": path_without(program, tmp_path / "bin")})
    assert said.code == 1
    row = next(line for line in said.out.splitlines() if line.startswith(f"{program} "))
    assert row.split()[1:3] == ["MISSING", "missing"]
    assert said.err == (
        f"error: this machine lacks {program}\n\nhint: apt-get install {package}  (or: dtkpipe doctor --fix)\n"
    )


def test_only_the_asked_jobs_count(cli: Cli, tmp_path: Path) -> None:
    path = path_without("qemu-system-aarch64", tmp_path / "bin")
    assert cli("doctor", "--for", "verify-arm", env={"PATH": path}).code == 1
    assert cli("doctor", "--for", "build,verify", env={"PATH": path}).code == 0


def test_a_full_disk_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=10**9))
    [found] = missing(examine(["build"], tmp_path / "not" / "there"))
    assert (found.name, found.found) == (
        "disk", f"1.0 GB are free where the cache is, toolkits and builds want 10: {tmp_path}"
    )  # fmt: skip


@pytest.mark.tools
@pytest.mark.parametrize(
    ("more", "found"), [("", []), ('Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "/dev/null";', ["archive"])]
)
def test_a_fresh_machine_knows_the_archive_before_it_has_package_lists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: str, found: list[str]
) -> None:
    (tmp_path / "lists/partial").mkdir(parents=True)
    (tmp_path / "apt.conf").write_text(f'Dir::State::lists "{tmp_path}/lists"; {more}\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    assert process.run(["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"]).output == ""
    assert [one.name for one in missing(examine(["toolkits"], tmp_path))] == found


def test_fix_without_rights_says_what_root_has_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", path_without("buildah", tmp_path / "bin"))
    Path(tmp_path / "bin/sudo").unlink(missing_ok=True)
    found = examine(["build"], tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    with pytest.raises(UnsupportedError) as caught:
        fix(found, print)
    assert caught.value.hint == "run as root: apt-get install buildah"


def test_fix_elsewhere_than_on_debian_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", path_without("buildah", tmp_path / "bin"))
    (tmp_path / "bin/apt-get").unlink()
    with pytest.raises(UnsupportedError, match="on Debian"):
        fix(examine(["build"], tmp_path), print)


def test_what_apt_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = path_without("apt-get", tmp_path / "bin")
    fake = tmp_path / "bin/apt-get"
    fake.write_text('#!/bin/sh\necho "E: Unable to locate package" >&2\nexit 100\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    lacking = Finding(name="x", ok=False, found="missing", jobs=("build",), package="buildah")
    with pytest.raises(UnsupportedError) as caught:
        fix([lacking], print)
    assert str(caught.value) == (
        "apt-get could not install what is missing\n  E: Unable to locate package\n\nhint: apt-get install buildah"
    )


def test_fix_with_nothing_to_fix_does_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    fix(examine(["registry"], tmp_path), said.append)
    assert said == []


@pytest.mark.parametrize("place", range(7))
def test_what_a_pod_says_is_read_between_its_errors(place: int) -> None:
    log = ["[", "  {", '    "ok": false,', '    "found": "x",', '    "fix": "y"', "  }", "]"]
    log[place:place] = ["error: this machine lacks registry", "  registry: 1.2.3.4:9 cannot be reached", "", "hint: z"]
    found = read(log)
    assert (found.ok, found.found, found.fix) == (False, "from a pod: x", "y")
    with pytest.raises(DtkpipeError, match="nothing that can be read"):
        read(log[:place])
