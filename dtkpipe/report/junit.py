"""Run cards as JUnit XML, which every CI system reads: one suite per run, one test case per task and per node.

Format: the schema of the Jenkins xUnit plugin (junit-10.xsd), of which this is the part that all readers know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from dtkpipe.report.card import facts
from dtkpipe.values.health import FAILS, REPORTED, WELL, effect
from dtkpipe.values.run import FAILED, SKIPPED, SUCCEEDED, RunCard, StepRecord

_OF_NODES = {FAILS: FAILED, REPORTED: SKIPPED, WELL: SUCCEEDED}

# Characters that XML 1.0 (section 2.2) has no way to carry.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def junit(cards: Sequence[RunCard]) -> str:
    """Write one document. Tasks that were not reached or left out, and nodes not tested, are skipped cases."""
    root = ElementTree.Element("testsuites")
    for card in cards:
        ended = [*(step.state for step in card.steps), *(_OF_NODES[effect(*one)] for one in card.nodes.items())]
        suite = ElementTree.SubElement(
            root, "testsuite",
            name=clean(card.name), tests=str(len(ended)), failures=str(ended.count(FAILED)), errors="0",
            skipped=str(sum(state not in (SUCCEEDED, FAILED) for state in ended)),
            time=f"{max(0.0, card.finished - card.created):.3f}",
        )  # fmt: skip
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in facts(card):
            ElementTree.SubElement(properties, "property", name=clean(name), value=clean(value))
        for step in card.steps:
            _case(suite, card, step)
        for node, verdict in card.nodes.items():
            _node(suite, card, node, verdict)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, card: RunCard, step: StepRecord) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=clean(f"{card.pipeline}.{card.name}"), name=clean(step.name),
        time=f"{step.seconds:.3f}",
    )  # fmt: skip
    if step.state == FAILED:
        failure = ElementTree.SubElement(case, "failure", message=clean(step.cause or "failed"))
        failure.text = clean(f"exit code {step.exit_code}\nlog: {step.log}")
    elif step.state != SUCCEEDED:
        ElementTree.SubElement(case, "skipped", message=clean(step.state))


def _node(suite: ElementTree.Element, card: RunCard, node: str, verdict: str) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=clean(f"{card.pipeline}.{card.name}.nodes"), name=clean(node), time="0.000"
    )
    if (state := _OF_NODES[effect(node, verdict)]) != SUCCEEDED:
        ElementTree.SubElement(case, "failure" if state == FAILED else "skipped", message=clean(verdict))


def clean(text: str) -> str:
    """Return text without what XML cannot carry."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
