"""The registry on loopback: shared, taken over, repaired. The real docker-registry, each test with its own storage."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtkpipe.app.registry import PORT, loopback_registry
from dtkpipe.clients.manifest import OCI_MANIFEST
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import NotFoundError, UnsupportedError
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.image import ImageRef

pytestmark = pytest.mark.tools


def pid_of(cache: Path) -> int:
    return int(json.loads((cache / "registry/running.json").read_text())["pid"])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def push(host: str, repository: str, content: bytes) -> ImageRef:
    """Push an artifact of one blob; return it by digest."""
    client = Registry(RegistryAccess(insecure=(host,)))
    repo = ImageRef(host, repository)
    config = client.push_blob(repo, b"{}")
    layer = client.push_blob(repo, content)
    manifest = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": "application/octet-stream", "digest": layer.digest, "size": layer.size}],
    }  # fmt: skip
    return repo.at(client.push_manifest(repo, json.dumps(manifest).encode(), OCI_MANIFEST, tag="v1"))


def exists(ref: ImageRef) -> bool:
    return Registry(RegistryAccess(insecure=(ref.registry,))).exists(ref)


def blob_of(cache: Path, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return cache / "registry/storage/docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


def test_it_is_up_in_the_block_and_keeps_what_it_got(tmp_path: Path) -> None:
    with loopback_registry(tmp_path, print) as host:
        ref = push(host, "org/kmod", b"content")
        pid = pid_of(tmp_path)
    assert not is_alive(pid)
    said: list[str] = []
    with loopback_registry(tmp_path, said.append) as host:
        assert exists(ImageRef(host, "org/kmod", digest=ref.digest))
    assert not [line for line in said if "damaged" in line]


def test_the_last_one_out_stops_it(tmp_path: Path) -> None:
    with loopback_registry(tmp_path, print) as first:
        pid = pid_of(tmp_path)
        with loopback_registry(tmp_path, print) as second:
            assert first == second
            assert pid_of(tmp_path) == pid
        assert is_alive(pid)
    assert not is_alive(pid)


def test_many_at_once_share_one(tmp_path: Path) -> None:
    hosts: list[str] = []

    def use() -> None:
        with loopback_registry(tmp_path, lambda _: None) as host:
            hosts.append(host)
            assert exists(push(host, "x", b"y"))

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hosts) == 6
    assert not (tmp_path / "registry/running.json").exists()


USER = """\
import sys
from pathlib import Path
from dtkpipe.app.registry import loopback_registry
with loopback_registry(Path(sys.argv[1]), print) as host:
    print(host, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def left_behind(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A registry whose user was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", USER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout
        lines = iter(user.stdout.readline, "")
        host = next(line for line in lines if line.startswith("127.")).strip()
        user.kill()
    pid = pid_of(tmp_path)
    yield pid, host
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)


def test_what_a_killed_run_left_is_taken_over(tmp_path: Path, left_behind: tuple[int, str]) -> None:
    pid, host = left_behind
    assert is_alive(pid)
    with loopback_registry(tmp_path, print) as again:
        assert (again, pid_of(tmp_path)) == (host, pid)
    assert not is_alive(pid)


def test_one_that_hangs_is_replaced(
    tmp_path: Path, left_behind: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, _ = left_behind
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr("dtkpipe.app.registry._ANSWER", 0.2)
    monkeypatch.setattr("dtkpipe.app.registry._STOP", 0.2)
    with loopback_registry(tmp_path, print) as host:
        assert pid_of(tmp_path) != pid
        assert exists(push(host, "x", b"y"))
    assert not is_alive(pid)


def test_a_pid_that_belongs_to_another_program_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/running.json").write_text(json.dumps({"pid": os.getpid(), "port": 1}))
    with loopback_registry(tmp_path, print):
        assert pid_of(tmp_path) != os.getpid()


def test_another_port_is_taken_when_ours_is_in_use(tmp_path: Path) -> None:
    said: list[str] = []
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", PORT))
            other.listen()
        except OSError:
            pass  # then somebody else has it, which is what this test wants
        with loopback_registry(tmp_path, said.append) as host:
            assert host != f"127.0.0.1:{PORT}"
            assert exists(push(host, "x", b"y"))
    assert f"port {PORT} is taken by another program" in said[0]
    with loopback_registry(tmp_path, print) as again:
        assert again == host  # what was published stays where it was


def test_the_users_own_registry_variables_do_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/x/auth.json")
    monkeypatch.setenv("REGISTRY_HTTP_ADDR", "127.0.0.1:1")
    with loopback_registry(tmp_path, print) as host:
        assert exists(push(host, "x", b"y"))


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/storage").write_text("not a folder")
    bad = tmp_path / "bin"
    bad.mkdir()
    (bad / "docker-registry").write_text("#!/bin/sh\necho 'cannot do that' >&2\nexit 1\n")
    (bad / "docker-registry").chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{bad}:{path}"
    try:
        with pytest.raises(UnsupportedError, match="does not start") as caught, loopback_registry(tmp_path, print):
            pass
    finally:
        os.environ["PATH"] = path
    assert "cannot do that" in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "empty"])
