"""Reading and changing the files of images, friendly and hostile ones."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import lzma
import os
import resource
import tarfile
from pathlib import Path

import pytest

from dtkpipe.clients import layers as layers_module
from dtkpipe.clients.image import ImageFiles, read_files, read_image
from dtkpipe.clients.layers import Entry, writing
from dtkpipe.clients.manifest import Descriptor
from dtkpipe.clients.registry import Registry
from dtkpipe.clients.rewrite import rewrite_layers
from dtkpipe.errors import RunFailedError, UnsupportedError
from dtkpipe.tools import process
from dtkpipe.values.image import ImageRef
from tests.fixtures.images import (
    MTIME,
    Member,
    device,
    file,
    folder,
    hardlink,
    layer,
    pack,
    push_image,
    symlink,
)
from tests.fixtures.registry import LoopbackRegistry

pytestmark = pytest.mark.tools


@pytest.fixture
def client(registry: LoopbackRegistry) -> Registry:
    return registry.client


@pytest.fixture
def repo(registry: LoopbackRegistry, request: pytest.FixtureRequest) -> ImageRef:
    return registry.repo("image/" + hashlib.sha256(request.node.name.encode()).hexdigest()[:16])


def _all(client: Registry, image: ImageRef, into: Path) -> ImageFiles:
    return read_image(client, image, None, lambda _: True, into)


def _contents(files: ImageFiles) -> dict[str, bytes]:
    return {path: found.read_bytes() for path, found in files.contents.items()}


def test_only_what_is_wanted_is_written(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    image = push_image(client, repo, [layer(folder("etc"), file("etc/a", b"A"), file("etc/b", b"B", 0o755))])
    found = read_image(client, image, None, lambda path: path == "etc/b", tmp_path / "x")
    assert _contents(found) == {"etc/b": b"B"}
    assert found.paths == ("etc", "etc/a", "etc/b")
    written = found.file("/etc/b")
    assert written == tmp_path / "x/etc/b"
    assert written.stat().st_mtime == MTIME
    assert written.stat().st_mode & 0o777 == 0o755
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_every_compression_is_read(client: Registry, repo: ImageRef, tmp_path: Path, compression: str) -> None:
    image = push_image(client, repo, [layer(file("a", b"A" * 100_000))], compressions=[compression])
    assert _contents(_all(client, image, tmp_path / "x")) == {"a": b"A" * 100_000}


def test_docker_images_are_read(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    image = push_image(client, repo, [layer(file("a", b"A"))], docker=True)
    assert _contents(_all(client, image, tmp_path / "x")) == {"a": b"A"}


def test_upper_layers_win_and_whiteouts_hide(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    below = layer(file("d/keep", b"1"), file("d/gone", b"1"), file("new", b"1"), file("o/x", b"1"), file("f/y", b"1"))
    hiding = (file("d/.wh.gone"), file("o/.wh..wh..opq"), file(".wh.f"))
    above = layer(file("new", b"2"), file("o/z", b"2"), *hiding, file("f2", b"2"))
    found = _all(client, push_image(client, repo, [below, above]), tmp_path / "x")
    assert _contents(found) == {"d/keep": b"1", "new": b"2", "o/z": b"2", "f2": b"2"}
    assert found.entry("f/y") is None


def test_a_whiteout_hides_only_what_is_below_its_layer(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    image = push_image(client, repo, [layer(file("a", b"1")), layer(file("a", b"2"), file(".wh.a"))])
    assert _contents(_all(client, image, tmp_path / "x")) == {"a": b"2"}


def test_a_file_replaces_a_folder_and_a_folder_a_file(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    image = push_image(
        client, repo, [layer(file("a/b", b"1"), file("c", b"1")), layer(file("a", b"2"), file("c/d", b"2"))]
    )
    assert _contents(_all(client, image, tmp_path / "x")) == {"a": b"2", "c/d": b"2"}


def test_links_are_followed_inside_the_image(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    image = push_image(
        client,
        repo,
        [
            layer(folder("usr/lib"), symlink("lib", "usr/lib"), file("usr/lib/modules/k/x.ko", b"X")),
            layer(file("lib/modules/k/y.ko", b"Y"), hardlink("usr/lib/modules/k/z.ko", "usr/lib/modules/k/y.ko")),
            layer(file("boot/vmlinuz", b"K"), symlink("usr/lib/modules/k/vmlinuz", "/boot/vmlinuz")),
            layer(symlink("up", "../../../../boot/vmlinuz"), symlink("loop", "loop"), symlink("dead", "/nowhere")),
        ],
    )
    found = read_image(client, image, None, lambda path: path.startswith("lib/modules/k/"), tmp_path / "x")
    assert _contents(found) == {
        "usr/lib/modules/k/x.ko": b"X", "usr/lib/modules/k/z.ko": b"Y", "boot/vmlinuz": b"K",
    } | {"usr/lib/modules/k/y.ko": b"Y"}  # fmt: skip
    assert found.file("lib/modules/k/vmlinuz") == tmp_path / "x/boot/vmlinuz"
    assert found.file("up") == tmp_path / "x/boot/vmlinuz"
    assert found.file("loop") is None
    assert found.file("dead") is None


# Hostile images


@pytest.mark.parametrize("path", ["../../escape", "a/../../escape", "/../escape"])
def test_a_path_that_leads_out_is_refused(client: Registry, repo: ImageRef, tmp_path: Path, path: str) -> None:
    image = push_image(client, repo, [layer(file(path, b"evil"))])
    with pytest.raises(RunFailedError, match="leads out of the image"):
        _all(client, image, tmp_path / "a/b/x")
    assert not list(tmp_path.rglob("escape"))


def test_absolute_paths_stay_inside(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    image = push_image(client, repo, [layer(file("/etc/evil", b"1"))])
    assert _all(client, image, tmp_path / "x").contents == {"etc/evil": tmp_path / "x/etc/evil"}


def test_a_link_to_the_host_does_not_reach_it(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    outside = tmp_path / "host"
    outside.mkdir()
    image = push_image(
        client,
        repo,
        [
            layer(symlink("out", str(outside)), symlink("up", "../" * 30 + str(outside).strip("/"))),
            layer(file("out/a", b"evil"), file("up/b", b"evil")),
            layer(hardlink("shadow", "etc/shadow"), symlink("passwd", "/etc/passwd")),
        ],
    )
    found = _all(client, image, tmp_path / "x")
    assert list(outside.iterdir()) == []
    assert found.file("passwd") is None
    assert found.file("shadow") is None
    assert not [path for path in (tmp_path / "x").rglob("*") if path.is_symlink()]


def test_device_nodes_are_not_made(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    found = _all(client, push_image(client, repo, [layer(device("dev/mem"), file("a", b"1"))]), tmp_path / "x")
    assert _contents(found) == {"a": b"1"}
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a"]


def test_setuid_bits_are_not_kept(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    found = _all(client, push_image(client, repo, [layer(file("su", b"1", 0o6777))]), tmp_path / "x")
    assert found.contents["su"].stat().st_mode & 0o7777 == 0o755


def test_names_that_no_file_can_have_are_an_error(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    image = push_image(client, repo, [layer(file("n" * 300, b"1"))])
    with pytest.raises(RunFailedError, match="name"):
        _all(client, image, tmp_path / "x")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_decompression_bomb_ends_at_the_limit(
    client: Registry, repo: ImageRef, tmp_path: Path, compression: str
) -> None:
    image = push_image(client, repo, [layer(file("zeros", bytes(30 * 2**20)))], compressions=[compression])
    with pytest.raises(RunFailedError, match="unpacks to more than 10 MiB"):
        read_image(client, image, None, lambda _: False, tmp_path / "x", limit=10 * 2**20)


def test_too_many_files_are_an_error(
    client: Registry, repo: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers_module, "MEMBERS", 5)
    image = push_image(client, repo, [layer(*(file(f"f{number}") for number in range(6)))])
    with pytest.raises(RunFailedError, match="more than 5 files"):
        _all(client, image, tmp_path / "x")


def _raw_image(client: Registry, repo: ImageRef, blob: bytes) -> ImageRef:
    image = push_image(client, repo, [layer()])
    manifest = json.loads(client.manifest(image).body)
    described = client.push_blob(repo, blob, Descriptor.of(blob, manifest["layers"][0]["mediaType"]))
    manifest["layers"] = [described.to_dict()]
    return repo.at(client.push_manifest(repo, json.dumps(manifest).encode()))


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_layer_that_is_cut_off_or_damaged_is_an_error(
    client: Registry, repo: ImageRef, tmp_path: Path, compression: str
) -> None:
    whole = pack(layer(file("a", os.urandom(50_000))), compression)
    damaged = whole[:200] + bytes([whole[200] ^ 0xFF]) * 40 + whole[240:]
    for number, blob in enumerate((whole[: len(whole) // 2], b"junk" * 600, whole[:4])):
        with pytest.raises(RunFailedError):
            _all(client, _raw_image(client, repo, blob), tmp_path / f"x{number}")
    if compression == "gzip":  # the others have no checksum of their own; that is what the digest is for
        with pytest.raises(RunFailedError):
            _all(client, _raw_image(client, repo, damaged), tmp_path / "damaged")


def test_a_full_disk_is_said_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no space left"), writing(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_cannot_grow_ends_the_reading_and_leaves_nothing(
    client: Registry, repo: ImageRef, tmp_path: Path
) -> None:
    image = push_image(client, repo, [layer(file("big", bytes(3 * 2**20)))])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(UnsupportedError, match="no space left"):
            _all(client, image, tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


# Small files


def test_small_files_come_from_the_topmost_layer_alone(client: Registry, repo: ImageRef) -> None:
    release = b'{"KERNEL_VERSION": "x"}'
    image = push_image(
        client, repo, [layer(file("etc/r.json", b"old"), file("etc/gone", b"1")), layer(file("etc/r.json", release))]
    )
    assert list(read_files(client, image, client.manifest(image), ["etc/r.json"])) == [{"etc/r.json": release}]
    both = read_files(client, image, client.manifest(image), ["etc/r.json", "etc/gone"])
    assert list(both) == [{"etc/r.json": release}, {"etc/gone": b"1"}]
    hidden = push_image(client, repo, [layer(file("etc/gone", b"1")), layer(file("etc/.wh.gone"))])
    assert list(read_files(client, hidden, client.manifest(hidden), ["etc/gone", "nothing"])) == []


def test_small_files_are_looked_for_within_bounds(client: Registry, repo: ImageRef) -> None:
    """A layer that is small on the wire, and without end when it is unpacked."""
    bomb = push_image(client, repo, [layer(file("zeros", bytes(64 * 2**20)), file("etc/r.json", b"x"))])
    with pytest.raises(RunFailedError, match="unpacks to more than 32 MiB"):
        list(read_files(client, bomb, client.manifest(bomb), ["etc/r.json"], budget=2**20))


# Rewriting


def _upper(client: Registry, image: ImageRef, work: Path, **more: dict[str, str]) -> ImageRef:
    work.mkdir(parents=True)

    def wanted(entry: Entry) -> bool:
        return entry.path.endswith(".txt")

    return rewrite_layers(client, image, wanted, lambda _, data: data.upper() + b"!", work, **more).image


def _tar_of(client: Registry, image: ImageRef, number: int) -> list[tarfile.TarInfo]:
    with client.open_blob(image, client.manifest(image).layers[number]) as blob:
        data = blob.readall()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_contents_are_replaced_in_every_layer_and_nothing_else_is(
    client: Registry, repo: ImageRef, tmp_path: Path, compression: str
) -> None:
    long_name = "d/" + "long" * 40 + ".txt"
    below = layer(file("a.txt", b"old"), Member("b.bin", b"same", mode=0o640, uid=7), file(long_name, b"x" * 513))
    above = layer(file("a.txt", b"new", 0o755), symlink("l", "b.bin"))
    image = push_image(
        client, repo, [below, above, layer(file("c", b"C"))], compressions=[compression] * 3, labels={"old": "1"}
    )
    changed = _upper(client, image, tmp_path / "w", labels={"who": "me"}, annotations={"who": "me"})
    assert not list((tmp_path / "w").iterdir())
    # Each layer on its own, so that the hidden copy is seen too.
    for number, expected in enumerate(
        ({"a.txt": b"OLD!", long_name: b"X" * 513 + b"!", "b.bin": b"same"}, {"a.txt": b"NEW!"})
    ):
        with client.open_blob(changed, client.manifest(changed).layers[number]) as blob:
            packed = blob.readall()
        single = _raw_image(client, repo, packed)
        assert _contents(_all(client, single, tmp_path / f"x{number}")) == expected
    manifest = client.manifest(changed)
    assert manifest.layers[2] == client.manifest(image).layers[2]
    assert manifest.annotations == {"who": "me"}
    assert client.config(changed).labels == {"old": "1", "who": "me"}
    assert client.config(changed).data["history"] == client.config(image).data["history"]


def test_headers_are_kept(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    for number, tar_format in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)):
        tar = layer(folder("d"), Member("d/a.txt", b"1" * 600, mode=0o640, uid=7), file("z", b"9"), format=tar_format)
        image = push_image(client, repo, [tar])
        changed = _upper(client, image, tmp_path / str(number))
        kept = ("name", "mode", "uid", "gid", "mtime", "type", "linkname")
        before, after = _tar_of(client, image, 0), _tar_of(client, changed, 0)
        assert [[getattr(one, name) for name in kept] for one in after] == [
            [getattr(one, name) for name in kept] for one in before
        ]
        assert [one.size for one in after] == [0, 601, 1]


def test_the_same_change_gives_the_same_digest(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    image = push_image(client, repo, [layer(file("a.txt", b"1"))])
    assert _upper(client, image, tmp_path / "1") == _upper(client, image, tmp_path / "2")


def test_the_config_describes_the_new_layers(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    """Checked by skopeo, which refuses layers that are not what the config says."""
    image = push_image(client, repo, [layer(file("a.txt", b"1")), layer(file("b", b"1"))])
    changed = _upper(client, image, tmp_path / "w")
    client.tag(changed, ["t"])
    process.run(
        ["skopeo", "copy", "--src-tls-verify=false", f"docker://{repo.tagged('t')}", f"oci:{tmp_path}/oci:t"],
        timeout=60,
    )
    assert client.config(changed).diff_ids[1] == client.config(image).diff_ids[1]
    assert client.config(changed).diff_ids[0] != client.config(image).diff_ids[0]


def test_what_links_lead_to_is_changed(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    image = push_image(
        client,
        repo,
        [
            layer(file("data/one", b"1a"), file("data/two", b"2a"), file("data/three", b"3a")),
            layer(symlink("l.txt", "data/one"), hardlink("h.txt", "data/two")),
        ],
    )
    changed = _upper(client, image, tmp_path / "w")
    found = _contents(_all(client, changed, tmp_path / "x"))
    assert found == {"data/one": b"1A!", "data/two": b"2A!", "data/three": b"3a"} | {"h.txt": b"2A!"}


def test_an_image_without_such_files_keeps_its_layers(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    image = push_image(client, repo, [layer(file("a", b"1"))])
    work = tmp_path / "w"
    work.mkdir()
    done = rewrite_layers(client, image, lambda entry: entry.path == "no", lambda _, data: data, work)
    assert done.paths == ()
    assert client.manifest(done.image).layers == client.manifest(image).layers


def test_xz_is_not_a_layer_format(client: Registry, repo: ImageRef, tmp_path: Path) -> None:
    image = _raw_image(client, repo, lzma.compress(layer(file("a", b"1"))))
    with pytest.raises(RunFailedError, match="damaged"):
        _all(client, image, tmp_path / "x")
