"""What rings a trigger, and what all that make its bell have in common. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtkpipe.engines.rendered import Object
from dtkpipe.engines.schedules import DAY, Schedule, held, schedule_object, workflow
from dtkpipe.values.forge import GITHUB, GITLAB, NO_COMMIT, Repository

BELL_OF = "dtkpipe.io/bell"
"""Label of a bell: the name of its trigger."""
SECRET_KEY = "token"  # noqa: S105 - a name
"""Where the Secret of a trigger has what the forge signs with."""
EVENTS: Mapping[str, Sequence[str]] = {GITHUB: ["push"], GITLAB: ["Push Hook", "Tag Push Hook"]}
"""Forge -> the events that ring, as the header of a call has them."""
KEPT = 0
"""Seconds that a bell which has rung is kept."""


@dataclass(frozen=True, kw_only=True)
class Bell:
    """What rings: pushes to some branches or tags of a repository, perhaps only those that change some files."""

    repository: Repository
    refs: Sequence[str] = ()
    """Branches and tags; "" is the repository's default branch."""
    paths: Sequence[str] = ()
    """Patterns of file names, `*` for anything; none: whatever changes."""
    secret: str = ""
    """Name of the Secret; Argo's server has one of its own."""
    receiver: str = ""
    """What receives the calls: one of RECEIVERS; "" where the repository holds the trigger as a file."""


def bell_name(trigger: str) -> str:
    """Return the name of the object that a trigger's bell is."""
    return f"{trigger}-bell"


def bell_labels(trigger: str) -> dict[str, str]:
    """Return the labels of a bell's pod."""
    return {"app.kubernetes.io/name": "bell", BELL_OF: trigger}


def workflow_template(rung: Schedule) -> Object:
    """Return the WorkflowTemplate of bells on Argo."""
    made = schedule_object("argoproj.io/v1alpha1", "WorkflowTemplate", template_name(rung), rung)
    made["spec"] = {
        **workflow(rung, bell_labels(rung.name)), "activeDeadlineSeconds": DAY,
        "ttlStrategy": {"secondsAfterCompletion": KEPT},
    }  # fmt: skip
    return made


def template_name(schedule: Schedule) -> str:
    """Return the name of that."""
    return f"{held(schedule)}-bell"


def ref_names(bell: Bell) -> list[str]:
    """Return the branches and tags that are named, as pushes have them (`refs/heads/main`)."""
    return [f"refs/{kind}/{ref}" for ref in bell.refs if ref for kind in ("heads", "tags")]


def default_too(bell: Bell) -> bool:
    """Say whether a push to the default branch rings."""
    return "" in bell.refs or not bell.refs


def refs(bell: Bell, body: str, default: str) -> str:
    """Return what says whether a push is to one of the branches or tags, in CEL or Argo's expressions."""
    named = ref_names(bell)
    said = [f"{body}.ref in {json.dumps(named, ensure_ascii=False)}"] if named else []
    if default_too(bell):
        said.append(f'{body}.ref == "refs/heads/" + {default}')
    return f"({' || '.join(said)})"


def alive(body: str) -> str:
    """Return what says of a push of GitLab that its branch is there after it, in both languages."""
    return f'{body}.after != "{NO_COMMIT}"'


def pattern(paths: Sequence[str]) -> str:
    """Return the patterns as one regular expression (RE2)."""
    return f"^({'|'.join('.*'.join(map(re.escape, path.split('*'))) for path in paths)})$"


def text(value: str) -> str:
    """Return a text as both languages write it: as JSON does."""
    return json.dumps(value, ensure_ascii=False)
