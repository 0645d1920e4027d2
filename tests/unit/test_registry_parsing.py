"""What registries and layers hold is anybody's: whatever the bytes, the answer is a value or one of our errors."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.clients.image import Tree
from dtkpipe.clients.layers import Entry, members, readable, unpacked
from dtkpipe.clients.manifest import INDEXES, OCI_MANIFEST, ImageConfig, Manifest
from dtkpipe.errors import InvalidError, RunFailedError
from tests.fixtures.images import file, folder, hardlink, layer, pack, symlink

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    [
        "mediaType",
        "config",
        "layers",
        "manifests",
        "annotations",
        "subject",
        "artifactType",
        "digest",
        "size",
        "platform",
    ]
)
_GOOD = {"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 1}
_SHAPED = st.recursive(
    st.just(_GOOD) | st.just([_GOOD]) | st.just(OCI_MANIFEST) | _JSON,
    lambda inner: st.dictionaries(_KEYS, inner, max_size=6),
    max_leaves=10,
)


@given(st.dictionaries(_KEYS, _SHAPED, max_size=8))
def test_any_document_is_a_manifest_or_an_error(document: dict[str, object]) -> None:
    try:
        found = Manifest.parse(json.dumps({"schemaVersion": 2, **document}).encode())
    except InvalidError:
        return
    assert found.is_index == (found.media_type in INDEXES)
    _ = found.layers, found.manifests, found.annotations, found.artifact_type, found.subject, found.descriptor


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_an_error(body: bytes) -> None:
    with pytest.raises(InvalidError):
        Manifest.parse(body)


def test_a_manifest_nested_without_end_is_an_error() -> None:
    with pytest.raises(InvalidError):
        Manifest.parse(b"[" * 200_000)


@given(st.dictionaries(st.sampled_from(["config", "rootfs", "architecture"]), _JSON, max_size=3))
def test_any_config_is_read(document: dict[str, object]) -> None:
    config = ImageConfig(document)
    _ = config.labels, config.architecture, config.diff_ids


_LAYER = layer(
    folder("d"),
    file("d/a.ko", b"A" * 700),
    symlink("l", "d"),
    hardlink("h", "d/a.ko"),
    file("n" * 150, b"x"),
    file("z"),
)


def _read(blob: bytes) -> list[Entry]:
    with unpacked(io.BytesIO(blob), "the layer", limit=2**22) as (tar, _):  # type: ignore[arg-type]
        return [entry for entry, _, _ in members(tar, "the layer")]


@given(st.data(), st.sampled_from(["gzip", "zstd", "none"]))
def test_a_damaged_layer_is_read_or_an_error(data: st.DataObject, compression: str) -> None:
    blob = bytearray(pack(_LAYER, compression))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)))
    for broken in (bytes(blob), bytes(blob[:cut])):
        try:
            _read(broken)
        except RunFailedError:
            continue


@given(st.data())
def test_a_header_with_a_right_checksum_and_wrong_fields_is_read_or_an_error(data: st.DataObject) -> None:
    blob = bytearray(_LAYER)
    start = 512 * data.draw(st.integers(0, len(blob) // 512 - 1))
    for _ in range(data.draw(st.integers(1, 6))):
        blob[start + data.draw(st.integers(0, 511))] = data.draw(st.integers(0, 255))
    header = blob[start : start + 148] + b" " * 8 + blob[start + 156 : start + 512]
    blob[start + 148 : start + 156] = f"{sum(header):06o}\0 ".encode()
    try:
        _read(bytes(blob))
    except RunFailedError:
        return


def test_a_huge_extra_header_is_not_read_into_memory() -> None:
    header = bytearray(layer(file("a"))[:512])
    header[156:157] = b"x"
    header[124:136] = f"{2**32:011o}\0".encode()
    header[148:156] = f"{sum(header[:148] + b' ' * 8 + header[156:]):06o}\0 ".encode()
    with pytest.raises(RunFailedError, match="damaged"):
        _read(bytes(header) + bytes(2**20))


def test_errors_of_ours_pass_through() -> None:
    with pytest.raises(InvalidError), readable("x"):
        raise InvalidError("ours")


# The merged tree, against a model that is slow and plain: a real file system would be the third way to say it.

_NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
_KINDS = st.sampled_from(["file", "directory", "symlink", "hardlink", "whiteout", "other"])
_TARGETS = st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=4).map("/".join)


@st.composite
def _entries(draw: st.DrawFn) -> Entry:
    path, kind = draw(_NAMES), draw(_KINDS)
    if kind == "whiteout":
        parent, _, name = path.rpartition("/")
        path = f"{parent}/.wh.{name}".strip("/")
    target = draw(_TARGETS) if kind == "symlink" else draw(_NAMES)
    return Entry(path=path, kind=kind, size=0, mode=0o644, mtime=0, target=target)


@given(st.lists(st.lists(_entries(), max_size=6), max_size=5))
def test_in_any_tree_everything_lies_in_folders_and_every_link_ends(layers: list[list[Entry]]) -> None:
    tree = Tree()
    for number, entries in enumerate(layers):
        tree.add(number, entries)
    for path, placed in tree.entries.items():
        assert ".wh." not in path
        assert 0 <= placed.layer < len(layers)
        parent = path.rpartition("/")[0]
        if parent:
            assert tree.entries[parent].entry.kind == "directory"
        resolved = tree.resolve(path)
        if resolved:
            assert tree.entries[resolved].entry.kind != "symlink"
