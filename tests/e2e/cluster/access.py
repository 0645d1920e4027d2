"""Asking a cluster with kubectl."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster: `kubectl("get", "nodes")` returns what it prints."""

    program: Path
    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Raises RuntimeError with kubectl's words."""
        done = subprocess.run(
            [self.program, *arguments], input=stdin, capture_output=True, text=True,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def json(self, *arguments: str) -> dict[str, Any]:
        """The same, as what the JSON says."""
        parsed: dict[str, Any] = json.loads(self(*arguments, "-o", "json"))
        return parsed
