"""Sources of every kind, friendly and hostile, fetched with the real git."""

from __future__ import annotations

import io
import os
import socket
import ssl
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zstandard

from dtkpipe.errors import DtkpipeError, InvalidError, NotFoundError, UnreachableError
from dtkpipe.source import tree
from dtkpipe.source.fetch import Fetched, fetch, resolve_commit
from dtkpipe.tools import process
from dtkpipe.values.source import Source

pytestmark = pytest.mark.tools


def git(folder: Path, *argv: str | Path) -> str:
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    return process.run(["git", "-C", folder, *identity, *argv]).output.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with a branch, two tags and an ignored file."""
    folder = tmp_path / "kmod"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "Makefile").write_text("obj-m := m.o\n")
    (folder / "m.c").write_text("// one\n")
    (folder / ".gitignore").write_text("*.o\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    git(folder, "tag", "v1")
    (folder / "m.c").write_text("// two\n")
    git(folder, "commit", "-qam", "two")
    git(folder, "tag", "-a", "v2", "-m", "annotated")
    git(folder, "branch", "work")
    return folder


def fetched(tmp_path: Path, repo: str | Path, ref: str = "", path: str = "") -> Fetched:
    source = Source.parse(str(repo), ref, path, here=tmp_path)
    result = fetch(source, tmp_path / f"fetched-{len(list(tmp_path.glob('fetched-*')))}")
    assert resolve_commit(source) == result.commit
    return result


def refused(tmp_path: Path, repo: str | Path, ref: str = "") -> str:
    """Fetch what must be refused as not valid; return the error."""
    into = tmp_path / "refused"
    with pytest.raises(InvalidError) as error:
        fetch(Source.parse(str(repo), ref, here=tmp_path), into)
    return str(error.value)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


def test_a_folder_under_git_with_what_is_not_committed_yet(tmp_path: Path, repo: Path):
    clean = fetched(tmp_path, repo)
    assert files(clean.root) == [".gitignore", "Makefile", "m.c", "run.sh"]
    assert clean.commit.startswith("sha256:")
    assert clean.title == f"folder {repo} at {git(repo, 'rev-parse', 'HEAD')[:12]}"

    (repo / "m.c").write_text("// three\n")
    (repo / "new.h").write_text("// new\n")
    (repo / "m.o").write_text("ignored")
    (repo / "run.sh").unlink()
    changed = fetched(tmp_path, repo)
    assert files(changed.root) == [".gitignore", "Makefile", "m.c", "new.h"]
    assert (changed.root / "m.c").read_text() == "// three\n"
    assert changed.title.endswith(" with uncommitted changes")
    assert changed.commit != clean.commit


def test_a_folder_without_git_is_taken_whole(tmp_path: Path, repo: Path):
    process.run(["rm", "-rf", repo / ".git"])
    (repo / "m.o").write_text("kept")
    (repo / "inside").symlink_to("m.c")
    result = fetched(tmp_path, repo)
    assert files(result.root) == [".gitignore", "Makefile", "inside", "m.c", "m.o", "run.sh"]
    assert result.title == f"folder {repo}"
    assert os.access(result.root / "run.sh", os.X_OK)


def test_a_part_of_a_folder(tmp_path: Path, repo: Path):
    (repo / "driver").mkdir()
    (repo / "driver" / "Makefile").write_text("obj-m := d.o\n")
    result = fetched(tmp_path, repo, path="driver/")
    assert (result.root / "m.c").exists()
    assert result.folder == result.root / "driver"
    with pytest.raises(NotFoundError, match="no folder `nowhere`"):
        fetch(Source.parse(str(repo), "", "nowhere", here=tmp_path), tmp_path / "x")


@pytest.mark.parametrize("ref", ["", "main", "work", "v2", "v1", "refs/tags/v1"])
def test_branches_and_tags_are_resolved_once(tmp_path: Path, repo: Path, ref: str):
    result = fetched(tmp_path, f"file://{repo}", ref)
    assert result.commit == git(repo, "rev-parse", f"{ref or 'HEAD'}^{{commit}}")
    assert (result.root / "m.c").read_text() == ("// one\n" if "v1" in ref else "// two\n")
    assert not (result.root / ".git").exists()


def test_commits_whole_and_shortened(tmp_path: Path, repo: Path):
    first = git(repo, "rev-parse", "v1")
    git(repo, "tag", "-d", "v1")
    for ref in (first, first[:8]):
        assert fetched(tmp_path, f"file://{repo}", ref).commit == first


def test_urls_that_the_users_git_rewrites(tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch):
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "file://{repo}"]\n\tinsteadOf = https://git.example.org/org/kmod\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    result = fetched(tmp_path, "git.example.org/org/kmod", "v1")
    assert result.title.startswith("https://git.example.org/org/kmod v1 = ")


def test_what_does_not_exist(tmp_path: Path, repo: Path):
    def fails(kind: type[DtkpipeError], repo: object, ref: str = "") -> DtkpipeError:
        with pytest.raises(kind) as error:
            fetch(Source.parse(str(repo), ref, here=tmp_path), tmp_path / "none")
        return error.value

    wrong = fails(NotFoundError, f"file://{repo}", "v3")
    assert wrong.what.endswith("has no branch, tag or commit `v3`")
    assert "v1" in wrong.hint
    fails(NotFoundError, f"file://{repo}", "0123456789" * 4)
    fails(NotFoundError, f"file://{repo}", "0123456")
    fails(NotFoundError, f"file://{tmp_path}/nothing")
    fails(NotFoundError, tmp_path / "nothing")
    fails(NotFoundError, tmp_path / "nothing.tar.gz")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        fails(UnreachableError, f"http://127.0.0.1:{closed.getsockname()[1]}/org/kmod")


def tarball(path: Path, *members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member, io.BytesIO(bytes(member.size)))
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mode = len(member[1]), 0o644
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_tarballs_of_every_compression_are_the_same_source(tmp_path: Path):
    content = (("kmod-1.2/Makefile", b"obj-m := m.o\n"), ("kmod-1.2/m.c", b"//\n"), ("kmod-1.2/.git/config", b"x"))
    plain = tarball(tmp_path / "kmod.tar", *content, mode="w:")
    made = [plain, tarball(tmp_path / "kmod.tgz", *content), tarball(tmp_path / "kmod.tar.xz", *content, mode="w:xz")]
    (tmp_path / "kmod.tar.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    results = [fetched(tmp_path, path) for path in [*made, tmp_path / "kmod.tar.zst"]]
    assert files(results[0].folder) == ["Makefile", "m.c"]
    assert len({result.commit for result in results}) == 1
    assert results[0].commit.startswith("sha256:")


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (special("out", tarfile.SYMTYPE, "../../etc/passwd"), "leads out of it"),
        (special("out", tarfile.SYMTYPE, "/etc/passwd"), "leads out of it"),
        (special("hard", tarfile.LNKTYPE, "/etc/passwd"), "impossible name|does not hold"),
        (special("hard", tarfile.LNKTYPE, "../x"), "impossible name"),
        (special("device", tarfile.CHRTYPE), "a device"),
        (special("fifo", tarfile.FIFOTYPE), "a fifo"),
        (("../escape", b"x"), "impossible name"),
        (("/etc/cron.d/x", b"x"), "an absolute path"),
        (("a\nb", b"x"), "control characters"),
        (("x" * 300, b"x"), "impossible name"),
    ],
)
def test_hostile_tarballs(tmp_path: Path, member: tarfile.TarInfo | tuple[str, bytes], said: str):
    path = tarball(tmp_path / "hostile.tar.gz", ("Makefile", b"obj-m := m.o\n"), member)
    with pytest.raises(InvalidError, match=said):
        fetch(Source.parse(str(path), here=tmp_path), tmp_path / "into")
    assert not (tmp_path / "escape").exists()


def test_tarballs_that_write_through_their_own_links(tmp_path: Path):
    path = tarball(tmp_path / "a.tar.gz", ("d/x", b""), special("s", tarfile.SYMTYPE, "d"), ("s/y", b"y"))
    assert "writes through a link" in refused(tmp_path, path)


def test_broken_and_endless_tarballs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "text.tar.gz").write_text("not a tarball")
    assert "is not a tarball" in refused(tmp_path, tmp_path / "text.tar.gz")

    whole = tarball(tmp_path / "cut.tar.xz", ("a", os.urandom(100_000)), mode="w:xz").read_bytes()
    (tmp_path / "cut.tar.xz").write_bytes(whole[: len(whole) // 2])
    process.run(["rm", "-rf", tmp_path / "refused.unpacking"])
    assert "is not a tarball" in refused(tmp_path, tmp_path / "cut.tar.xz")

    monkeypatch.setattr(tree, "MAX_BYTES", 1_000_000)
    process.run(["rm", "-rf", tmp_path / "refused.unpacking"])
    bomb = tarball(tmp_path / "bomb.tar.gz", ("zeros", bytes(2_000_000)))
    assert "larger than" in refused(tmp_path, bomb)


def test_a_relative_link_out_of_a_folder_is_left_out(tmp_path: Path, repo: Path):
    process.run(["rm", "-rf", repo / ".git"])
    (repo / "README.gz").symlink_to("../../share/doc/some-dkms/README.gz")
    (repo / "shadow").symlink_to(f"{'../' * len(repo.parts)}etc/shadow")
    fetched = fetch(Source.parse(str(repo), here=tmp_path), tmp_path / "copy")
    assert not [entry for entry in fetched.folder.iterdir() if entry.is_symlink()]


def test_hostile_folders(tmp_path: Path, repo: Path):
    process.run(["rm", "-rf", repo / ".git"])

    def with_bad(make: object) -> str:
        bad = repo / "bad"
        make(bad)  # type: ignore[operator]
        try:
            return refused(tmp_path, repo)
        finally:
            bad.unlink()

    assert "leads out of it: bad -> /etc/shadow" in with_bad(lambda bad: bad.symlink_to("/etc/shadow"))
    (repo / "here").symlink_to(".")
    assert "leads out of it" in with_bad(lambda bad: bad.symlink_to("here/../x"))
    assert "a fifo: bad" in with_bad(os.mkfifo)
    assert "a device: bad" in with_bad(lambda bad: os.mknod(bad, 0o600 | 0o020000, os.makedev(1, 3)))

    def sparse(bad: Path) -> None:
        with bad.open("wb") as file:
            file.truncate(10 * 1024**3)

    said = with_bad(sparse)
    assert "larger than 1024 MiB" in said
    assert "bad (10240 MiB)" in said
    assert not (tmp_path / "refused").exists()


def test_a_source_with_too_many_files(tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tree, "MAX_FILES", 3)
    assert "more than 3 files" in refused(tmp_path, repo)


def commit_raw(repo: Path, mode: str, name: str, content: str) -> str:
    """Commit one entry that no work tree could hold."""
    blob = process.run(["git", "-C", repo, "hash-object", "-w", "--stdin"], stdin=content).output.strip()
    made = process.run(["git", "-C", repo, "mktree"], stdin=f"{mode} blob {blob}\t{name}\n").output.strip()
    return git(repo, "commit-tree", "-m", "hostile", made)


@pytest.mark.parametrize(
    ("mode", "name", "content", "said"),
    [
        ("120000", "out", "/etc/shadow", "leads out of it"),
        ("120000", "out", "../../../etc/shadow", "leads out of it"),
        ("100644", "x" * 300, "x", "impossible name"),
        ("100644", "a\x01b", "x", "control characters"),
    ],
)
def test_hostile_commits(tmp_path: Path, repo: Path, mode: str, name: str, content: str, said: str):
    commit = commit_raw(repo, mode, name, content)
    git(repo, "branch", "hostile", commit)
    assert said in refused(tmp_path, f"file://{repo}", "hostile")
    assert not (tmp_path / "refused" / "out").is_symlink()


def test_a_commit_that_holds_gits_own_files(tmp_path: Path, repo: Path):
    hook = process.run(["git", "-C", repo, "hash-object", "-w", "--stdin"], stdin="#!/bin/sh\ntouch /tmp/x\n")
    inner = process.run(["git", "-C", repo, "mktree"], stdin=f"100755 blob {hook.output.strip()}\tpost-checkout\n")
    hooks = process.run(["git", "-C", repo, "mktree"], stdin=f"040000 tree {inner.output.strip()}\thooks\n")
    top = process.run(["git", "-C", repo, "mktree"], stdin=f"040000 tree {hooks.output.strip()}\t.GIT\n")
    git(repo, "branch", "hooks", git(repo, "commit-tree", "-m", "hooks", top.output.strip()))
    assert "git's own files" in refused(tmp_path, f"file://{repo}", "hooks")


def test_a_repository_that_is_too_large_is_refused_before_it_is_written(
    tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch
):
    (repo / "big").write_bytes(bytes(3_000_000))
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "big")
    monkeypatch.setattr(tree, "MAX_BYTES", 2_000_000)
    assert "larger than" in refused(tmp_path, f"file://{repo}")
    assert not (tmp_path / "refused" / "big").exists()


def test_nothing_of_a_repository_is_run(tmp_path: Path, repo: Path):
    marker = tmp_path / "was-run"
    for hook in ("post-checkout", "fsmonitor"):
        path = repo / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {marker}\n")
        path.chmod(0o755)
    git(repo, "config", "core.fsmonitor", str(repo / ".git" / "hooks" / "fsmonitor"))
    fetched(tmp_path, repo)
    fetched(tmp_path, f"file://{repo}")
    assert not marker.exists()


def with_submodule(repo: Path, inner: Path, url: str) -> None:
    """Add a submodule at `dep` that says it is at `url`, as a hostile author could."""
    commit = git(inner, "rev-parse", "HEAD")
    (repo / ".gitmodules").write_text(f'[submodule "dep"]\n\tpath = dep\n\turl = {url}\n')
    git(repo, "add", ".gitmodules")
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{commit},dep")
    git(repo, "commit", "-qm", "submodule")


def inner_repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "dep.h").write_text("// dep\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "dep")
    return folder


def test_submodules_come_along(tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch):
    inner = inner_repository(tmp_path / "dep")
    with_submodule(repo, inner, "https://git.example.org/org/dep")
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "file://{tmp_path}/"]\n\tinsteadOf = https://git.example.org/org/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    assert (fetched(tmp_path, "git.example.org/org/kmod").root / "dep" / "dep.h").read_text() == "// dep\n"

    with_submodule(repo, inner, "../dep")
    result = fetched(tmp_path, "git.example.org/org/kmod")
    assert files(result.root) == [".gitignore", ".gitmodules", "Makefile", "dep/dep.h", "m.c", "run.sh"]


@pytest.mark.parametrize("url", ["file:///{inner}", "{inner}", "../dep", "ext::sh -c id", "--upload-pack=id"])
def test_submodules_that_read_this_machine_are_refused(tmp_path: Path, repo: Path, url: str):
    inner = inner_repository(tmp_path / "dep")
    with_submodule(repo, inner, url.format(inner=inner))
    said = refused(tmp_path, f"file://{repo}")
    assert "submodule `dep` is at" in said
    assert "https, http, ssh and git only" in said


@pytest.fixture
def https_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Serve a folder on loopback over TLS, with a certificate that this process trusts."""
    folder, key, cert = tmp_path / "served", tmp_path / "key.pem", tmp_path / "cert.pem"
    folder.mkdir()
    process.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                 "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert])  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_address[1]}", folder
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *said: object) -> None:  # type: ignore[override]
        """Say nothing."""


def test_tarballs_over_https(tmp_path: Path, https_server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch):
    url, folder = https_server
    tarball(folder / "kmod-1.tar.gz", ("kmod-1/Makefile", b"obj-m := m.o\n"))
    assert files(fetched(tmp_path, f"{url}/kmod-1.tar.gz").root) == ["Makefile"]
    with pytest.raises(NotFoundError, match="there is nothing at"):
        fetch(Source.parse(f"{url}/none.tar.gz", here=tmp_path), tmp_path / "none")
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(UnreachableError):
        fetch(Source.parse(f"{url}/kmod-1.tar.gz", here=tmp_path), tmp_path / "untrusted")
