"""The run card as terminal text, Markdown and JUnit: true to the card, and safe whatever a module prints."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.proof.verdict import Proof, Verdict
from dtkpipe.report import card as report
from dtkpipe.report.junit import junit
from dtkpipe.report.markdown import LIMIT, code, markdown
from dtkpipe.values.run import FAILED, PENDING, SUCCEEDED, RunCard, StepRecord

DIGEST = "sha256:" + "a" * 64
PROVEN = RunCard(
    name="hello-x7k2p", engine="local", pipeline="prebuild", state=SUCCEEDED, created=1000, finished=1014.25,
    inputs={"repo": "catalog/samples/hello", "release": "debian-12"},
    steps=(
        StepRecord(
            name="resolve", state=SUCCEEDED, started=1000, finished=1000.5, reused=True,
            results={"KERNEL": "6.1.0-53-cloud-amd64", "RELEASE": "debian-12"},
        ),
        StepRecord(name="verify", state=SUCCEEDED, started=1001, finished=1004, results={"VERDICT": "proven"}),
        StepRecord(
            name="publish", state=SUCCEEDED, started=1010, finished=1014,
            results={"IMAGE_URL": "quay.io/org/hello", "IMAGE_DIGEST": DIGEST, "TAGS": "6.1.0-53-cloud-amd64"},
        ),
    ),
    verdict=Verdict(
        image="quay.io/org/hello", kernel="6.1.0-53-cloud-amd64", arch="x86_64",
        proofs=(Proof(name="vermagic", seconds=0.01, summary="1 module for 6.1.0-53-cloud-amd64"),),
    ).document(),
    nodes={"worker-0": "healthy"},
)  # fmt: skip
REFUSED = replace(
    PROVEN, name="hello-b2b2b", state=FAILED, cause="refused: vermagic-mismatch", nodes={},
    steps=(
        *PROVEN.steps[:1],
        StepRecord(
            name="verify", state=FAILED, started=1001, finished=1075, exit_code=10, log="run/verify.log",
            cause="refused: vermagic-mismatch", results={"VERDICT": "refused: vermagic-mismatch"},
        ),
        StepRecord(name="publish", state=PENDING),
    ),
)  # fmt: skip


def test_terminal_text() -> None:
    assert report.text(PROVEN) == (
        "hello-x7k2p succeeded in 14.2 s\n"
        "\n"
        "source   catalog/samples/hello\n"
        "release  debian-12\n"
        "kernel   6.1.0-53-cloud-amd64\n"
        "verdict  proven\n"
        f"image    quay.io/org/hello@{DIGEST}\n"
        "tags     6.1.0-53-cloud-amd64\n"
        "\n"
        "TASK     STATE      TIME   NOTE\n"
        "resolve  succeeded  0.5 s  reused\n"
        "verify   succeeded  3.0 s\n"
        "publish  succeeded  4.0 s\n"
        "\n"
        "PROOF     RESULT  TIME   WHAT IT FOUND\n"
        "vermagic  passed  0.0 s  1 module for 6.1.0-53-cloud-amd64\n"
        "\n"
        "NODE      VERDICT\n"
        "worker-0  healthy\n"
    )


def test_what_never_happened_is_not_claimed() -> None:
    text = report.text(REFUSED)
    assert "refused: vermagic-mismatch" in text.splitlines()[0]
    assert "image" not in text
    assert "NODE" not in text
    assert re.search(r"verify +failed +1 min 14 s +refused: vermagic-mismatch", text)
    assert re.search(r"publish +pending$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, ""),
        (-3, ""),
        (0.04, "0.0 s"),
        (12.34, "12.3 s"),
        (59.4, "59.4 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
    ],
)
def test_durations(value: float, words: str) -> None:
    assert report.seconds(value) == words


def test_markdown_puts_what_failed_first() -> None:
    text = markdown([PROVEN, REFUSED])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[2].startswith("| ❌ | hello-b2b2b |")
    assert rows[3].startswith("| ✅ | hello-x7k2p |")
    assert "| vermagic | passed | 0.0 s | 1 module for 6.1.0-53-cloud-amd64 |" in text
    assert "**verify**: refused\\: vermagic-mismatch" in text
    assert f"- image: `quay.io/org/hello@{DIGEST}`" in text


def test_markdown_stays_below_the_limit_and_says_what_it_left_out() -> None:
    chatty = replace(PROVEN, inputs={"repo": "x" * 60_000})
    text = markdown([chatty] * 40)
    assert len(text.encode()) < LIMIT
    assert re.search(r"The details of \d+ runs are left out", text)


def test_junit_counts_what_happened() -> None:
    root = ElementTree.fromstring(junit([PROVEN, REFUSED]))
    suites = root.findall("testsuite")
    assert [suite.attrib["name"] for suite in suites] == ["hello-x7k2p", "hello-b2b2b"]
    assert [(suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) for suite in suites] == [
        ("4", "0", "0"),
        ("3", "1", "1"),
    ]
    failure = suites[1].find("testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == "refused: vermagic-mismatch"
    assert failure.text == "exit code 10\nlog: run/verify.log"


def test_junit_has_a_case_for_each_node() -> None:
    nodes = {
        "a": "wrong-build: hello has srcversion A, built was B", "b": "node-not-ready: down", "c": "healthy",
        "12 more": "10 healthy, 2 not-loaded",
    }  # fmt: skip
    (suite,) = ElementTree.fromstring(junit([replace(PROVEN, nodes=nodes)])).findall("testsuite")
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("7", "2", "1")
    cases = {case.attrib["name"]: case for case in suite.findall("testcase") if ".nodes" in case.attrib["classname"]}
    assert list(cases) == list(nodes)
    assert [[child.tag for child in case] for case in cases.values()] == [["failure"], ["skipped"], [], ["failure"]]
    assert cases["a"][0].attrib["message"] == nodes["a"]


@given(hostile=st.text())
def test_junit_is_xml_whatever_a_module_prints(hostile: str) -> None:
    card = replace(
        REFUSED, name=hostile, inputs={"repo": hostile},
        steps=(StepRecord(name=hostile, state=FAILED, cause=hostile, log=hostile),),
    )  # fmt: skip
    case = ElementTree.fromstring(junit([card])).find("testsuite/testcase/failure")
    assert case is not None


@given(hostile=st.text(alphabet=st.sampled_from("|`<>&*_[]()!@#~:\\\n\r\ta x\u2028")))
def test_markdown_carries_hostile_text_as_text(hostile: str) -> None:
    card = replace(PROVEN, steps=(StepRecord(name="build", state=FAILED, cause=hostile),))
    rows = [line for line in markdown([card]).splitlines() if line.startswith("| build")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", rows[0])) == 5
    assert not re.search(r"(?<!\\)(?:\\\\)*[<@!\[`]", rows[0])


@given(hostile=st.text(alphabet=st.sampled_from("`a b\n"), min_size=1))
def test_code_spans_close(hostile: str) -> None:
    line = " ".join(hostile.split())
    span = code(hostile)
    fence = re.match("`+", span)
    assert fence
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    assert span.endswith("`" * (longest + 1))
    assert line in span
