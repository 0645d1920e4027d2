"""How a source is written decides what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import InvalidError
from dtkpipe.values.source import FOLDER, GIT, PACKAGE, TARBALL, Source

HERE = Path("/somewhere/here")


@pytest.mark.parametrize(
    ("text", "kind", "repo", "name"),
    [
        ("github.com/org/kmod", GIT, "https://github.com/org/kmod", "kmod"),
        ("https://host:8443/org/kmod.git", GIT, "https://host:8443/org/kmod.git", "kmod"),
        ("ssh://git@host/org/kmod", GIT, "ssh://git@host/org/kmod", "kmod"),
        ("git@github.com:org/kmod.git", GIT, "git@github.com:org/kmod.git", "kmod"),
        ("file:///srv/kmod.git", GIT, "file:///srv/kmod.git", "kmod"),
        (".", FOLDER, "/somewhere/here", "here"),
        ("./github.com/org/kmod", FOLDER, "/somewhere/here/github.com/org/kmod", "kmod"),
        ("my-module", FOLDER, "/somewhere/here/my-module", "my-module"),
        ("../other", FOLDER, "/somewhere/other", "other"),
        ("/srv/v4l2loopback-0.12.7", FOLDER, "/srv/v4l2loopback-0.12.7", "v4l2loopback-0.12.7"),
        ("kmod-1.2.tar.gz", TARBALL, "/somewhere/here/kmod-1.2.tar.gz", "kmod-1.2"),
        ("https://host/kmod-1.2.tar.xz", TARBALL, "https://host/kmod-1.2.tar.xz", "kmod-1.2"),
        ("file:///srv/kmod.tgz", TARBALL, "/srv/kmod.tgz", "kmod"),
        ("apt:acpi-call-dkms/trixie", PACKAGE, "apt:acpi-call-dkms/trixie", "acpi-call"),
        ("./apt:x/y", FOLDER, "/somewhere/here/apt:x/y", "y"),
    ],
)
def test_kinds(text: str, kind: str, repo: str, name: str):
    source = Source.parse(text, here=HERE)
    assert (source.kind, source.repo, source.name) == (kind, repo, name)


@pytest.mark.parametrize(
    ("repo", "ref", "path"),
    [
        ("", "", ""),
        ("--upload-pack=touch /tmp/x", "", ""),
        ("ext::sh -c id", "", ""),
        ("ext://sh", "", ""),
        ("fd::7", "", ""),
        ("host::x", "", ""),
        ("http://host/kmod.tar.gz", "", ""),
        ("https://host/x\nname", "", ""),
        ("github.com/org/kmod", "--upload-pack=x", ""),
        ("github.com/org/kmod", "a..b", ""),
        ("github.com/org/kmod", "a b", ""),
        ("github.com/org/kmod", "refs/heads/", ""),
        ("github.com/org/kmod", "a:b", ""),
        ("github.com/org/kmod", "", "../up"),
        ("github.com/org/kmod", "", "/etc"),
        (".", "main", ""),
        ("apt:acpi-call-dkms", "", ""),
        ("apt:--option/trixie", "", ""),
        ("apt:acpi-call-dkms/../etc", "", ""),
        ("apt:acpi-call-dkms/trixie", "v1", ""),
    ],
)
def test_refused(repo: str, ref: str, path: str):
    with pytest.raises(InvalidError):
        Source.parse(repo, ref, path, here=HERE)


def test_a_password_in_the_url_is_refused_and_not_repeated():
    for url in ("https://user:hunter2@host/org/kmod", "https://hunter2@host/org/kmod", "ssh://u:hunter2@host/kmod"):
        with pytest.raises(InvalidError) as error:
            Source.parse(url, here=HERE)
        assert "hunter2" not in str(error.value)
        assert "host/" in str(error.value)


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_anything_else_is_a_source_or_a_clear_error(repo: str, ref: str, path: str):
    try:
        source = Source.parse(repo, ref, path, here=HERE)
    except InvalidError:
        return
    assert not source.repo.startswith("-")
    assert ".." not in source.path.split("/")
    assert source.kind != GIT or "::" not in source.repo
