"""The YAML writer: every reader sees what was written."""

import json
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dtkpipe.engines.dump import dump
from tests.validators import read

AMBIGUOUS = (
    "", " ", "~", "null", "Null", "NULL", "true", "True", "yes", "Yes", "YES", "no", "on", "Off", "y", "Y", "n", "N",
    "0", "08", "09", "010", "0o17", "0b1", "0x1F", "1_000", "1e5", "8e12345", "1E5", "+.5", ".5", "5.", "-1", "+1",
    ".inf", "-.INF", ".nan", "inf", "NaN", "Infinity", "1:30", "190:20:30", "2024-01-01", "2024-01-01T00:00:00Z", "=",
    "<<", "-", "- a", "a: b", "a:", ":a", "a #b", "#a", "?", "? a", "&a", "*a", "!a", "!!str a", "|", ">", "%a", "@a",
    "`a", "[a", "]", "{a", "}", ",", "'a'", '"a"', "a'b", "a\\b", "a\nb", "\n", "a\n", " a", "a ", "\ta", "---",
    "--- a", "...", "a\n---\nb", "\x00", "\x07", "\x1b", "\x7f", "\x80", "\x85", "\xa0", "\u2028", "\u2029", "\ufeff",
    "\ufffe", "\uffff", "😀", "é", "/", "a/b", "a.b", "a-b", "6.1.0-53-amd64", "1e10000", "0.1.0", "1.10", "e1",
    "a1e5", "deadbeef", "123e4567", "1a",
)  # fmt: skip
texts = st.one_of(st.sampled_from(AMBIGUOUS), st.text(st.characters(codec="utf-8"), max_size=20))
data = st.recursive(
    st.one_of(texts, st.booleans(), st.integers(-(2**53), 2**53), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
documents = st.dictionaries(texts, data, min_size=1, max_size=4)


@given(documents)
@settings(max_examples=400, deadline=None)
def test_pyyaml_reads_what_was_written(document: dict) -> None:
    assert yaml.safe_load(dump([document])) == document


@given(st.lists(documents, min_size=20, max_size=20))
@settings(max_examples=20, deadline=None)
def test_kubernetes_reads_what_was_written(many: list[dict]) -> None:
    assert read([dump([one]) for one in many]) == many


def test_no_reader_takes_a_string_for_something_else() -> None:
    document = {"values": list(AMBIGUOUS), "keys": dict.fromkeys(AMBIGUOUS, 1)}
    text = dump([document])
    assert yaml.safe_load(text) == document
    assert read([text]) == [document]


def test_every_string_is_in_quotes_but_plain_words() -> None:
    assert dump([{"a": "word", "b": "8e5", "c": "y", "d": "/run/x.y-z", "e": "two words"}]) == (
        'a: word\nb: "8e5"\nc: "y"\nd: /run/x.y-z\ne: "two words"\n'
    )


def test_streams_lists_and_empty_things() -> None:
    assert dump([{"a": [], "b": {}, "c": [[1, [2]], {"d": [{"e": None}], "f": True}]}, ["x", 1.5], []]) == (
        "a: []\nb: {}\nc:\n- - 1\n  - - 2\n- d:\n  - e: null\n  f: true\n---\n- x\n- 1.500000\n---\n[]\n"
    )


@pytest.mark.parametrize("bad", [b"x", object(), {1, 2}, math.nan, (1,)])
def test_what_is_no_plain_data_is_refused(bad: object) -> None:
    with pytest.raises(TypeError):
        dump([{"a": bad}])
    with pytest.raises(TypeError):
        dump([{1: "a"}])  # type: ignore[dict-item]


def test_order_is_kept_and_nothing_is_shared() -> None:
    shared = {"b": 1, "a": 2}
    assert dump([{"y": shared, "x": shared}]) == '"y":\n  b: 1\n  a: 2\nx:\n  b: 1\n  a: 2\n'


def test_json_is_the_same_data() -> None:
    document = {"values": list(AMBIGUOUS)}
    assert json.loads(json.dumps(document)) == yaml.safe_load(dump([document]))
