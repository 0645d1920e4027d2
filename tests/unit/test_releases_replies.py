"""What the network says of releases: payloads and graphs are parsed or refused, never a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.clients.graph import parse as parse_graph
from dtkpipe.clients.graph import read as read_graph
from dtkpipe.errors import DtkpipeError, InvalidError, NotFoundError, RunFailedError
from dtkpipe.releases.images import CONTENT, RELEASES
from dtkpipe.releases.payload import parse as parse_payload
from dtkpipe.toolkits.existing import kernel_named, kernels_in
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.arch import AARCH64, X86_64
from dtkpipe.values.version import Version

PAYLOAD = "quay.io/openshift-release-dev/ocp-release@sha256:" + "b" * 64
CHANNELS = "io.openshift.upgrades.graph.release.channels"

scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=12))
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


def node(version: str, **metadata: str) -> dict[str, Any]:
    return {"version": version, "payload": PAYLOAD, "metadata": metadata}


def graph(**more: Any) -> bytes:
    return json.dumps({"version": 1, "nodes": [node("4.16.1"), node("4.16.2+arm64"), node("4.15.9")], **more}).encode()


# The update graph


def test_graph() -> None:
    risk = {"url": "https://x", "name": "RHELKernelHighLoadIOWait", "message": "m", "matchingRules": []}
    body = graph(
        edges=[[0, 1], [2, 0]],
        conditionalEdges=[{"edges": [{"from": "4.15.9", "to": "4.16.2+arm64"}], "risks": [risk]}],
    )
    found = parse_graph(body, "graph")
    old, one, two = (Version.parse(text) for text in ("4.15.9", "4.16.1", "4.16.2"))
    assert set(found.nodes) == {old, one, two}
    assert found.edges == {(one, two), (old, one)}
    assert found.risks == {(old, two): ("RHELKernelHighLoadIOWait",)}


def test_channels_of_a_release() -> None:
    body = json.dumps({"nodes": [node("4.16.1", **{CHANNELS: "candidate-4.16, stable-4.16", "url": "https://e"})]})
    (found,) = parse_graph(body.encode(), "graph").nodes.values()
    assert (found.channels, found.url) == (("candidate-4.16", "stable-4.16"), "https://e")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"[" * 100_000, graph(nodes=[{}]), graph(nodes=7), graph(nodes=[node("x")]),
        graph(nodes=[{"version": "4.16.1", "payload": "x"}]), graph(edges=[[0]]), graph(edges=[[0, 9]]),
        graph(edges=[[0, -1]]), graph(edges=[["0", "1"]]), graph(conditionalEdges=[{}]),
        graph(conditionalEdges=[{"edges": [{"from": "4.16.1"}], "risks": []}]),
    ],
)  # fmt: skip
def test_graphs_that_are_none(body: bytes) -> None:
    with pytest.raises(RunFailedError, match="update graph that is not valid"):
        parse_graph(body, "graph")


@given(anything, anything, anything)
def test_any_graph_is_read_or_refused(nodes: Any, edges: Any, risks: Any) -> None:
    for body in ({"nodes": nodes, "edges": edges, "conditionalEdges": risks}, nodes):
        try:
            parse_graph(json.dumps(body).encode(), "graph")
        except RunFailedError:
            continue


@pytest.mark.parametrize("url", ["http://graph.local/x", "ftp://graph.local", "file:///etc/passwd", "graph"])
def test_a_graph_is_asked_with_tls(url: str) -> None:
    with pytest.raises(InvalidError, match="not an https URL"):
        read_graph(RegistryAccess(), "stable-4.16", X86_64, url)


# Payloads


def tag(name: str, image: str = str(CONTENT.at("sha256:" + "c" * 64)), **annotations: str) -> dict[str, Any]:
    return {"name": name, "annotations": annotations, "from": {"kind": "DockerImage", "name": image}}


def references(*tags: Any, version: str = "4.16.3") -> bytes:
    return json.dumps({"kind": "ImageStream", "metadata": {"name": version}, "spec": {"tags": list(tags)}}).encode()


@pytest.mark.parametrize(
    ("version", "tags", "streams"),
    [
        ("4.8.0", ["driver-toolkit", "machine-os-content"], ["rhel-8"]),
        ("4.12.2", ["driver-toolkit", "machine-os-content", "rhel-coreos-8"], ["rhel-8"]),
        ("4.14.1", ["driver-toolkit", "machine-os-content", "rhel-coreos"], ["rhel-9"]),
        ("4.22.0", ["driver-toolkit", "rhel-coreos", "rhel-coreos-10"], ["rhel-9"]),
        ("5.0.0-ec.6", ["driver-toolkit", "driver-toolkit-10", "rhel-coreos", "rhel-coreos-10"], ["rhel-9", "rhel-10"]),
        ("4.16.0", ["driver-toolkit"], ["rhel-9"]),
        ("4.11.0", ["driver-toolkit"], ["rhel-8"]),
        ("4.16.0-okd-scos.1", ["driver-toolkit", "stream-coreos"], ["scos"]),
    ],
)  # fmt: skip
def test_streams(version: str, tags: list[str], streams: list[str]) -> None:
    payload = parse_payload(references(*map(tag, tags), version=version), RELEASES, X86_64)
    assert [stream.name for stream in payload.streams] == streams
    assert all(stream.os_image for stream in payload.streams) == (len(tags) > 1)


def test_two_values_of_machine_os() -> None:
    key = "io.openshift.build.versions"
    tags = [tag("driver-toolkit"), tag("rhel-coreos", **{key: "kubectl=1.2,machine-os=9.6.20260327-0"})]
    payload = parse_payload(references(*tags), RELEASES, X86_64)
    assert payload.streams[0].rhcos == "9.6.20260327-0"


@given(anything, anything, st.sampled_from(["driver-toolkit", "rhel-coreos", "other"]))
def test_any_payload_is_read_or_refused(one: Any, source: Any, name: str) -> None:
    documents = [references(one), references({"name": name, "from": source}), references(tag(name, str(one)))]
    documents += [references(tag("driver-toolkit"), one), json.dumps(one).encode()]
    for document in documents:
        try:
            parse_payload(document, RELEASES, X86_64)
        except (RunFailedError, NotFoundError):
            continue


@given(st.binary(max_size=200))
def test_any_bytes_are_a_payload_or_refused(data: bytes) -> None:
    with pytest.raises(DtkpipeError) as failed:
        parse_payload(data, RELEASES, X86_64)
    assert failed.value.exit_code == 10


# Kernels


@given(st.one_of(anything, st.text(alphabet="0123456789.-_elx86+rt", max_size=40)))
def test_only_one_kernel_is_a_kernel(value: Any) -> None:
    found = kernel_named(value, X86_64)
    assert found is None or (
        found.arch == X86_64 and value.strip() in (found.release, found.release.removesuffix(".x86_64"))
    )


@given(anything, anything, st.binary(max_size=100))
def test_any_release_file_names_kernels_or_none(plain: Any, realtime: Any, data: bytes) -> None:
    good = "5.14.0-570.1.el9_6.x86_64"
    for document in ({"KERNEL_VERSION": plain, "RT_KERNEL_VERSION": realtime}, plain):
        assert kernels_in(json.dumps(document).encode(), X86_64) == {}
    assert kernels_in(data, X86_64) == {}
    found = kernels_in(json.dumps({"KERNEL_VERSION": good, "RT_KERNEL_VERSION": realtime, "x": plain}).encode(), X86_64)
    assert {name: str(kernel) for name, kernel in found.items()} == {"std": good}


@pytest.mark.parametrize(
    "text",
    ["5.14.0-570.1.el9_6.aarch64+64k", "6.12.0-231.12.el10nv.aarch64+64k", "5.14.0-531.el9.aarch64"],
)
def test_kernels_of_other_builds(text: str) -> None:
    assert str(kernel_named(text, AARCH64)) == text
    assert kernel_named(text, X86_64) is None
