"""A node of a cluster as far as drivers care: its kernel and how it is labelled, whether it answers, what it repels.

Words and rules: Kubernetes, "Taints and Tolerations" and "DaemonSet" (the tolerations that its pods always have).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dtkpipe.errors import UsageError
from dtkpipe.values.kernel import Kernel

OWN_LABEL = "dtkpipe.io/kernel"
"""The label that `dtkpipe label-nodes` sets."""
KERNEL_LABELS = (
    "feature.node.kubernetes.io/kernel-version.full",
    "kmm.node.kubernetes.io/kernel-version.full",
    OWN_LABEL,
)
"""Labels that name a node's kernel, the best kept first: Node Feature Discovery's, KMM's, ours."""

_KEY = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?"
_TOLERATION = re.compile(
    rf"(?P<key>{_KEY})(?:(?P<equals>=)(?P<value>{_VALUE}))?(?::(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?"
)
_LABEL = re.compile(rf"(?P<key>{_KEY})=(?P<value>{_VALUE})")


@dataclass(frozen=True)
class Taint:
    """What keeps pods away from a node that do not tolerate it."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}{f'={self.value}' if self.value else ''}:{self.effect}"


@dataclass(frozen=True)
class Toleration:
    """One toleration. Without a key it tolerates every taint, without a value every value, without an effect each."""

    key: str = ""
    value: str | None = None
    effect: str = ""

    @classmethod
    def parse(cls, text: str) -> Toleration:
        """Read a taint as `kubectl taint` spells it (`key`, `key=value`, `key:Effect`, `key=value:Effect`), or `*`.

        Raises UsageError.
        """
        if text == "*":
            return cls()
        if not (found := _TOLERATION.fullmatch(text)):
            raise UsageError(
                f"`{text[:80]}` is no toleration", "expected key[=value][:NoSchedule|NoExecute], or * for every taint"
            )
        return cls(found["key"], found["value"] if found["equals"] else None, found["effect"] or "")

    def tolerates(self, taint: Taint) -> bool:
        """Tell whether pods with it may be on a node with that taint."""
        return (
            self.key in ("", taint.key)
            and self.value in (None, taint.value)
            and self.effect in ("", taint.effect)
        )  # fmt: skip

    def to_mapping(self) -> dict[str, str]:
        """Return it as a pod's `tolerations` have it."""
        found = {"key": self.key, "operator": "Exists", "effect": self.effect}
        if self.value is not None:
            found |= {"operator": "Equal", "value": self.value}
        return {name: value for name, value in found.items() if value}


# What the DaemonSet controller adds to every pod of its own.
_ALWAYS = tuple(
    Toleration(f"node.kubernetes.io/{key}", None, effect)
    for key, effect in (
        ("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"), ("pid-pressure", "NoSchedule"), ("unschedulable", "NoSchedule"),
    )
)  # fmt: skip
# Set while a node does not answer or is new; a DaemonSet's pod for it only waits.
_PASSING = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node. `trouble` says why it is not Ready, in the cluster's words; empty when it is."""

    name: str
    kernel: str
    ready: bool = True
    trouble: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()

    @classmethod
    def from_object(cls, data: Mapping[str, Any]) -> Node:
        """Read a Node as the API has it."""
        status, metadata = data.get("status") or {}, data["metadata"]
        said: Mapping[str, Any] = next(
            (one for one in status.get("conditions") or () if one.get("type") == "Ready"),
            {"status": "Unknown", "message": "the node has not said anything yet"},
        )
        ready = said.get("status") == "True"
        return cls(
            name=str(metadata["name"]),
            kernel=str((status.get("nodeInfo") or {}).get("kernelVersion") or ""),
            ready=ready,
            trouble="" if ready else str(said.get("message") or said.get("reason") or "not Ready"),
            labels=dict(metadata.get("labels") or {}),
            taints=tuple(
                Taint(str(one["key"]), str(one.get("value") or ""), str(one["effect"]))
                for one in (data.get("spec") or {}).get("taints") or ()
            ),
        )

    def says(self, label: str, kernel: Kernel) -> bool:
        """Tell whether one of its labels names `kernel`. Label values hold no `+`: it is `_` there."""
        return self.labels.get(label) == kernel.tag

    def repelled_by(self, tolerations: Sequence[Toleration]) -> Taint | None:
        """Return the first taint that keeps a DaemonSet's pod with `tolerations` away; None if none does."""
        for taint in self.taints:
            if taint.effect == "PreferNoSchedule" or taint.key in _PASSING:
                continue
            if not any(one.tolerates(taint) for one in (*_ALWAYS, *tolerations)):
                return taint
        return None


def parse_label(text: str) -> tuple[str, str]:
    """Read `key=value` of a label. Raises UsageError."""
    if not (found := _LABEL.fullmatch(text)):
        raise UsageError(f"`{text[:80]}` is no label", "expected key=value")
    return found["key"], found["value"]
