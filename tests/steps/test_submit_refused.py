"""`dtkpipe submit` for real, where it has to end in a clear no: nothing is published, and the exit code says why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dtkpipe.tools import process
from tests.fixtures.cli import Cli
from tests.fixtures.keys import DAY, certificate, der, key_pem, rsa_key
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.submit import HELLO, TARGET, card_of, source, tags, to
from tests.unit.test_doctor import path_without

pytestmark = pytest.mark.tools


def test_a_compile_error_is_shown_and_not_the_page_around_it(shell: Cli, tmp_path: Path) -> None:
    said = shell("submit", *TARGET, "--repo", source(tmp_path / "broken", "return nonsense;", "broken"))
    assert said.code == 10
    assert "broken.c:2:" in said.err
    assert "nonsense" in said.err
    assert len(said.err.splitlines()) < 30


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--release", "debain-12"], 5, "there is no release `debain-12`"),
        (["--release", "debian-12", "--kernel", "6.1.0-9999-amd64"], 5, "no kernel 6.1.0-9999-amd64"),
        (["--release", "debian-12", "--toolkit-repo", "localhost:1/t", "--insecure-registry", "localhost:1"], 7,
         "localhost:1"),
        (["--toolkit", "localhost:1/toolkit:v1", "--insecure-registry", "localhost:1"], 7, "localhost:1"),
    ],
)  # fmt: skip
def test_what_cannot_be_resolved_ends_the_run(
    shell: Cli, tmp_path: Path, words: list[str], code: int, text: str
) -> None:
    said = shell("submit", *words, "--repo", source(tmp_path / "m"))
    assert said.code == code, said.err
    assert f"error: resolve: {text}" in said.err or text in said.err
    assert "Traceback" not in said.err


def test_what_is_no_module_is_said(shell: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = shell("submit", *TARGET, "--repo", tmp_path / "empty")
    assert said.code == 6
    assert "is not the source of a kernel module" in said.err


@pytest.mark.parametrize(("program", "task"), [("buildah", "build"), ("qemu-system-x86_64", "verify")])
def test_a_program_that_is_missing_is_named_with_its_cure(shell: Cli, tmp_path: Path, program: str, task: str) -> None:
    repo = source(tmp_path / "m", name=f"without_{task}")
    said = shell("submit", *TARGET, "--repo", repo, env={"PATH": path_without(program, tmp_path / "bin")})
    assert said.code == 8, said.err
    assert f"error: {task}: `{program}` is not installed" in said.err
    assert "hint: dtkpipe doctor --fix" in said.err


def test_a_key_of_another_certificate_is_refused_before_anything_runs(shell: Cli, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(key_pem(rsa_key()))
    (tmp_path / "cert.der").write_bytes(der(certificate(rsa_key(), "Other")))
    said = shell("submit", *TARGET, "--repo", HELLO, "--sign-key", "key.pem", "--sign-cert", "cert.der")
    assert said.code == 6
    assert "error: the signing key and the certificate do not belong together" in said.err
    assert "resolve" not in said.err


def test_an_encrypted_key_needs_its_passphrase(shell: Cli, tmp_path: Path) -> None:
    key = rsa_key()
    (tmp_path / "key.pem").write_bytes(key_pem(key, b"open sesame"))
    (tmp_path / "cert.der").write_bytes(der(certificate(key)))
    words = ("submit", *TARGET, "--repo", HELLO, "--sign-key", "key.pem", "--sign-cert", "cert.der", "--dry-run")
    assert (shell(*words).code, "no passphrase was given" in shell(*words).err) == (6, True)
    (tmp_path / "passphrase").write_text("open barley\n")
    wrong = shell(*words, "--sign-passphrase-file", "passphrase")
    assert (wrong.code, "the passphrase does not open the signing key" in wrong.err) == (6, True)
    assert "barley" not in wrong.err
    (tmp_path / "passphrase").write_text("open sesame\n")
    assert shell(*words, "--sign-passphrase-file", "passphrase").code == 0


@pytest.mark.parametrize(
    ("start", "end", "text"), [(-2 * DAY, -DAY, "expired on"), (DAY, 2 * DAY, "is not valid before")]
)
def test_a_certificate_out_of_its_time_is_warned_about(
    shell: Cli, tmp_path: Path, start: timedelta, end: timedelta, text: str
) -> None:
    key = rsa_key()
    (tmp_path / "key.pem").write_bytes(key_pem(key))
    (tmp_path / "cert.der").write_bytes(der(certificate(key, "Old", start=start, end=end)))
    said = shell("submit", *TARGET, "--repo", HELLO, "--sign-key", "key.pem", "--sign-cert", "cert.der", "--dry-run")
    assert said.code == 0
    assert f"warning: the certificate `Old` {text}" in said.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    place = tmp_path / "small"
    place.mkdir()
    process.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place])
    yield place
    process.run(["umount", "--lazy", place])


def test_a_full_disk_is_said_and_nothing_is_published(shell: Cli, registry: LoopbackRegistry, small_disk: Path) -> None:
    said = shell(
        "submit", *TARGET, "--repo", HELLO, *to(registry, "submit/full"), env={"DTKPIPE_CACHE": str(small_disk)}
    )
    assert said.code not in (0, 3)
    assert "space" in said.err.lower()
    assert "Traceback" not in said.err
    assert tags(registry, "submit/full") == ()


def test_a_module_that_does_not_load_is_never_published(shell: Cli, registry: LoopbackRegistry, tmp_path: Path) -> None:
    repo = source(tmp_path / "sulky", "return -EINVAL;", "sulky")
    said = shell("submit", *TARGET, "--repo", repo, *to(registry, "submit/sulky"), "--staging",
                 registry.repo("submit/candidates"), "-o", "json")  # fmt: skip
    assert said.code == 10
    assert "error: verify: refused: load-failed: sulky did not load" in said.err
    card = card_of(said)
    assert card.cause.startswith("verify: refused: load-failed")
    assert card.verdict
    assert card.verdict["code"] == "load-failed"
    assert tags(registry, "submit/sulky") == ()
    assert [tag for tag in tags(registry, "submit/candidates") if tag.startswith(card.name)] == []
    assert "verify" in shell("logs", card.name, "--failed").out
