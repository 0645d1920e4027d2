"""The pages are true: links lead somewhere, commands and flags exist, generated pages are fresh, examples are valid."""

import re
from pathlib import Path

import pytest
import typer

from dtkpipe.cli.application import COMMANDS, load
from dtkpipe.cli.step import names, run_step
from dtkpipe.values.module import ModuleSpec
from tests import reference
from tests.pages import PAGES, ROOT, anchors, blocks, commands, links

KINDS = {
    "c",
    "console",
    "json",
    "make",
    "mermaid",
    "python",
    "sh",
    "sh run",
    "sh run exit-1",
    "sh run exit-10",
    "text",
    "yaml",
}


def by_page(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=by_page)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=by_page)
def test_commands_exist_with_those_flags(page: Path) -> None:
    for where, words in commands(page):
        if words[:1] == ["dtkpipe"]:
            check(where, words[1:])
        elif words[:1] == ["make"]:
            targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            assert set(words[1:]) <= targets, where


def check(where: str, words: list[str]) -> None:
    """Fail unless the command line parses."""
    name, *rest = words
    if name.startswith("-"):
        assert name in ("--help", "--version", "--install-completion"), where
        return
    assert name in COMMANDS, where
    if name == "step":
        check_step(where, rest)
        return
    found = load(name)
    while rest and rest[0] in getattr(found, "commands", {}):
        found = found.commands[rest.pop(0)]
    context = typer.Context(found, info_name=name)
    try:
        found.make_parser(context).parse_args([word for word in rest if word != "..."])
    except typer.TyperException as error:
        pytest.fail(f"{where}: dtkpipe {' '.join(words)}: {error.format_message()}")


def check_step(where: str, rest: list[str]) -> None:
    from dtkpipe.cli.step import _module, _split

    if rest[0] == "NAME":
        return
    assert rest[0] in names(), where
    _split(rest[1:], _module(rest[0]))


def test_the_checker_finds_what_is_wrong() -> None:
    with pytest.raises(pytest.fail.Exception, match="no-such-flag"):
        check("here", ["submit", "--no-such-flag"])
    with pytest.raises(AssertionError):
        check("here", ["sumbit"])
    assert run_step(["--help"]) == 0


@pytest.mark.parametrize("page", PAGES, ids=by_page)
def test_blocks_say_their_language(page: Path) -> None:
    assert {block.info for block in blocks(page)} <= KINDS
    assert not [block.where for block in blocks(page) if not block.info]


@pytest.mark.parametrize("page", PAGES, ids=by_page)
def test_examples_of_the_module_spec_are_valid(page: Path) -> None:
    for block in blocks(page):
        if block.info == "yaml" and "apiVersion: dtkpipe/v1" in block.body:
            ModuleSpec.from_text(block.body, where=block.where)


def test_the_page_about_the_module_spec_shows_and_explains_every_key() -> None:
    page = ROOT / "docs" / "reference" / "dtkpipe-yaml.md"
    (example,) = (block for block in blocks(page) if block.info == "yaml")
    shown = keys(ModuleSpec.from_text(example.body).to_mapping())
    every = keys(
        ModuleSpec.from_text(
            "{name: a, source: {repo: a.example/b, ref: r, path: p},"
            "modules: [{name: m, parameters: [x=1], firmware: [f]}],"
            "build: {recipe: kbuild, make: [A=1], packages: [p], patches: [{file: f, kernel: '>=6'}], args: {A: '1'}},"
            "inTreeModulesToRemove: [o], checks: [{run: [t], timeout: 1s}], unload: never, arches: [x86_64],"
            "kernels: {min: '5', max: '6', variants: [std]}, exclusions: [{kernel: '6', variants: [std],"
            "arches: [x86_64], reason: r, until: 2027-01-01}]}"
        ).to_mapping()
    )
    assert shown == every
    text = page.read_text()
    assert not [key for key in {*every, "containerfile"} if f"{key}" not in text.partition("| key |")[2]]


def keys(value: object) -> set[str]:
    if isinstance(value, dict):
        named = {key for key in value if key not in ("A", "WITH_DEBUG", "apiVersion")}
        return named.union(*(keys(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(keys(item) for item in value))
    return set()


@pytest.mark.parametrize("name", reference.PAGES)
def test_generated_page_is_fresh(name: str) -> None:
    """`make docs` writes it."""
    assert (reference.FOLDER / name).read_text() == reference.page(name)