def test_a_damaged_blob_is_found_and_all_that_needs_it_is_made_again(tmp_path: Path, damage: str) -> None:
    with loopback_registry(tmp_path, print) as host:
        broken, whole = push(host, "broken", b"content" * 100), push(host, "whole", b"other")
        layer = Registry(RegistryAccess(insecure=(host,))).manifest(broken).layers[0]
    blob = blob_of(tmp_path, layer.digest)
    match damage:
        case "cut":
            blob.write_bytes(blob.read_bytes()[:-1])
        case "changed":
            blob.write_bytes(blob.read_bytes().replace(b"c", b"C"))
        case "gone":
            blob.unlink()
        case "empty":
            blob.write_bytes(b"")
    said: list[str] = []
    with loopback_registry(tmp_path, said.append) as host:
        assert "damaged" in said[0]
        assert exists(ImageRef(host, "whole", digest=whole.digest))
        with pytest.raises(NotFoundError):
            Registry(RegistryAccess(insecure=(host,))).digest(ImageRef(host, "broken", tag="v1"))
        assert not exists(ImageRef(host, "broken", digest=broken.digest))
        again = push(host, "broken", b"content" * 100)
        client = Registry(RegistryAccess(insecure=(host,)))
        assert client.read_blob(again, layer) == b"content" * 100


def test_a_damaged_manifest_or_link_is_found(tmp_path: Path) -> None:
    with loopback_registry(tmp_path, print) as host:
        first, second = push(host, "first", b"1"), push(host, "second", b"2")
    blob_of(tmp_path, first.digest).write_bytes(b"{")
    tag = tmp_path / "registry/storage/docker/registry/v2/repositories/second/_manifests/tags/v1/current/link"
    tag.write_text("")
    said: list[str] = []
    with loopback_registry(tmp_path, said.append) as host:
        assert "damaged" in said[0]
        assert not exists(ImageRef(host, "first", digest=first.digest))
        assert not exists(ImageRef(host, "second", tag="v1"))
        assert exists(ImageRef(host, "second", digest=second.digest))


def test_leftovers_of_interrupted_uploads_are_removed(tmp_path: Path) -> None:
    with loopback_registry(tmp_path, print) as host:
        push(host, "x", b"y")
    upload = tmp_path / "registry/storage/docker/registry/v2/repositories/x/_uploads/1"
    upload.mkdir(parents=True)
    (upload / "data").write_bytes(b"half")
    with loopback_registry(tmp_path, print):
        assert not upload.exists()


def test_a_command_runs_while_it_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback_registry(tmp_path, print) as host:
        push(host, "org/kmod", b"content")
    argv = [sys.executable, "-m", "dtkpipe", "registry", "skopeo", "list-tags", "--tls-verify=false"]
    done = subprocess.run(
        [*argv, f"docker://{host}/org/kmod"], capture_output=True, text=True,
        env={**os.environ, "DTKPIPE_CACHE": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Tags"] == ["v1"]
    assert not (tmp_path / "registry/running.json").exists()
