"""A value is data on every engine, or is refused by name: nothing a user can pass becomes code or another value."""

import re
import unicodedata

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dtkpipe.app.compile import Wanted, compile_pipeline
from dtkpipe.engines.dump import dump
from dtkpipe.engines.rendered import Form
from dtkpipe.errors import InvalidError, UsageError
from dtkpipe.model import InputRef, Joined, Pipeline, container, param
from dtkpipe.model.check import LONGEST, check
from tests.contract.compiled import ENGINES, PARAMS, nodes, objects, pipeline
from tests.validators import judge, read

MARKS = ("$(", "{{", "$$")
HOSTILE = (
    "$(params.repo)", "$(context.pipelineRun.name)", "$$(HOME)", "{{workflow.name}}", "{{=1+1}}", "{{", "}}", "$",
    "$(", "`id`", "$HOME", "; rm -rf /", "&& id", "| id", "> /etc/passwd", "'", '"', "\\", "\\n", "\n", "\r\n", "\t",
    "a\nb: c", "--version", "-x", "--", " ", "", "null", "~", "true", "no", "y", "08", "1e5", "0o17", "0x1f", ".5",
    "1_000", "12:30", "2024-01-01", "=", "<<", "*x", "&x", "!x", "%x", "@x", "#x", "? x", ": x", "- x", "[]", "{}",
    "é", "\u2028", "\ufeff", "\x07", "\x1b", "\x7f", "\U000f0000", "\x85", "😀", "\ud800", "\0",
    "%s", "{0}", "{name}", "${HOME}",
)  # fmt: skip
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join),
)


def is_data(value: str) -> bool:
    odd = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", value)
    beyond = [unicodedata.category(char)[0] for char in value if char > "\uffff"]
    return not any(mark in value for mark in MARKS) and not odd and not {"C", "Z"} & set(beyond)


def carried(engine: str, value: str) -> str:
    """The YAML of a run whose parameter `ref` is `value`."""
    wanted = Wanted(engine=engine, form=Form.RUN, params={**PARAMS, "ref": value})
    return dump(compile_pipeline(pipeline("kmod"), wanted).objects)


def ref_in(engine: str, document: dict) -> str:
    return next(one["value"] for one in _given(engine, document) if one["name"] == "ref")


def _given(engine: str, document: dict) -> list[dict]:
    spec = document["spec"]
    return spec["arguments"]["parameters"] if engine == "argo" else spec["params"]


@pytest.mark.parametrize("engine", ENGINES)
@given(value=texts)
@settings(max_examples=300, deadline=None)
def test_a_value_of_a_parameter_is_data_or_refused(engine: str, value: str) -> None:
    if not is_data(value):
        with pytest.raises(UsageError, match="parameter `ref`"):
            carried(engine, value)
        return
    document = yaml.safe_load(carried(engine, value))
    assert ref_in(engine, document) == value
    rest = yaml.safe_load(carried(engine, "another"))
    assert document != rest or value == "another"
    for one in (document, rest):
        next(given for given in _given(engine, one) if given["name"] == "ref").clear()
    assert document == rest  # nothing else depends on the value


@pytest.mark.parametrize("engine", ENGINES)
def test_the_engines_read_the_same_value(engine: str) -> None:
    values = [value for value in HOSTILE if is_data(value)]
    texts = [carried(engine, value) for value in values]
    assert [ref_in(engine, document) for document in read(texts)] == values  # type: ignore[arg-type]
    installed = dump(objects("argo", "kmod")) + "---\n" if engine == "argo" else ""
    assert not [
        (value, answer)
        for value, answer in zip(values, judge(engine, [installed + text for text in texts]), strict=True)
        if answer
    ]


harmless = [one for one in HOSTILE if is_data(one)]
data = st.one_of(
    st.sampled_from(harmless),
    st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=40).filter(is_data),
    st.lists(st.sampled_from(harmless), max_size=4).map("".join).filter(is_data),
)
"""Made so that few are thrown away: hypothesis refuses to draw for long."""


@pytest.mark.parametrize("engine", ENGINES)
@given(values=st.lists(data, min_size=20, max_size=20))
@settings(max_examples=15, deadline=None)
def test_the_engines_validator_takes_any_value(engine: str, values: list[str]) -> None:
    installed = dump(objects("argo", "kmod")) + "---\n" if engine == "argo" else ""
    assert judge(engine, [installed + carried(engine, value) for value in values]) == [[]] * len(values)


def of_ones_own(literal: str) -> Pipeline:
    declared, value = param("given", literal, default=literal)
    task = container(
        "own",
        image="registry.example/org/own:1",
        description=literal,
        argv=["own", literal, Joined(("--given=", InputRef("given"), literal))],
        env={"TEXT": literal},
        inputs={"given": value},
        params=[declared],
    )
    return Pipeline("own", literal, [task])


@pytest.mark.parametrize("engine", ENGINES)
@given(literal=texts)
@example(literal="(HOME)")
@settings(max_examples=200, deadline=None)
def test_a_text_of_a_pipeline_is_data_or_refused(engine: str, literal: str) -> None:
    made = of_ones_own(literal)
    if not is_data(literal) or literal[:1] in tuple("({"):
        with pytest.raises(InvalidError):
            check(made)
        return
    check(made)
    rendered = compile_pipeline(made, Wanted(engine=engine, params={}))
    documents = list(yaml.safe_load_all(dump(rendered.objects)))
    assert documents == list(rendered.objects)
    if engine == "argo":
        ran = next(one for one in documents[0]["spec"]["templates"] if one["name"] == "own")["container"]
        inside = "{{inputs.parameters.given}}"
    else:
        ran = documents[0]["spec"]["steps"][0]
        inside = "$(params.given)"
    assert ran["command"] == ["own"]
    assert ran["args"] == [literal, f"--given={inside}{literal}"]
    assert {"name": "TEXT", "value": literal} in ran["env"]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_value_has_an_argument_of_its_own(engine: str) -> None:
    """So a value that begins with a hyphen is no option, and one with spaces no second argument."""
    for task, node in nodes(engine, "kmod").items():
        for token in node.container["args"]:
            if "<input " in token:
                assert re.fullmatch(r"--[a-z-]+=<input [a-z-]+>", token), task


@pytest.mark.parametrize("engine", ENGINES)
def test_a_value_too_long_for_an_argument_is_refused(engine: str) -> None:
    assert carried(engine, "x" * LONGEST)
    with pytest.raises(UsageError, match="parameter `ref` is longer"):
        carried(engine, "é" * LONGEST)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", Form)
def test_the_same_input_gives_the_same_bytes(engine: str, form: Form) -> None:
    def once(params: dict[str, str]) -> str:
        wanted = Wanted(engine=engine, form=form, params=params)
        return dump(compile_pipeline(pipeline("kmod"), wanted).objects)

    assert once(PARAMS) == once(dict(reversed(PARAMS.items())))
