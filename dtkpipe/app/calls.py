"""Ring a trigger as its forge does, and see what comes of it."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass

from dtkpipe.app import schedules
from dtkpipe.app.clusters import Place
from dtkpipe.app.schedules import KINDS, every
from dtkpipe.app.triggers import BELLS, WEBHOOK_CLIENTS, bell_of
from dtkpipe.clients.cluster import SECRETS
from dtkpipe.clients.webhook import send
from dtkpipe.engines.rights import CALLERS
from dtkpipe.engines.schedules import SCHEDULE
from dtkpipe.engines.triggers import BELL_OF, LISTENER, SECRET_KEY, Bell
from dtkpipe.errors import AnswerIsNoError, InvalidError, NotFoundError, UsageError
from dtkpipe.values.forge import TITLES, push

_SECONDS = 30.0
"""In which a bell is there, and a planner after it."""


@dataclass(frozen=True, kw_only=True)
class Came:
    """What came of a call."""

    bell: str
    """Name of the Job or Workflow; empty where its planner was faster than we are."""
    planner: str
    """Empty as long as the one before it is at work."""


def ring_as_forge(place: Place, name: str, url: str, say: Callable[[str], None]) -> Came:
    """Send a push, signed as the forge signs it, to `url`, or with none to the EventListener.

    Raises NotFoundError for a trigger or a secret that is not there, AnswerIsNoError where nothing rings,
    UnreachableError.
    """
    engine, one = schedules.existing(place, name, trigger=True)
    bell = bell_of(one)
    if engine == "argo" and not url:
        raise UsageError(
            "nothing says where Argo's server is",
            hint=f"--url https://ARGO-SERVER/api/v1/events/{place.namespace}/dtkpipe",
        )
    branch = next(iter(bell.refs), "") or "main"
    files = tuple(path.replace("*", "x") for path in bell.paths)
    call = push(bell.repository, f"refs/heads/{branch}", branch, _secret(place, engine, bell), files)
    before = _there(place, engine, name)
    say(f"a push to {branch} of {bell.repository.path}, signed as {TITLES[bell.repository.forge]} does")
    status = 0
    if url:
        status = send(url, call.body, call.headers)
        say(f"answer: HTTP {status}")
    else:
        place.cluster.post(place.namespace, f"el-{LISTENER}:8080", call.body, call.headers)
    if before[0]:
        say("its bell was on already: the call adds nothing to it")
    return _came(place, engine, name, before, status)


def _there(place: Place, engine: str, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return bells and planners: uid -> name."""
    bells, planners = (
        {str(one["metadata"]["uid"]): str(one["metadata"]["name"]) for one in every(place, resource, f"{label}={name}")}
        for resource, label in ((BELLS[engine], BELL_OF), (KINDS[engine].starts, SCHEDULE))
    )
    return bells, planners


def _came(place: Place, engine: str, name: str, before: tuple[dict[str, str], dict[str, str]], status: int) -> Came:
    until, rang = time.monotonic() + _SECONDS, dict(before[0])
    while True:
        bells, planners = _there(place, engine, name)
        rang |= bells
        new = [called for uid, called in planners.items() if uid not in before[1]]
        if new or (time.monotonic() > until and rang):
            return Came(bell=next(iter(rang.values()), ""), planner=new[0] if new else "")
        if time.monotonic() > until:
            break
        time.sleep(0.5)
    log = "the log of Argo's server" if engine == "argo" else f"kubectl -n {place.namespace} logs deploy/el-{LISTENER}"
    said = f"the answer was HTTP {status}" if status else "the EventListener took the call"
    raise AnswerIsNoError(f"trigger `{name}` did not ring within {_SECONDS:.0f} s", said, hint=f"{log} says why")


def _secret(place: Place, engine: str, bell: Bell) -> str:
    """Return what the forge signs with. Raises NotFoundError, NotAllowedError, InvalidError."""
    import yaml

    forge = bell.repository.forge
    name, key = (WEBHOOK_CLIENTS, CALLERS[forge]) if engine == "argo" else (bell.secret, SECRET_KEY)
    data = place.cluster.read(SECRETS, name, place.namespace).get("data") or {}
    if key not in data:
        raise NotFoundError(f"Secret {name} has no `{key}`", f"in: {place}")
    try:
        text = base64.b64decode(data[key]).decode()
        secret = text if engine == "tekton" else str(yaml.safe_load(text)["secret"])
    except (ValueError, yaml.YAMLError, TypeError, KeyError) as error:
        raise InvalidError(f"`{key}` of Secret {name} is not what it should be", f"in: {place}") from error
    if not secret.isprintable():
        raise InvalidError(
            f"`{key}` of Secret {name} holds a line break, or other characters that nobody types",
            "what the repository signs with has none, so that nothing would ring",
            hint='make it with: printf %s "$SECRET" > token',
        )
    return secret
