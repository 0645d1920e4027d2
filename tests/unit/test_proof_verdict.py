"""Verdicts: stable codes, and evidence that fits into a step's result."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import InvalidError
from dtkpipe.proof.verdict import (
    CODES,
    EVIDENCE_LIMIT,
    SCHEMA,
    Proof,
    Refusal,
    Verdict,
    pack_evidence,
    unpack_evidence,
)


def _verdict(*refusals: Refusal | None, facts: dict | None = None) -> Verdict:
    proofs = tuple(
        Proof(name=f"proof{number}", seconds=0.5, summary="what was found", facts=facts or {}, refusal=refusal)
        for number, refusal in enumerate(refusals)
    )
    return Verdict(image="localhost:5000/a@sha256:1", kernel="6.1.0", arch="x86_64", proofs=proofs)


def test_the_codes_are_the_public_contract() -> None:
    assert list(CODES) == [
        "vermagic-mismatch", "module-missing", "module-unexpected", "wrong-architecture", "symbol-missing",
        "symbol-crc-mismatch", "unsigned", "wrong-signer", "boot-failed", "load-failed", "load-timeout",
        "kernel-panic", "kernel-log", "identity-mismatch", "check-failed", "unload-failed", "unsigned-accepted",
    ]  # fmt: skip
    assert all(code.meaning.endswith(".") and code.fix for code in CODES.values())


def test_the_first_proof_that_failed_gives_the_code() -> None:
    refusal = Refusal(code="kernel-log", reason="BUG: it broke", details=("a", "b"))
    verdict = _verdict(None, None, refusal)
    assert verdict.text == "refused: kernel-log"
    document = verdict.document()
    assert (document["verdict"], document["code"], document["reason"]) == ("refused", "kernel-log", "BUG: it broke")
    assert [proof["result"] for proof in document["proofs"]] == ["passed", "passed", "failed"]
    assert document["fix"] == CODES["kernel-log"].fix


def test_no_failed_proof_is_proven() -> None:
    assert _verdict(None, None).text == "proven"
    assert _verdict(None).document()["code"] == ""


def test_evidence_comes_back_as_it_was() -> None:
    document = _verdict(None, facts={"log": ["one", "zwei ü"]}).document()
    assert unpack_evidence(pack_evidence(document)) == document


@given(st.lists(st.text(max_size=3000), max_size=40), st.dictionaries(st.text(max_size=50), st.text(max_size=500)))
def test_evidence_always_fits(lines: list[str], facts: dict[str, str]) -> None:
    refusal = Refusal(code="kernel-log", reason="r" * 500, details=tuple(lines))
    packed = pack_evidence(_verdict(None, refusal, facts={"log": lines, "facts": facts}).document())
    assert len(packed) <= EVIDENCE_LIMIT
    document = unpack_evidence(packed)
    assert (document["verdict"], document["code"]) == ("refused", "kernel-log")


@pytest.mark.parametrize("text", ["", "not base64!", "aGVsbG8=", pack_evidence({"schema": "other/v1"})])
def test_what_is_no_evidence_is_said(text: str) -> None:
    with pytest.raises(InvalidError):
        unpack_evidence(text)


def test_the_document_is_json() -> None:
    assert json.loads(json.dumps(_verdict(None).document()))["schema"] == SCHEMA


def test_a_terminal_does_not_obey_what_modules_say() -> None:
    refusal = Refusal(code="kernel-log", reason="\x1b[2Jgone", details=("tab\t", "ü …")).plain()
    assert (refusal.reason, refusal.details) == ("\\x1b[2Jgone", ("tab\\t", "ü …"))
