"""What Argo's executor, which starts a task's program in its container, writes into that container's log itself.

Its lines are those of Go's slog, each with the attribute `argo=true` (argo-workflows, util/logging and
cmd/argoexec/commands/emissary.go).
"""

from __future__ import annotations

import re

_LINE = re.compile(r"time=\S+ level=[A-Z]+ msg=.*\bargo=true\b.*")


def is_executors(line: str) -> bool:
    """Say whether a line is the executor's, and not the program's."""
    return bool(_LINE.fullmatch(line))
