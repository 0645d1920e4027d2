"""Part of deploy: which nodes get a driver, and by which of their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dtkpipe.errors import InvalidError, NothingSelectedError
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.node import KERNEL_LABELS, Node, Taint, Toleration


@dataclass(frozen=True)
class Selection:
    """The nodes whose `label` names the kernel; `repelled` are those of them with a taint that nothing tolerates."""

    label: str
    nodes: tuple[Node, ...]
    repelled: Mapping[str, Taint]
    only: Mapping[str, str] = field(default_factory=dict)
    """More labels that the nodes were asked to have."""

    @property
    def names(self) -> frozenset[str]:
        """The names of the nodes that pods come to."""
        return frozenset(node.name for node in self.nodes)


def select(
    nodes: Sequence[Node], kernel: Kernel, tolerations: Sequence[Toleration] = (), only: Mapping[str, str] | None = None
) -> Selection:
    """Choose the label that names the kernel on every node that runs it, and the nodes that it selects.

    Raises NothingSelectedError where no node runs the kernel, has the labels of `only`, or takes pods;
    InvalidError where a node that runs it has no label that says so.
    """
    running = [node for node in nodes if node.kernel == kernel.release]
    if not running:
        found = Counter(node.kernel for node in nodes)
        raise NothingSelectedError(
            f"no node runs kernel {kernel}",
            *(f"{count} run{'s' if count == 1 else ''} {one}" for one, count in found.most_common(10)),
            hint="dtkpipe submit --pipeline prebuild builds for kernels that no node runs yet",
        )
    # One that is down may have come up with another kernel since it was labelled: it is reported, it decides nothing.
    running = [node for node in running if node.ready] or running
    label = next((one for one in KERNEL_LABELS if all(node.says(one, kernel) for node in running)), "")
    if not label:
        best = max(KERNEL_LABELS, key=lambda one: sum(node.says(one, kernel) for node in running))
        lacking = [node.name for node in running if not node.says(best, kernel)]
        raise InvalidError(
            f"no label tells that {lacking[0]} runs kernel {kernel}",
            *([f"nor {', '.join(lacking[1:11])}"] if lacking[1:] else []),
            f"looked for: {', '.join(KERNEL_LABELS)}",
            hint="dtkpipe label-nodes, or install Node Feature Discovery, which keeps its label fresh",
        )
    wanted = [
        node
        for node in nodes
        if node.says(label, kernel) and all(node.labels.get(key) == value for key, value in (only or {}).items())
    ]
    if not wanted:
        words = ", ".join(f"{key}={value}" for key, value in (only or {}).items())
        raise NothingSelectedError(f"no node that runs kernel {kernel} has the label {words}")
    repelled = {node.name: taint for node in wanted if (taint := node.repelled_by(tolerations))}
    taken = tuple(node for node in wanted if node.name not in repelled)
    if not taken:
        name, taint = next(iter(repelled.items()))
        raise NothingSelectedError(
            f"every node that runs kernel {kernel} keeps the driver away",
            f"{name} has the taint {taint}",
            hint=f"--tolerations='[\"{taint}\"]'",
        )
    return Selection(label, taken, repelled, dict(only or {}))
