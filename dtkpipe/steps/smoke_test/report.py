"""One node's report: the verdict, lines that explain it, and what is loaded there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dtkpipe.values.health import NodeVerdict

if TYPE_CHECKING:
    from dtkpipe.steps.smoke_test.facts import Facts, Loaded
    from dtkpipe.steps.smoke_test.judge import Built, Finding


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """One node. `modules` says what is loaded: module -> state, srcversion, buildId, taint, signature."""

    verdict: NodeVerdict
    details: tuple[str, ...] = ()
    modules: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "verdict": self.verdict.word,
            "reason": self.verdict.reason,
            "details": list(self.details),
            "modules": {name: dict(one) for name, one in self.modules.items()},
        }


def report(node: str, finding: Finding, modules: Sequence[Built], facts: Facts) -> NodeReport:
    """Make the report of a node that has been looked at."""
    plain = finding.plain()
    return NodeReport(
        verdict=NodeVerdict(node=node, word=plain.word, reason=plain.reason),
        details=plain.details,
        modules={module.name: _loaded(module, facts.modules[module.name]) for module in modules},
    )


def _loaded(module: Built, loaded: Loaded) -> dict[str, str]:
    taken = "not taken by the kernel" if "E" in loaded.taint else "taken by the kernel"
    return {
        "state": loaded.state or "not loaded",
        "srcversion": loaded.srcversion,
        "buildId": loaded.build_id,
        "taint": loaded.taint,
        "signature": f"{_signer(module)}, {taken}" if module.signature else "none",
    }


def _signer(module: Built) -> str:
    from dtkpipe.tools.openssl import signer_of

    return signer_of(module.signature) or "somebody"
