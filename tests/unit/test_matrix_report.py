"""Reports of a matrix: what they say, that no author can make anything run in them, and that they stay small."""

from __future__ import annotations

import json
import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dtkpipe.app.matrix.report import FORMS, rendered
from dtkpipe.errors import InvalidError
from dtkpipe.matrix.causes import grouped
from dtkpipe.matrix.failure import Failure, record
from dtkpipe.matrix.modules import Broken
from dtkpipe.matrix.plan import Plan, Planned
from dtkpipe.report.markdown import LIMIT
from dtkpipe.report.matrix import document, folded, summary
from dtkpipe.report.matrix_page import Extra, page
from dtkpipe.values.arch import AARCH64, X86_64, Arch
from dtkpipe.values.cell import Cell, State, Target
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.key import KeyTag
from tests.fixtures.cli import Cli
from tests.fixtures.matrix import NEW, OLD, Shelf, put, toolkit
from tests.fixtures.registry import LoopbackRegistry

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> ]]> | `x` \x00\x1b[31m &amp;"


def failure(cause: str = "it broke") -> Failure:
    return Failure(
        module="m", kernel="k", arch="x86_64", step="build", kind="compile", cause=cause, lines=(cause, "more"),
        run="r", by="me@here", when=1, tool="1",
    )  # fmt: skip


def cell(module: str, number: int, state: State, arch: Arch = X86_64, **more: object) -> Planned:
    kernel = Kernel(f"5.14.0-{number}.1.el9_4.{arch}")
    target = Target(kernel=kernel, arch=arch, release="4.16.0", serves=f"4.16.{number}, 4.17.0-3")
    given: dict[str, object] = {"reason": "because"} | more
    return Planned(cell=Cell(module=module, target=target), state=state, **given)  # type: ignore[arg-type]


SMALL = Plan(
    cells=(
        cell("a", 1, State.CURRENT, image="r.io/a:key-1"), cell("a", 2, State.FAILED_BEFORE, image="r.io/a:failed-2"),
        cell("a", 3, State.FAILED_BEFORE, image="r.io/a:failed-3"), cell("a", 1, State.MISSING, AARCH64),
        cell("b", 1, State.QUARANTINED, until=date(2027, 3, 31)), cell("b", 2, State.UNKNOWN),
        cell("b", 3, State.NEW_COMMIT), cell("b", 4, State.NEW_COMMIT),
    ),
    notices=("a note",), broken=(Broken(file=Path("bad.yaml"), error=InvalidError("bad.yaml: name: is required")),),
)  # fmt: skip
FAILURES = {"r.io/a:failed-2": failure(), "r.io/a:failed-3": failure()}


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def html(plan: Plan, failures: dict[str, Failure], **more: object) -> tuple[str, Page]:
    text = page(plan, Extra(groups=grouped(plan.cells, failures), **more))  # type: ignore[arg-type]
    return text, Page(text)


def test_the_page_says_what_is_red_and_why() -> None:
    text, found = html(SMALL, FAILURES, logs={"r.io/a:failed-2": "logs/a-2.txt"}, when="today")
    assert "2 red cells, 1 cause, first bad kernel 5.14.0-2.1.el9_4.x86_64" in text
    hrefs = [value for name, value in found.attributes if name == "href"]
    ids = [value for name, value in found.attributes if name == "id"]
    assert set(hrefs) == {"logs/a-2.txt", f"#c-{failure().fingerprint.id}"}
    assert f"c-{failure().fingerprint.id}" in ids
    assert "last green before it" in text
    for words in ("quarantined until 2027-03-31", "a note", "4.16.1, 4.17.0-3", "bad.yaml", "name: is required"):
        assert words in text
    assert found.tags.count("table") == 3, "two architectures, and what is not current"


def test_the_page_needs_nothing_else_and_no_script() -> None:
    text, found = html(SMALL, FAILURES)
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on") or name in ("src", "srcset")]
    assert not re.findall(r"(?:https?:)?//\w", text.replace("<!doctype", ""))
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme:dark" in text
    checks = [value for name, value in found.attributes if name == "id" and value.startswith("f-")]
    assert checks == ["f-g", "f-r", "f-s", "f-q", "f-u", "f-only"]
    assert all(f"#{check}" in text for check in checks)


def test_what_authors_wrote_is_text_in_every_form() -> None:
    hostile = Plan(
        cells=(
            cell(HOSTILE, 1, State.FAILED_BEFORE, image="r.io/a:failed-1", reason=HOSTILE),
            cell(HOSTILE, 2, State.UNKNOWN, reason=HOSTILE),
        ),
        notices=(HOSTILE,), broken=(Broken(file=Path("bad.yaml"), error=InvalidError(HOSTILE)),),
    )  # fmt: skip
    causes = grouped(hostile.cells, {"r.io/a:failed-1": failure(HOSTILE)})
    found = Page(page(hostile, Extra(groups=causes)))
    assert not {"script", "img"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert any("<script>alert(1)</script>" in words for words in found.words)
    for form in ("junit", "badge"):
        ElementTree.fromstring(rendered(form, hostile, causes, "today", {}))
    assert json.loads(rendered("json", hostile, causes, "today", {}))["causes"][0]["cause"] == HOSTILE


def many(modules: int, kernels: int) -> Plan:
    return Plan(cells=tuple(
        cell(f"module-{one}", number, State.FAILED_BEFORE if (one + number) % 7 == 0 else State.CURRENT,
             image=f"registry.example.org/modules/module-{one}:failed-{'0' * 60}-{number}")
        for one in range(modules) for number in range(kernels)
    ))  # fmt: skip


def test_two_thousand_cells_are_less_than_a_megabyte() -> None:
    plan = many(40, 50)
    failures = {one.image: failure(f"cause {one.module}") for one in plan.cells if one.state is State.FAILED_BEFORE}
    text, found = html(plan, failures)
    assert len(text.encode()) <= 1_000_000
    assert found.tags.count("td") >= 2000
    summary_text = rendered("markdown", plan, grouped(plan.cells, failures), "today", {})
    assert len(summary_text.encode()) <= LIMIT


def test_a_summary_that_is_too_long_says_what_it_leaves_out() -> None:
    plan = Plan(cells=tuple(
        cell(f"module-{number}", 1, State.UNKNOWN, reason="x" * 900) for number in range(2000)
    ))  # fmt: skip
    text = rendered("markdown", plan, (), "today", {})
    assert len(text.encode()) <= LIMIT
    assert re.search(r"\d+ more rows are left out", text)


def test_rows_are_folded_and_counted() -> None:
    rows = folded(SMALL).rows
    assert [(row[0], row[2], row[5]) for row in rows] == [
        ("bad.yaml", "", "broken"), ("a", "1", "current"), ("a", "2", "failed-before"), ("a", "1", "missing"),
        ("b", "1", "quarantined until 2027-03-31"), ("b", "1", "unknown"), ("b", "2", "new-commit"),
    ]  # fmt: skip
    assert summary(SMALL) == (
        "8 cells: 1 missing, 2 new-commit, 2 failed-before, 1 quarantined, 1 current, 1 unknown; "
        "1 module spec cannot be read"
    )
    assert document(SMALL)["stale"] == 3


def test_junit_counts_add_up() -> None:
    root = ElementTree.fromstring(rendered("junit", SMALL, grouped(SMALL.cells, FAILURES), "today", {}))
    counts = {
        suite.get("name"): tuple(int(suite.get(name, "")) for name in ("tests", "failures", "errors", "skipped"))
        for suite in root
    }
    assert counts == {"a": (4, 2, 0, 1), "b": (4, 0, 1, 3), "bad.yaml": (1, 1, 0, 0)}
    for suite in root:
        assert len(suite.findall(".//failure")) == int(suite.get("failures", ""))
        assert len(suite.findall(".//skipped")) == int(suite.get("skipped", ""))
    assert root[0].find(".//failure").get("message") == "compile: it broke"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("states", "words", "colour"),
    [
        ([State.CURRENT, State.CURRENT], "2 of 2 current", "#1a7f37"),
        ([State.CURRENT, State.MISSING], "1 of 2 current", "#9a6700"),
        ([State.CURRENT, State.UNKNOWN], "1 of 2 current", "#9a6700"),
        ([State.CURRENT, State.FAILED_BEFORE], "1 of 2 current, 1 red", "#cf222e"),
    ],
)
def test_the_badge_is_never_green_over_red(states: list[State], words: str, colour: str) -> None:
    plan = Plan(cells=tuple(cell("a", number, state) for number, state in enumerate(states)))
    text = rendered("badge", plan, (), "today", {})
    assert words in text
    assert colour in text


def test_the_command_writes_every_form_and_the_logs_of_red_cells(
    cli: Cli, registry: LoopbackRegistry, tmp_path: Path
) -> None:
    shelf = Shelf.at(cli.here)
    shelf.module("one")
    place = registry.repo(tmp_path.name.replace("_", "-"))
    repo = ImageRef.parse(f"{place}/one")
    put(registry.client, repo, KeyTag(shelf.key("one", f"{OLD}.x86_64", toolkit("4.16.0")), "unsigned"))
    red = KeyTag(shelf.key("one", f"{NEW}.x86_64", toolkit("4.17.1")), "unsigned", 1_790_000_000)
    record(registry.client, repo.tagged(str(red)), failure(), b"the whole story\n")
    words = ("matrix", "report", "--modules", "modules/*", "--releases", "4.16..4.17", "--arch", "x86_64", "--lock",
             "lock", "--push-to", str(place), "--insecure-registry", place.registry)  # fmt: skip
    said = cli(*words, "--dir", "public/site")
    assert said.code == 0, said.err
    site = cli.here / "public/site"
    assert {path.name for path in site.iterdir()} == {
        "index.html", "matrix.json", "badge.svg", "junit.xml", "summary.md", "logs"
    }  # fmt: skip
    assert (site / f"logs/one-{NEW}.x86_64.txt").read_text() == "the whole story\n"
    assert f'href="logs/one-{NEW}.x86_64.txt"' in (site / "index.html").read_text()
    assert json.loads((site / "matrix.json").read_text())["causes"][0]["lastGreen"] == f"{OLD}.x86_64"
    assert cli(*words, "--dir", "public", "-o", "json").code == 2
    for form in FORMS:
        alone = cli(*words, "-o", form)
        assert (alone.code, bool(alone.out)) == (0, True), alone.err
