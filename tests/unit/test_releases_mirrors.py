"""Mirror sets: which places an image is read from, and what is no mirror set."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import InvalidError
from dtkpipe.values.image import ImageRef
from dtkpipe.values.mirrors import Mirrors, parse_mirrors

DIGEST = "sha256:" + "a" * 64


def sets(kind: str, key: str, *entries: dict[str, Any]) -> str:
    return json.dumps({"kind": kind, "metadata": {"name": "x"}, "spec": {key: list(entries)}})


def digests(*entries: dict[str, Any]) -> str:
    return sets("ImageDigestMirrorSet", "imageDigestMirrors", *entries)


def tags(*entries: dict[str, Any]) -> str:
    return sets("ImageTagMirrorSet", "imageTagMirrors", *entries)


def places(text: str, image: str) -> list[str]:
    return [str(one).removesuffix(f"@{DIGEST}") for one in parse_mirrors(text).places(ImageRef.parse(image))]


def test_mirrors_before_the_source_in_their_order() -> None:
    text = digests({"source": "quay.io/org", "mirrors": ["a.local:5000/m", "b.local"]})
    found = places(text, f"quay.io/org/app@{DIGEST}")
    assert found == ["a.local:5000/m/app", "b.local/app", "quay.io/org/app"]
    assert places(text, f"quay.io/organic/app@{DIGEST}") == ["quay.io/organic/app"]
    assert places(text, f"other.io/org/app@{DIGEST}") == ["other.io/org/app"]


def test_the_most_specific_source_wins() -> None:
    text = digests(
        {"source": "*.io", "mirrors": ["wild.local"]},
        {"source": "quay.io", "mirrors": ["host.local/h"]},
        {"source": "quay.io/org", "mirrors": ["org.local/o"]},
        {"source": "quay.io/org", "mirrors": ["more.local/o"], "mirrorSourcePolicy": "NeverContactSource"},
    )
    assert places(text, f"quay.io/org/app@{DIGEST}") == ["org.local/o/app", "more.local/o/app"]
    assert places(text, f"quay.io/x/app@{DIGEST}") == ["host.local/h/x/app", "quay.io/x/app"]
    assert places(text, f"ghcr.io/x/app@{DIGEST}") == ["wild.local/x/app", "ghcr.io/x/app"]


def test_tags_and_digests_are_apart() -> None:
    text = "---\n".join([
        digests({"source": "quay.io/org", "mirrors": ["digest.local/o"]}) + "\n",
        tags({"source": "quay.io/org", "mirrors": ["tag.local/o"], "mirrorSourcePolicy": "NeverContactSource"}) + "\n",
    ])  # fmt: skip
    assert places(text, "quay.io/org/app:v1") == ["tag.local/o/app:v1"]
    assert places(text, f"quay.io/org/app@{DIGEST}") == ["digest.local/o/app", "tag.local/o/app", "quay.io/org/app"]
    only = digests({"source": "quay.io/org", "mirrors": ["digest.local/o"]})
    assert places(only, "quay.io/org/app:v1") == ["quay.io/org/app:v1"]
    image = ImageRef.parse("quay.io/org/app:v1")
    assert [str(one) for one in parse_mirrors(only).digest_mirrors(image)] == ["digest.local/o/app:v1"]


def test_what_clusters_print() -> None:
    entry = {"source": "quay.io/openshift-release-dev/ocp-release", "mirrors": ["m.local/openshift/release-images"]}
    policy = json.loads(sets("ImageContentSourcePolicy", "repositoryDigestMirrors", entry))
    listed = json.dumps({"kind": "List", "items": [policy, {"kind": "ConfigMap", "data": {}}, 7]})
    image = f"quay.io/openshift-release-dev/ocp-release@{DIGEST}"
    assert places(listed, image)[0] == "m.local/openshift/release-images"


def test_the_layout_of_oc_mirror() -> None:
    """Releases and their content get repositories of their own; all else keeps its path, below the same prefix."""
    text = digests(
        {
            "source": "quay.io/openshift-release-dev/ocp-release",
            "mirrors": ["m.local:8443/site/openshift/release-images"],
        },
        {
            "source": "quay.io/openshift-release-dev/ocp-v4.0-art-dev",
            "mirrors": ["m.local:8443/site/openshift/release"],
        },
        {"source": "registry.redhat.io/openshift4", "mirrors": ["m.local:8443/site/openshift4"]},
    )
    for image, place in (
        ("quay.io/openshift-release-dev/ocp-release", "m.local:8443/site/openshift/release-images"),
        ("quay.io/openshift-release-dev/ocp-v4.0-art-dev", "m.local:8443/site/openshift/release"),
        ("registry.redhat.io/openshift4/driver-toolkit-rhel9", "m.local:8443/site/openshift4/driver-toolkit-rhel9"),
        ("quay.io/openshift-release-dev/ocp-release-nightly", "quay.io/openshift-release-dev/ocp-release-nightly"),
    ):
        assert places(text, f"{image}@{DIGEST}")[0] == place
    tagged = ImageRef.parse("quay.io/openshift-release-dev/ocp-release:4.16.3-x86_64")
    (found,) = parse_mirrors(text).digest_mirrors(tagged)
    assert str(found) == "m.local:8443/site/openshift/release-images:4.16.3-x86_64"


def test_no_mirrors() -> None:
    image = ImageRef.parse("quay.io/org/app:v1")
    assert Mirrors().places(image) == (image,)


WRONG = [
    "", "{", "a: [", "3", "[]", "kind: ConfigMap", "\t", "&a [*a]", "2026-13-45",
    digests(), digests({"source": "", "mirrors": []}), digests({"source": "https://quay.io", "mirrors": ["a"]}),
    digests({"source": "quay.io", "mirrors": "a"}), digests({"source": "quay.io", "mirrors": ["a b"]}),
    digests({"source": "quay.io", "mirrors": [], "mirrorSourcePolicy": "Sometimes"}),
    sets("ImageDigestMirrorSet", "imageTagMirrors", {"source": "quay.io", "mirrors": ["a"]}),
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_mirror_set(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_mirrors(text, "mirrors.yaml")


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=12)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


@given(json_values, json_values)
def test_any_set_is_read_or_refused(entry: Any, spec: Any) -> None:
    shapes = [{"imageDigestMirrors": [entry, spec]}, {"imageDigestMirrors": entry}, spec]
    for shape in shapes:
        try:
            parse_mirrors(json.dumps({"kind": "ImageDigestMirrorSet", "spec": shape}))
        except InvalidError:
            continue


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_mirrors(text)
    except InvalidError:
        return
