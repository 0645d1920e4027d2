"""Credentials: what is found in auth files, and what registries ask for."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.clients.auth import challenges, find
from dtkpipe.errors import DtkpipeError, InvalidError
from dtkpipe.values.access import RegistryAccess, access_from
from dtkpipe.values.image import ImageRef

_PART = st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True)
_USER = st.text(st.characters(codec="utf-8", exclude_characters=":\0", exclude_categories=("Cs",)), min_size=1)
_PASSWORD = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def _entry(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def _found(document: object, image: str) -> tuple[str, str] | None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "auth.json"
        file.write_text(json.dumps(document))
        credential = find(RegistryAccess(auth_file=file), ImageRef.parse(image))
        return (credential.username, credential.password) if credential else None


@given(_USER, _PASSWORD)
def test_every_user_and_password_survives(user: str, password: str) -> None:
    assert _found({"auths": {"quay.io": _entry(user, password)}}, "quay.io/a/b") == (user, password)


@given(st.lists(_PART, min_size=2, max_size=5), st.data())
def test_the_longest_entry_wins_whatever_their_order(parts: list[str], data: st.DataObject) -> None:
    names = ["/".join(["quay.io", *parts[:count]]) for count in range(len(parts) + 1)]
    present = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    document = {"auths": {name: _entry(name, "x") for name in data.draw(st.permutations(present))}}
    assert _found(document, names[-1]) == (max(present, key=len), "x")


@given(_PART, _PART)
def test_an_entry_counts_for_whole_path_parts_only(org: str, more: str) -> None:
    document = {"auths": {f"quay.io/{org}": _entry("u", "p")}}
    assert _found(document, f"quay.io/{org}{more}/repo") is None
    assert _found(document, f"quay.io/{org}/repo") == ("u", "p")


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("quay.io", "quay.io/a/b"),
        ("https://quay.io", "quay.io/a/b"),
        ("https://quay.io/v2/", "quay.io/a/b"),
        ("localhost:5000", "localhost:5000/a"),
        ("https://index.docker.io/v1/", "docker.io/library/a"),
        ("docker.io", "docker.io/library/a"),
    ],
)
def test_the_spellings_of_a_host(key: str, image: str) -> None:
    assert _found({"auths": {key: _entry("u", "p")}}, image) == ("u", "p")


def test_the_old_dockercfg_is_read() -> None:
    assert _found({"quay.io": _entry("u", "p")}, "quay.io/a") == ("u", "p")


@given(_JSON)
def test_any_document_gives_a_credential_or_an_error(document: object) -> None:
    for shape in (document, {"auths": document}, {"auths": {"quay.io": document}}):
        try:
            _found(shape, "quay.io/a")
        except InvalidError:
            continue


@given(st.binary(max_size=200))
def test_a_broken_file_is_named_and_not_quoted(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "auth.json"
        file.write_bytes(b"hunter2" + data)
        with pytest.raises(InvalidError) as caught:
            find(RegistryAccess(auth_file=file), ImageRef.parse("quay.io/a"))
        assert str(file) in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_the_name_of_a_helper_cannot_be_a_path() -> None:
    with pytest.raises(InvalidError):
        _found({"credHelpers": {"quay.io": "../../bin/sh"}}, "quay.io/a")


def test_files_are_asked_in_the_order_of_containers_auth_json(tmp_path: Path) -> None:
    places = [
        tmp_path / "run/containers/auth.json", tmp_path / "config/containers/auth.json", tmp_path / "docker/config.json"
    ]  # fmt: skip
    environ = {
        "XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "DOCKER_CONFIG": str(tmp_path / "docker"), "HOME": str(tmp_path),
    }  # fmt: skip
    for number in (2, 1, 0):
        places[number].parent.mkdir(parents=True)
        places[number].write_text(json.dumps({"auths": {"quay.io": _entry(f"user{number}", "p")}}))
        found = find(access_from([], "", environ), ImageRef.parse("quay.io/a"))
        assert found is not None
        assert found.username == f"user{number}"


@pytest.mark.parametrize("host", ["http://a", "a/b", "a b", "", "-a", "a:port"])
def test_an_insecure_host_must_be_one(host: str) -> None:
    with pytest.raises(InvalidError):
        access_from([host], "", {})


def test_authorities_must_be_pem() -> None:
    with pytest.raises(InvalidError):
        access_from([], "/etc/ssl/ca.pem", {})


def test_a_challenge_is_read_with_commas_in_quotes() -> None:
    (bearer,) = challenges('Bearer realm="https://a/token",service="s",scope="repository:a/b:pull,push"')
    assert bearer.scheme == "bearer"
    assert bearer.params == {"realm": "https://a/token", "service": "s", "scope": "repository:a/b:pull,push"}


def test_several_challenges_are_told_apart() -> None:
    found = challenges('Negotiate, Basic realm="Bearer, of, bad news", Bearer realm="https://a"')
    assert [one.scheme for one in found] == ["basic", "bearer"]
    assert found[0].params == {"realm": "Bearer, of, bad news"}


@given(st.text(max_size=120))
def test_any_header_is_read(header: str) -> None:
    challenges(header)


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    try:
        parsed = ImageRef.parse(text)
    except DtkpipeError:
        return
    assert ImageRef.parse(str(parsed)) == parsed
