"""What smoke-test says of a node: `healthy`, or one word and the reason. The words are a public contract."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LIMIT = 2048
"""Bytes of all verdicts together: results of Tekton share about 4 KiB for each task."""
_REASON = 240
"""Characters of one reason."""
_LEFT_OUT = re.compile(r"\d+ more")

FAILS, REPORTED, WELL = "fails the run", "is reported", "is well"


@dataclass(frozen=True)
class Word:
    """One thing that can be said of a node. `effect` is FAILS, REPORTED or WELL."""

    name: str
    effect: str
    meaning: str
    fix: str = ""


WORDS: Mapping[str, Word] = {
    word.name: word
    for word in (
        Word(
            "kernel-log", FAILS,
            "Since the modules were loaded, the kernel logged an oops, BUG, WARNING or another sign of a defect.",
            "read the lines in the node's report; `verify` may have missed hardware that this node has",
        ),
        Word(
            "in-tree", FAILS,
            "A module of that name is loaded, but it is the one that came with the kernel.",
            "name it in inTreeModulesToRemove; is it in the initramfs, or loaded before the pod started?",
        ),
        Word(
            "wrong-build", FAILS,
            "A module of that name is loaded, and it is another build: srcversion or build id are not the file's.",
            "find out what loaded it; unload it, and deploy again",
        ),
        Word(
            "not-loaded", FAILS,
            "A module of the image is not in /proc/modules, or is not Live.",
            "has somebody removed it? The log of the node's pod says how it was loaded",
        ),
        Word(
            "wrong-parameters", FAILS,
            "A module runs with another value of a parameter than the spec asks for.",
            "does something load the module before the pod does, or change /sys/module/<name>/parameters?",
        ),
        Word(
            "check-failed", FAILS,
            "A check command of the module's spec failed, or did not end in its time.",
            "read its output in the node's report",
        ),
        Word(
            "pod-not-ready", FAILS,
            "The node is up and has no pod that is ready: it cannot be made, pull its image, or load the modules.",
            "kubectl describe daemonset, kubectl describe pod, kubectl logs",
        ),
        Word(
            "not-answering", FAILS,
            "The node counts as up, and no command can be run in its pod.",
            "is its kubelet reachable from the API server?",
        ),
        Word(
            "node-not-ready", REPORTED,
            "The node is down, or its kubelet does not report. It is tested by the next smoke-test.",
            "bring it back; --require-all-nodes makes this fail",
        ),
        Word("healthy", WELL, "Every module of the image is loaded, is the built one, and works."),
        Word(
            "kept-away", REPORTED,
            "A taint of the node keeps the driver's pods away from it.",
            "deploy with a toleration, if the node shall have the driver",
        ),
        Word(
            "not-selected", REPORTED,
            "The node runs the kernel, but its labels do not select it.",
            "dtkpipe label-nodes, if this is no canary",
        ),
        Word(
            "other-kernel", REPORTED,
            "The node runs another kernel than the image is for.",
            "build and deploy an image for that kernel, if the node shall have the driver",
        ),
    )
}  # fmt: skip
"""In the order in which nodes are listed: what fails comes first."""

HEALTHY = "healthy"
NOT_CONCERNED = ("kept-away", "not-selected", "other-kernel")
"""Words for nodes that the driver is not for."""


@dataclass(frozen=True, kw_only=True)
class NodeVerdict:
    """One node, a word of WORDS, and why."""

    node: str
    word: str
    reason: str = ""

    @property
    def text(self) -> str:
        """`healthy`, or `word: reason`."""
        return f"{self.word}: {self.reason[:_REASON]}" if self.reason else self.word

    @property
    def fails(self) -> bool:
        """Tell whether it fails the run."""
        return WORDS[self.word].effect == FAILS


def ordered(verdicts: Sequence[NodeVerdict]) -> list[NodeVerdict]:
    """Sort verdicts for a reader: those that fail the run first, nodes that are not concerned last."""
    places = {name: number for number, name in enumerate(WORDS)}
    return sorted(verdicts, key=lambda one: (places[one.word], one.node))


def pack(verdicts: Sequence[NodeVerdict]) -> str:
    """Write verdicts as one JSON object, node -> text, of at most LIMIT bytes.

    What does not fit is left out, whole nodes from the end, and counted: `"12 more": "10 healthy, 2 other-kernel"`.
    """
    known = ordered(verdicts)
    for kept in range(len(known), -1, -1):
        shown = {one.node: one.text for one in known[:kept]}
        if rest := known[kept:]:
            counts = Counter(one.word for one in rest)
            shown[f"{len(rest)} more"] = ", ".join(f"{count} {word}" for word, count in counts.items())
        text = json.dumps(shown, ensure_ascii=False)
        if len(text.encode()) <= LIMIT:
            return text
    return "{}"


def unpack(text: str) -> dict[str, str]:
    """Read what pack() wrote, node -> text; nothing for a text that it did not write."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(node): str(said) for node, said in found.items()} if isinstance(found, dict) else {}


def effect(node: str, text: str) -> str:
    """Return what a packed verdict means for its run: FAILS, REPORTED or WELL. `node` may be `12 more`."""
    names = (part.split(" ")[-1] for part in text.split(", ")) if _LEFT_OUT.fullmatch(node) else (text.split(":")[0],)
    effects = {WORDS[name].effect if name in WORDS else FAILS for name in names}
    return next(one for one in (FAILS, REPORTED, WELL) if one in effects)
