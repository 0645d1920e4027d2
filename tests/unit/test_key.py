"""The content key: what changes it and which part, and the tags that carry it."""

from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import InvalidError
from dtkpipe.resources import shipped
from dtkpipe.values.arch import AARCH64, X86_64
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.key import STEP_VERSION, ContentKey, KeyTag, content_key, signer_id
from dtkpipe.values.module import ModuleSpec

KERNEL = Kernel("6.1.0-56-amd64")
SPEC = "name: m\nbuild: {recipe: kbuild, patches: [{file: a, kernel: '>=6.1'}, {file: b, kernel: '>=6.2'}]}\n"


def key(**changes: object) -> ContentKey:
    given: dict[str, object] = {
        "module": "m", "commit": "a" * 40, "kernel": KERNEL, "arch": X86_64, "toolkit": "sha256:" + "b" * 64,
        "spec": ModuleSpec.from_text(SPEC),
    }  # fmt: skip
    return content_key(**(given | changes))  # type: ignore[arg-type]


def test_the_key_is_what_it_always_was() -> None:
    """Registries are full of them: whoever changes this test builds the world again."""
    assert str(key()) == "ddf53d00256456bf-aaaaaaaaaaaa-7fbb9fce4c9f-bbbbbbbbbbbb"


def test_a_changed_recipe_of_ours_is_a_new_step_version() -> None:
    """Whoever changes what makes the image looks whether the image changes, and raises STEP_VERSION if it does."""
    files = sorted(path for path in shipped("catalog/recipes").iterdir() if path.name != "kaniko")
    digest = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()
    assert (STEP_VERSION, digest[:12]) == ("1", "70fb54deeb98")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"module": "n"}, "cell"),
        ({"kernel": Kernel("6.1.0-57-amd64")}, "cell"),
        ({"arch": AARCH64}, "cell"),
        ({"commit": "sha256:" + "c" * 64}, "commit"),
        ({"path": "driver"}, "recipe"),
        ({"spec": None}, "recipe"),
        ({"spec": ModuleSpec.from_text(SPEC + "unload: never")}, "recipe"),
        ({"spec": ModuleSpec.from_text(SPEC + "checks: [[test, -e, /dev/m]]")}, "recipe"),
        ({"spec": ModuleSpec.from_text(SPEC.replace("file: a", "file: c"))}, "recipe"),
        ({"build_args": {"DEBUG": "1"}}, "recipe"),
        ({"toolkit": "sha256:" + "d" * 64}, "toolkit"),
    ],
)
def test_each_thing_has_its_part(changes: dict[str, object], part: str) -> None:
    before, after = key(), key(**changes)
    different = [
        name for name in ("cell", "commit", "recipe", "toolkit") if getattr(before, name) != getattr(after, name)
    ]
    assert different == [part]


@pytest.mark.parametrize(
    "spec",
    [
        SPEC.replace("file: b", "file: c"),
        SPEC + "exclusions: [{reason: r, until: 2030-01-01}]",
        SPEC + "kernels: {min: '5.10'}\narches: [x86_64]\nsource: {repo: example.org/m, ref: v2}",
    ],
    ids=["patch for another kernel", "exclusion", "where from and which kernels"],
)
def test_what_does_not_make_the_image_does_not_count(spec: str) -> None:
    assert key(spec=ModuleSpec.from_text(spec)) == key()


def test_a_spec_that_only_says_where_the_source_is_leaves_the_rest_to_the_commit() -> None:
    pointer = ModuleSpec.from_text("name: m\nsource: {repo: example.org/m}\nkernels: {min: '5.10'}")
    assert pointer.is_pointer
    assert key(spec=pointer) == key(spec=None) != key()


def test_signers_are_named_by_their_certificate() -> None:
    assert signer_id("unsigned") == "unsigned"
    assert signer_id(f"Some (sha256:one) (sha256:{'ab' * 32})") == "abababababab"


HEX = st.text("0123456789abcdef", min_size=12, max_size=12)
KEYS = st.builds(ContentKey, st.text("0123456789abcdef", min_size=16, max_size=16), HEX, HEX, HEX)


@given(KEYS, HEX | st.just("unsigned"), st.integers(0, 2**32 - 1))
def test_tags_are_read_back_and_every_registry_takes_them(found: ContentKey, signer: str, when: int) -> None:
    tag = KeyTag(found, signer, when)
    assert KeyTag.parse(str(tag)) == tag
    assert ContentKey.parse(str(found)) == found
    assert len(str(tag)) <= 128
    assert set(str(tag)) <= set(string.ascii_lowercase + string.digits + "-")


@pytest.mark.parametrize("tag", ["6.1.0-56-amd64", "key-", "latest", f"key-{key()}", f"failed-{key()}-unsigned",
                                 f"key-{key()}-unsigned-00000001", f"key-{key()}-UNSIGNED"])  # fmt: skip
def test_other_tags_are_none_of_ours(tag: str) -> None:
    assert KeyTag.parse(tag) is None


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(InvalidError, match="is not a content key"):
        ContentKey.parse("key")
