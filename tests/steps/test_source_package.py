"""Sources out of Debian's -dkms packages, with the machine's own apt."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtkpipe.errors import InvalidError, NotFoundError
from dtkpipe.source.fetch import fetch, identify
from dtkpipe.source.recognise import recognise
from dtkpipe.tools.apt import Archive
from dtkpipe.values.arch import Arch
from dtkpipe.values.source import Source

pytestmark = pytest.mark.tools


def test_a_package_of_a_suite_as_it_is_in_the_archive(tmp_path: Path, shared_cache: Path):
    source = Source.parse("apt:acpi-call-dkms/bookworm", here=tmp_path)
    found = fetch(source, tmp_path / "source")
    newest = Archive("bookworm", Arch.host(), shared_cache).newest("acpi-call-dkms")
    assert found.commit == f"sha256:{newest.sha256}"
    assert found.title == f"package acpi-call-dkms {newest.version} of bookworm"
    assert identify(source) == (found.commit, found.title)
    assert {"acpi_call.c", "dkms.conf", "Makefile"} <= {path.name for path in found.root.iterdir()}
    assert recognise(found.folder, "x").spec.names == ("acpi_call",)


def test_packages_without_a_source_and_none_at_all(tmp_path: Path):
    with pytest.raises(InvalidError, match="the package kmod of bookworm holds no source"):
        fetch(Source.parse("apt:kmod/bookworm", here=tmp_path), tmp_path / "none")
    with pytest.raises(NotFoundError, match="bookworm has no package `no-such-dkms`"):
        fetch(Source.parse("apt:no-such-dkms/bookworm", here=tmp_path), tmp_path / "none")
    assert not (tmp_path / "none").exists()
