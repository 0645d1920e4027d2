"""What rings a trigger, and what all that make its bell have in common. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtkpipe.engines.rendered import Object
from dtkpipe.engines.schedules import Schedule
from dtkpipe.values.forge import GITHUB, GITLAB, NO_COMMIT, Repository

BELL_OF = "dtkpipe.io/bell"
"""Label of a bell: the name of its trigger."""
RECEIVER = "dtkpipe.io/receiver"
"""Label of a bell, and of what listens to it: what made it, one of RECEIVERS."""
SECRET_KEY = "token"  # noqa: S105 - a name
"""Where the Secret of a trigger has what the forge signs with."""
EVENTS: Mapping[str, Sequence[str]] = {GITHUB: ["push"], GITLAB: ["Push Hook", "Tag Push Hook"]}
"""Forge -> the events that ring, as the header of a call has them."""


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


def bell_labels(trigger: str, receiver: str) -> dict[str, str]:
    """Return the labels of a bell."""
    return {BELL_OF: trigger, RECEIVER: receiver}


def lease(trigger: Schedule, receiver: str) -> Object:
    """Return a bell as a Lease: a name that is taken, and nothing that runs."""
    metadata = {"name": bell_name(trigger.name), "labels": bell_labels(trigger.name, receiver)}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}


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
