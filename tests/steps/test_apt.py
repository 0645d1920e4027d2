"""Debian's archive through the machine's own apt."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest

from dtkpipe.errors import NotFoundError, UnreachableError
from dtkpipe.tools import process
from dtkpipe.tools.apt import Archive, unpack
from dtkpipe.tools.busybox import SUITE, static_busybox
from dtkpipe.values.arch import AARCH64, X86_64

pytestmark = pytest.mark.tools


@pytest.fixture
def archive(shared_cache: Path) -> Archive:
    return Archive(SUITE, X86_64, shared_cache)


@pytest.fixture
def own_cache(shared_cache: Path, tmp_path: Path) -> Path:
    """A cache of the test's own, with the index of the shared one in it."""
    Archive(SUITE, X86_64, shared_cache).versions("make")
    root = "packages/apt/bookworm-amd64"
    shutil.copytree(shared_cache / root, tmp_path / root, ignore=shutil.ignore_patterns("answers", "lock"))
    return tmp_path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine whose apt goes through a proxy that does not answer."""
    conf = tmp_path / "offline.conf"
    conf.write_text('Acquire::http::Proxy "http://127.0.0.1:1"; Acquire::https::Proxy "http://127.0.0.1:1";')
    monkeypatch.setenv("APT_CONFIG", str(conf))


def test_versions_and_names(archive: Archive) -> None:
    assert archive.versions("make")
    assert archive.versions("no-such-package") == ()
    names = archive.search("^linux-image-[0-9].*-cloud-amd64$")
    assert names
    assert all(name.startswith("linux-image-") for name in names)
    assert archive.search("^no-such-package") == ()


def test_newest_version_comes_first(archive: Archive) -> None:
    versions = archive.versions("linux-libc-dev")
    for newer, older in itertools.pairwise(versions):
        assert process.run(["dpkg", "--compare-versions", newer, "gt", older]).returncode == 0
    assert archive.newest("linux-libc-dev").version == versions[0]


def test_closure_has_what_is_needed_and_nothing_recommended(archive: Archive) -> None:
    names = [package.name for package in archive.closure(["kmod"])]
    assert names == sorted(names)
    assert {"kmod", "libkmod2", "libc6"} <= set(names)
    assert "manpages" not in names


def test_unknown_packages(archive: Archive) -> None:
    with pytest.raises(NotFoundError, match="no-such-package"):
        archive.newest("no-such-package")
    with pytest.raises(NotFoundError, match="no-such-package"):
        archive.closure(["make", "no-such-package"])
    with pytest.raises(NotFoundError):
        archive.closure(["--simulate"])


def test_other_architecture(shared_cache: Path) -> None:
    assert static_busybox(AARCH64, shared_cache).read_bytes()[:4] == b"\x7fELF"
    assert Archive(SUITE, AARCH64, shared_cache).newest("kmod").arch == "arm64"


def test_a_question_is_asked_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Archive(SUITE, X86_64, own_cache)
    expected = first.versions("make"), first.search("^linux-image-[0-9]"), first.closure(["make"])
    monkeypatch.setattr(process, "run", lambda *_args, **_more: pytest.fail("a process was started"))
    again = Archive(SUITE, X86_64, own_cache)
    assert (again.versions("make"), again.search("^linux-image-[0-9]"), again.closure(["make"])) == expected


def test_damaged_download_is_found_and_fetched_again(own_cache: Path) -> None:
    archive = Archive(SUITE, X86_64, own_cache)
    deb = archive.fetch(["kmod"])[0]
    good = deb.read_bytes()
    deb.write_bytes(good[:-100] + bytes(100))
    (own_cache / "packages/.fetch-left-by-a-killed-run").mkdir()
    assert archive.fetch(["kmod"]) == [deb]
    assert deb.read_bytes() == good
    assert not list((own_cache / "packages").glob(".fetch-*"))
    unpack(deb, own_cache / "out")
    assert (own_cache / "out/bin/kmod").is_file()


@pytest.mark.usefixtures("offline")
def test_old_index_has_to_do_when_the_archive_does_not_answer(own_cache: Path) -> None:
    said: list[str] = []
    stamp = own_cache / "packages/apt/bookworm-amd64/updated"
    os.utime(stamp, (1_700_000_000, 1_700_000_000))
    assert Archive(SUITE, X86_64, own_cache, say=said.append).versions("make")
    said = [line for line in said if "could not be fetched" in line]
    assert len(said) == 1
    assert "could not be fetched; the one of 2023-11-1" in said[0]
    # Nobody waits for the archive again within the next minutes.
    assert Archive(SUITE, X86_64, own_cache, say=said.append).versions("make")
    assert not [line for line in said[1:] if "could not be fetched" in line]


@pytest.mark.usefixtures("offline")
def test_archive_that_does_not_answer(tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(UnreachableError, match="packages of bookworm for x86_64 could not be fetched") as caught:
        Archive(SUITE, X86_64, tmp_path / "empty").versions("make")
    assert caught.value.exit_code == 7
    conf = own_cache / "packages/apt/bookworm-amd64/apt.conf"
    conf.write_text(conf.read_text() + 'Acquire::http::Proxy "http://127.0.0.1:1";\n')
    with pytest.raises(UnreachableError):
        Archive(SUITE, X86_64, own_cache).fetch(["kmod"])


def test_index_is_fetched_anew_when_asked(own_cache: Path) -> None:
    stamp = own_cache / "packages/apt/bookworm-amd64/updated"
    os.utime(stamp, (1_700_000_000, 1_700_000_000))
    archive = Archive(SUITE, X86_64, own_cache, max_age=0)
    assert archive.versions("make")
    assert archive.index_time > 1_700_000_000
