"""From what a kernel says to the verdict of its node. Pure functions; the words are those of dtkpipe.values.health."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dtkpipe.proof import klog
from dtkpipe.proof.module import KernelModule
from dtkpipe.proof.verdict import plain
from dtkpipe.steps.deploy.plan import build_id_sum
from dtkpipe.steps.smoke_test.facts import Facts, Loaded
from dtkpipe.values.health import HEALTHY
from dtkpipe.values.module import Check, ModuleSpec

_LOADS = re.compile(r"dtkpipe: loads (?P<module>[^\s,]+)(?:, tainted (?P<tainted>\d*))?")
"""What the loader of a node (catalog/driver/load) writes into the kernel's log before it loads a module."""
_TRUE, _FALSE = ("y", "1", "t", "yes", "true", "on"), ("n", "0", "f", "no", "false", "off")
_OUT_OF_TREE = "O"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A word of dtkpipe.values.health, why in one line, and lines for the node's report."""

    word: str = HEALTHY
    reason: str = ""
    details: tuple[str, ...] = ()

    def plain(self) -> Finding:
        """Return the same without control characters: the words may be a hostile module's, and go to a terminal."""
        return replace(self, reason=plain(self.reason), details=tuple(plain(line) for line in self.details))


@dataclass(frozen=True, kw_only=True)
class CheckRun:
    """A check command that was run. `status` is its exit code, None when it did not end in its time."""

    check: Check
    status: int | None
    output: str = ""


@dataclass(frozen=True, kw_only=True)
class Built:
    """What tells a module: from its file, or (without `build_id`) from what a DaemonSet says of it."""

    name: str
    srcversion: str = ""
    build_id: str = ""
    build_id_sum: str = ""
    """SHA-256 of the build id's ELF note, as the loader knows it."""
    in_tree: bool = False
    """It says of itself that it is one of the kernel's own."""
    signature: bytes = b""

    @classmethod
    def from_module(cls, module: KernelModule) -> Built:
        """Take it from the module's file."""
        return cls(
            name=module.name, srcversion=module.srcversion, build_id=module.build_id,
            build_id_sum=build_id_sum(module.build_id), in_tree=b"\0intree=Y\0" in module.content,
            signature=module.signature,
        )  # fmt: skip

    @classmethod
    def from_act(cls, act: str) -> Built | None:
        """Take it from an argument of the loader: `load NAME FILE SRCVERSION SUM`; None for any other."""
        words = act.split(" ")
        if words[0] != "load" or len(words) != 5:
            return None
        _, name, _, srcversion, known_sum = ("" if word == "-" else word for word in words)
        return cls(name=name, srcversion=srcversion, build_id_sum=known_sum)


def judge(modules: Sequence[Built], spec: ModuleSpec | None, facts: Facts) -> Finding:
    """Return the first thing that is wrong, before the check commands are run."""
    for module in modules:
        if finding := identity(module, facts.modules[module.name]):
            return finding
    for listed in spec.modules if spec else ():
        if finding := parameters(listed.name, listed.parameters, facts.modules.get(listed.name)):
            return finding
    return log(facts) or Finding()


def identity(built: Built, loaded: Loaded) -> Finding | None:
    """Compare a module with what the kernel has loaded by its name."""
    name = built.name
    if loaded.state != "Live":
        if loaded.built_in:
            return Finding(word="in-tree", reason=f"{name} is part of the kernel image")
        how = f"{loaded.state}, not Live" if loaded.state else "not in /proc/modules"
        return Finding(word="not-loaded", reason=f"{name} is {how}")
    marks = (
        ("srcversion", built.srcversion, loaded.srcversion, built.srcversion == loaded.srcversion),
        ("build id", built.build_id, loaded.build_id, built.build_id_sum == build_id_sum(loaded.build_id)),
    )
    has = (bool(built.srcversion), bool(built.build_id_sum))
    known = [mark for mark, there in zip(marks, has, strict=True) if there]
    details = tuple(f"{what}: loaded {there or 'none'}, built {mine or 'another'}" for what, mine, there, _ in known)
    differs = next((mark for mark in known if not mark[3]), None)
    if (differs or not known) and _OUT_OF_TREE not in loaded.taint and not built.in_tree:
        reason = f"{name} is the kernel's own: it does not count as out of tree"
        return Finding(word="in-tree", reason=reason, details=details)
    if differs:
        what, mine, there, _ = differs
        reason = f"{name} has {what} {there or 'none'}, built was {mine or 'another'}"
        return Finding(word="wrong-build", reason=reason, details=details)
    return None


def parameters(name: str, asked: Iterable[str], loaded: Loaded | None) -> Finding | None:
    """Compare the parameters that the spec asks for with those that the kernel shows; it need not show them."""
    for one in asked:
        parameter, equals, value = one.partition("=")
        shown = loaded.parameters.get(parameter.replace("-", "_")) if loaded else None
        if shown is not None and not same_value(value if equals else "Y", shown):
            return Finding(word="wrong-parameters", reason=f"{name} has {parameter}={shown}, asked was {one}")
    return None


def same_value(asked: str, shown: str) -> bool:
    """Tell whether the kernel shows `shown` for a parameter that was set to `asked`: kernel/params.c."""
    if asked == shown or asked.strip('"').strip() == shown:
        return True
    if shown in ("Y", "N"):
        return asked.lower() in (_TRUE if shown == "Y" else _FALSE)
    if "," in asked or "," in shown:
        mine, theirs = asked.split(","), shown.split(",")
        # An array that is not filled shows what it holds besides.
        return len(mine) <= len(theirs) and all(same_value(*pair) for pair in zip(mine, theirs, strict=False))
    first, second = _number(asked), _number(shown)
    return first is not None and first == second


def _number(text: str) -> int | None:
    octal = re.fullmatch(r"([+-]?)0([0-7]+)", text)
    try:
        return int(f"{octal[1]}0o{octal[2]}" if octal else text, 0)
    except ValueError:
        return None


def log(facts: Facts) -> Finding | None:
    """Judge the log since the modules were loaded. Where its beginning is lost, what is left of it counts."""
    if facts.log is None:
        return Finding(details=("the kernel's log was not read, and is not judged",))
    messages = list(klog.parse_kmsg(facts.log))
    begun: dict[str, tuple[int, str | None]] = {}
    for number, message in enumerate(messages):
        found = None if message.by_kernel else _LOADS.fullmatch(message.text)
        if found and found["module"] in facts.modules:
            begun[found["module"]] = (number, found["tainted"])
    first, before = min(begun.values(), default=(0, None))
    if defects := klog.defects(messages[first:]):
        return Finding(word="kernel-log", reason=defects[0], details=tuple(defects[:40]))
    if before and (taints := klog.new_taints(int(before), facts.tainted)):
        errors = tuple(klog.errors(messages[first:])[:20])
        return Finding(word="kernel-log", reason=f"the kernel is tainted by: {', '.join(taints)}", details=errors)
    return None


def checks(runs: Iterable[CheckRun]) -> Finding | None:
    """Return the first check that failed."""
    for run in runs:
        if run.status == 0:
            continue
        late = f"not done within {run.check.timeout} s"
        known = {None: late, 127: "there is no such command", 126: "it cannot be executed"}
        how = known.get(run.status, f"exit code {run.status}")
        lines = [line for line in run.output.splitlines() if line.strip()]
        said = f": {lines[-1][:120]}" if lines else ""
        reason = f"`{' '.join(run.check.run)}` failed: {how}{said}"
        return Finding(word="check-failed", reason=reason, details=tuple(lines[-20:]))
    return None
