"""Labelling nodes with the kernel they run, on clusters where nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dtkpipe.clients.cluster import NODES, Cluster
from dtkpipe.errors import NothingSelectedError
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.node import KERNEL_LABELS, OWN_LABEL, Node

LABELLED, CORRECTED, UNCHANGED, KEPT = "labelled", "corrected", "unchanged", "left alone"
UNKNOWN = "has not said its kernel yet"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One node and what was done to its label. `by` is another label that names its kernel already."""

    node: str
    kernel: str
    outcome: str
    by: str = ""


def label_nodes(cluster: Cluster, selector: str = "", *, dry_run: bool = False) -> Iterator[Labelled]:
    """Set OWN_LABEL on the nodes that `selector` selects (default: all) to the kernel that they run now.

    Where somebody else's label says it, ours is not set: theirs is kept fresh. Raises NothingSelectedError.
    """
    nodes = [Node.from_object(one) for one in cluster.list(NODES, labels=selector)]
    if not nodes:
        raise NothingSelectedError("no node is selected", f"selector: {selector or 'none'}")
    for node in nodes:
        if not node.kernel:
            yield Labelled(node=node.name, kernel="", outcome=UNKNOWN)
            continue
        kernel = Kernel.parse(node.kernel)
        before = node.labels.get(OWN_LABEL)
        by = next((one for one in KERNEL_LABELS if one != OWN_LABEL and node.says(one, kernel)), "")
        if before is None and by:
            yield Labelled(node=node.name, kernel=node.kernel, outcome=KEPT, by=by)
        elif before == kernel.tag:
            yield Labelled(node=node.name, kernel=node.kernel, outcome=UNCHANGED)
        else:
            if not dry_run:
                cluster.patch(NODES, node.name, "", {"metadata": {"labels": {OWN_LABEL: kernel.tag}}})
            yield Labelled(node=node.name, kernel=node.kernel, outcome=CORRECTED if before else LABELLED)
