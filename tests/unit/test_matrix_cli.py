"""`dtkpipe matrix plan` as users call it, against a real registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dtkpipe.values.image import ImageRef
from dtkpipe.values.key import KeyTag
from tests.fixtures.cli import Cli, Said
from tests.fixtures.faults import Answer, on, proxied
from tests.fixtures.matrix import NEW, OLD, Shelf, put, toolkit
from tests.fixtures.registry import LoopbackRegistry


@pytest.fixture
def shelf(cli: Cli) -> Shelf:
    shelf = Shelf.at(cli.here)
    shelf.module("one")
    shelf.module("two", more="kernels: {max: '5.14.0-450'}\n")
    return shelf


@pytest.fixture
def place(registry: LoopbackRegistry, tmp_path: Path) -> ImageRef:
    """A place of the test's own."""
    return registry.repo(tmp_path.name.replace("_", "-"))


def words(place: ImageRef, *more: str) -> tuple[str, ...]:
    return ("matrix", "plan", "--modules", "modules/*", "--releases", "4.16..4.17", "--arch", "x86_64", "--lock",
            "lock", "--push-to", str(place), "--insecure-registry", place.registry, *more)  # fmt: skip


def states(said: Said) -> dict[str, str]:
    return {f"{cell['module']} {cell['kernel']}": cell["state"] for cell in json.loads(said.out)["cells"]}


def test_what_is_published_is_current_and_the_rest_is_told(
    cli: Cli, shelf: Shelf, registry: LoopbackRegistry, place: ImageRef
) -> None:
    first = cli(*words(place))
    assert first.code == 1, first.err
    assert "3 cells: 3 missing" in first.err
    assert "two is for kernels up to 5.14.0-450: 1 of the kernels left out" in first.err
    (row,) = (line.split("  ") for line in first.out.splitlines() if line.startswith("one"))
    assert [cell.strip() for cell in row if cell][:5] == [
        "one", "x86_64", "2", f"{OLD}.x86_64 .. {NEW}.x86_64", "4.16.0-2 .. 4.17.1"
    ]  # fmt: skip

    for name in ("one", "two"):
        key = KeyTag(shelf.key(name, f"{OLD}.x86_64", toolkit("4.16.0")), "unsigned")
        put(registry.client, ImageRef.parse(f"{place}/{name}"), key)
    second = cli(*words(place, "-o", "json"))
    assert second.code == 1
    assert states(second) == {
        f"one {OLD}.x86_64": "current", f"one {NEW}.x86_64": "new-kernel", f"two {OLD}.x86_64": "current"
    }  # fmt: skip
    cell = json.loads(second.out)["cells"][0]
    assert registry.client.exists(ImageRef.parse(cell["image"]))
    assert cli(*words(place, "-o", "name")).out == f"one/{NEW}.x86_64\n"

    put(registry.client, ImageRef.parse(f"{place}/one"), KeyTag(
        shelf.key("one", f"{NEW}.x86_64", toolkit("4.17.1")), "unsigned"))  # fmt: skip
    assert cli(*words(place)).code == 0


def test_a_broken_spec_is_a_row_of_its_own(cli: Cli, shelf: Shelf, place: ImageRef) -> None:
    (shelf.root / "modules/bad.yaml").write_text("name: bad\nmodulse: [a]\n")
    said = cli(*words(place, "-o", "wide"))
    assert said.code == 1
    assert "bad.yaml" in said.out
    assert "modulse: unknown key" in said.out
    assert "3 cells: 3 missing; 1 module spec cannot be read" in said.err
    for file in ("one", "two"):
        (shelf.root / f"modules/{file}.yaml").unlink()
    alone = cli(*words(place, "-o", "json"))
    assert alone.code == 6
    assert json.loads(alone.out)["broken"][0]["file"] == "bad.yaml"


def test_a_source_or_registry_that_does_not_answer_is_unknown_and_not_stale(
    cli: Cli, shelf: Shelf, registry: LoopbackRegistry, place: ImageRef
) -> None:
    for name in ("one", "two"):
        for kernel, release in ((OLD, "4.16.0"), (NEW, "4.17.1")):
            tag = KeyTag(shelf.key(name, f"{kernel}.x86_64", toolkit(release)), "unsigned")
            put(registry.client, ImageRef.parse(f"{place}/{name}"), tag)
    with proxied(registry.host) as proxy:
        through = ImageRef(proxy.host, place.repository)
        portal = Answer(200, body=b"<html>captive portal</html>")
        proxy.faults.append(on("GET", "/two/tags/list", lambda one: one.say(portal)))
        said = cli(*words(through, "-o", "json"))
    assert said.code == 12, said.err
    assert set(states(said).values()) == {"current", "unknown"}
    assert states(said)[f"two {OLD}.x86_64"] == "unknown"
    (shelf.root / "modules/one.yaml").write_text("name: one\nsource: {repo: ../sources/gone}\n")
    gone = cli(*words(place, "-o", "json"))
    assert states(gone)[f"one {OLD}.x86_64"] == "unknown"
    assert "there is no folder" in gone.out


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--modules", "nowhere/*"), 9, "`nowhere/*` finds no module spec"),
        (("--releases", "4.99"), 9, "no kernel of std on x86_64 is known"),
        (("--releases", "4.16", "--variant", "cloud"), 9, "no kernel of cloud on x86_64 is known"),
        (("--releases", "4.17.1", "--modules", "modules/two.yaml"), 9, "no cell is left"),
        (("--releases", "4.16..4.15"), 9, "no kernel"),
        (("--releases", ""), 2, "names no release"),
        (("--arch", "sparc"), 5, "unknown architecture `sparc`"),
        (("--push-to", "not a place"), 6, "is not an image reference"),
        (("--sign-cert", "no.pem"), 2, "`no.pem` cannot be read"),
        (("--modules", "modules/*", "--lock", "nowhere"), 9, "no kernel"),
    ],
)
def test_bad_input_is_told(
    cli: Cli, shelf: Shelf, place: ImageRef, more: tuple[str, ...], code: int, said: str
) -> None:
    given = dict(zip(words(place)[2::2], words(place)[3::2], strict=True)) | dict(
        zip(more[::2], more[1::2], strict=True)
    )
    answer = cli("matrix", "plan", *(word for pair in given.items() for word in pair))
    assert (answer.code, answer.out) == (code, ""), answer.err
    assert said in answer.err
    assert "Traceback" not in answer.err
