"""The verdicts of nodes fit into a result, and what fails is seen first."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.values.health import FAILS, LIMIT, REPORTED, WELL, WORDS, NodeVerdict, effect, pack, unpack

NAMES = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,60}", fullmatch=True)
ANY = st.builds(NodeVerdict, node=NAMES, word=st.sampled_from(list(WORDS)), reason=st.text())


def test_what_fails_comes_first() -> None:
    verdicts = [
        NodeVerdict(node="a", word="healthy"), NodeVerdict(node="b", word="other-kernel", reason="runs 5"),
        NodeVerdict(node="c", word="not-loaded", reason="hello is not in /proc/modules"),
        NodeVerdict(node="d", word="node-not-ready", reason="down"),
    ]  # fmt: skip
    assert unpack(pack(verdicts)) == {
        "c": "not-loaded: hello is not in /proc/modules", "d": "node-not-ready: down", "a": "healthy",
        "b": "other-kernel: runs 5",
    }  # fmt: skip


def test_what_is_left_out_is_counted() -> None:
    verdicts = [NodeVerdict(node=f"node{number:03}", word="healthy") for number in range(200)]
    verdicts += [NodeVerdict(node="bad", word="check-failed", reason="x" * 1000)]
    found = unpack(pack(verdicts))
    assert next(iter(found)) == "bad"
    (more,) = [node for node in found if node.endswith(" more")]
    assert found[more] == f"{201 - len(found) + 1} healthy"


@given(st.lists(ANY, max_size=40, unique_by=lambda one: one.node))
def test_any_verdicts_fit_and_can_be_read_again(verdicts: list[NodeVerdict]) -> None:
    text = pack(verdicts)
    assert len(text.encode()) <= LIMIT
    for node, said in unpack(text).items():
        assert effect(node, said) in (FAILS, REPORTED, WELL)
    if any(one.fails for one in verdicts):
        assert FAILS in [effect(node, said) for node, said in unpack(text).items()]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_what_is_no_result_has_no_nodes(text: str) -> None:
    assert unpack(text) == {}


def test_what_a_verdict_means_is_told_from_its_text() -> None:
    assert effect("worker", "healthy") == WELL
    assert effect("worker", "node-not-ready: down") == REPORTED
    assert effect("worker", "wrong-build: healthy") == FAILS
    assert effect("12 more", "10 healthy, 2 other-kernel") == REPORTED
    assert effect("12 more", "10 healthy, 2 not-loaded") == FAILS
    assert effect("worker", "a word of a later version") == FAILS


def test_words_explain_themselves() -> None:
    for word in WORDS.values():
        assert word.meaning.endswith(".")
        assert word.fix or word.effect == WELL
    assert json.loads(pack([])) == {}
