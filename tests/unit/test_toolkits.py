"""What the catalogue says of toolkits, and what a plan makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dtkpipe.errors import NotFoundError
from dtkpipe.toolkits.distribution import distributions
from dtkpipe.toolkits.existing import kernel_named
from dtkpipe.toolkits.plan import Plan, nearest
from dtkpipe.tools.apt import Package
from dtkpipe.values.arch import AARCH64, X86_64, Arch
from dtkpipe.values.kernel import Kernel

DEBIAN = {one.name: one for one in distributions()}


def package(name: str, version: str = "1-1") -> Package:
    return Package(name, version, "amd64", "0" * 64, 1, ())


PLAN = Plan(
    distribution=DEBIAN["debian-12"], kernel=Kernel("6.12.107+deb12-amd64"), target=X86_64, host=X86_64,
    base=(package("gcc"), package("make")), image=package("linux-image"), headers=(package("linux-headers"),),
    support=(),
)  # fmt: skip


def test_catalogue() -> None:
    assert list(DEBIAN) == ["debian-12", "debian-13"]
    for one in DEBIAN.values():
        assert set(one.flavours) == {"std", "cloud", "rt"}
        assert one.suffix("cloud", AARCH64) == "cloud-arm64"
        assert one.suffix("std", X86_64) == "amd64"


def test_unknown_variant_names_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="no kernel variant `64k`") as caught:
        DEBIAN["debian-12"].suffix("64k", X86_64)
    assert "std, cloud, rt" in str(caught.value)


def test_compiler_for_another_architecture() -> None:
    assert "gcc" in DEBIAN["debian-12"].packages(X86_64, X86_64)
    assert "gcc-aarch64-linux-gnu" in DEBIAN["debian-12"].packages(AARCH64, X86_64)
    assert "gcc-x86-64-linux-gnu" in DEBIAN["debian-12"].packages(X86_64, AARCH64)
    assert "gcc" not in DEBIAN["debian-12"].packages(AARCH64, X86_64)


def test_tag_is_readable_and_a_valid_tag() -> None:
    assert PLAN.tag.startswith("debian-12-6.12.107_deb12-amd64-")
    assert len(PLAN.tag.rsplit("-", 1)[1]) == 12


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAN, base=(package("gcc", "2-1"), package("make"))),
        replace(PLAN, image=package("linux-image", "1-2")),
        replace(PLAN, support=(package("linux-kbuild"),)),
        replace(PLAN, host=AARCH64),
        replace(PLAN, kernel=Kernel("6.12.107+deb12-cloud-amd64")),
    ],
)
def test_key_changes_with_what_is_in_the_toolkit(other: Plan) -> None:
    assert other.tag.rsplit("-", 1)[1] != PLAN.tag.rsplit("-", 1)[1]


def test_kernels_of_a_suite_share_the_base() -> None:
    other = replace(PLAN, kernel=Kernel("6.1.0-56-amd64"), image=package("linux-image", "6.1"))
    assert other.base_key == PLAN.base_key
    assert other.kernel_key != PLAN.kernel_key


KERNELS = [Kernel(f"6.1.0-{number}-{flavour}") for number in (9, 47, 53, 56) for flavour in ("amd64", "cloud-amd64")]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("6.1.0-50-cloud-amd64", ["6.1.0-9", "6.1.0-47", "6.1.0-53", "6.1.0-56"]),
        ("6.1.0-99-cloud-amd64", ["6.1.0-53", "6.1.0-56"]),
        ("5.10.0-1-cloud-amd64", ["6.1.0-9", "6.1.0-47", "6.1.0-56"]),
    ],
)
def test_nearest_kernels_are_the_neighbours_of_the_same_flavour(asked: str, expected: list[str]) -> None:
    assert nearest(Kernel(asked), KERNELS) == [f"{one}-cloud-amd64" for one in expected]


def test_nearest_of_a_flavour_that_is_not_there() -> None:
    assert nearest(Kernel("6.1.0-56-rt-amd64"), KERNELS)
    assert nearest(Kernel("6.1.0-56-rt-amd64"), []) == []


@pytest.mark.parametrize(
    ("value", "arch", "expected"),
    [
        ("5.14.0-427.50.1.el9_4.x86_64", None, "5.14.0-427.50.1.el9_4.x86_64"),
        ("5.14.0-427.50.1.el9_4.x86_64+rt", X86_64, "5.14.0-427.50.1.el9_4.x86_64+rt"),
        ("4.18.0-305.45.1.el8_4", X86_64, "4.18.0-305.45.1.el8_4.x86_64"),
        ("5.14.0-284.45.1.rt14.330.el9_2.x86_64", None, "5.14.0-284.45.1.rt14.330.el9_2.x86_64"),
        ("6.12.0-231.12.el10nv.aarch64+64k", None, "6.12.0-231.12.el10nv.aarch64+64k"),
        ("6.1.0-56-cloud-amd64", None, "6.1.0-56-cloud-amd64"),
        ("6.12.107+deb12-rt-arm64", AARCH64, "6.12.107+deb12-rt-arm64"),
        (" 5.14.0-1.el9.x86_64\n", None, "5.14.0-1.el9.x86_64"),
        ("4.18.0-305.45.1.el8_4", None, ""),
        ("package kernel-rt-core is not installed", None, ""),
        ("package kernel-rt-core is not installed+rt", AARCH64, ""),
        ("5.14.0-1.el9.x86_645.14.0-2.el9.x86_64", None, ""),
        ("5.14.0-1.el9.x86_64", AARCH64, ""),
        ("", None, ""),
        ("../../etc/passwd", None, ""),
        (None, None, ""),
        (["6.1.0-56-amd64"], None, ""),
    ],
)
def test_only_what_is_one_kernel_release_counts(value: object, arch: Arch | None, expected: str) -> None:
    found = kernel_named(value, arch)
    assert (found.release if found else "") == expected
