"""Test a trigger: ring it as its forge does, or start its planner, and see what comes of it."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from dtkpipe.app import bell as ringing
from dtkpipe.app import node_kernels, schedules
from dtkpipe.app.clusters import Place
from dtkpipe.app.schedules import every
from dtkpipe.app.triggers import BELLS, NODE_KERNEL, RELEASE, WEBHOOK_CLIENTS, bell_of, called_at, on_of, secret_of
from dtkpipe.clients.cluster import JOBS, SECRETS, Object
from dtkpipe.clients.webhook import send
from dtkpipe.engines.schedules import BY_HAND, SCHEDULE
from dtkpipe.engines.triggers import RECEIVERS
from dtkpipe.engines.triggers.bell import BELL_OF, Bell
from dtkpipe.errors import AnswerIsNoError, InvalidError, NotFoundError, NothingSelectedError, UsageError
from dtkpipe.values.forge import TITLES, push

_SECONDS = 30.0
"""In which a bell is there, and a planner after it."""


def try_out(place: Place, name: str, url: str, say: Callable[[str], None]) -> str:
    """Let a trigger plan, and return the name of its planner: "" as long as the one before is at work.

    On pushes it is rung as its forge does, with `url` there where the forge calls; any other plans at once: on kernels
    for those of all nodes. Raises NotFoundError for a trigger or a secret that is not there, UsageError for a `url`
    that nobody calls, AnswerIsNoError where nothing rings, NothingSelectedError where no node says its kernel,
    UnreachableError.
    """
    _, one = schedules.existing(place, name, trigger=True)
    on = on_of(one)
    if on not in (RELEASE, NODE_KERNEL):
        return _ring_as_forge(place, one, url, say)
    if url:
        raise UsageError(f"--url is not for a trigger on {on}", "nobody calls it", hint="leave it out")
    if on == RELEASE:
        say("it plans at once, whatever the update graph lists")
        return ringing.start(place, one, by=BY_HAND)
    kernels = node_kernels.there(place.cluster, say)
    if not kernels:
        raise NothingSelectedError("no node says which kernel it runs", f"looked at the nodes of {place.cluster.host}")
    say(f"it plans at once, for the kernels of all nodes: {', '.join(map(str, kernels))}")
    return ringing.start(place, one, kernels=kernels, by=BY_HAND)


def _ring_as_forge(place: Place, one: Object, url: str, say: Callable[[str], None]) -> str:
    """Send a push, signed as the forge signs it, to `url`, or with none to the Service that takes it."""
    name, bell = str(one["metadata"]["name"]), bell_of(one)
    receiver = RECEIVERS[bell.receiver]
    if not (url or receiver.service):
        raise UsageError(
            f"nothing says where {receiver.title} is", hint=f"--url {called_at(bell.receiver, place.namespace, name)}"
        )
    branch = next(iter(bell.refs), "") or "main"
    files = tuple(path.replace("*", "x") for path in bell.paths)
    call = push(bell.repository, f"refs/heads/{branch}", branch, _secret(place, bell), files)
    planners, rang = _there(place, bell, name)
    say(f"a push to {branch} of {bell.repository.path}, signed as {TITLES[bell.repository.forge]} does")
    status = 0
    if url:
        status = send(url, call.body, call.headers)
        say(f"answer: HTTP {status}")
    else:
        place.cluster.post(place.namespace, receiver.service.format(name), call.body, call.headers)
    if rang:
        say("its bell was on already: the call adds nothing to it")
    starts = place.cluster.watch(JOBS, place.namespace, labels=f"{SCHEDULE}={name}", until=time.monotonic() + _SECONDS)
    new = (str(seen["metadata"]["name"]) for _, seen in starts if seen["metadata"]["uid"] not in planners)
    if planner := next(new, ""):
        return planner
    if _there(place, bell, name)[1]:
        return ""
    said = f"the answer was HTTP {status}" if status else f"{receiver.title} took the call"
    log = f"the log of {receiver.title}"
    if receiver.logs:
        log = f"kubectl -n {place.namespace} logs {receiver.logs.format(name)}"
    raise AnswerIsNoError(f"trigger `{name}` did not ring within {_SECONDS:.0f} s", said, hint=f"{log} says why")


def _there(place: Place, bell: Bell, name: str) -> tuple[set[str], bool]:
    """Return the uids of the planners that there are, and whether the bell is on."""
    planners = {str(one["metadata"]["uid"]) for one in every(place, JOBS, f"{SCHEDULE}={name}")}
    return planners, bool(every(place, BELLS[bell.receiver], f"{BELL_OF}={name}"))


def _secret(place: Place, bell: Bell) -> str:
    """Return what the forge signs with. Raises NotFoundError, NotAllowedError, InvalidError."""
    import yaml

    name, key = secret_of(bell)
    data = place.cluster.read(SECRETS, name, place.namespace).get("data") or {}
    if key not in data:
        raise NotFoundError(f"Secret {name} has no `{key}`", f"in: {place}")
    try:
        text = base64.b64decode(data[key]).decode()
        secret = str(yaml.safe_load(text)["secret"]) if name == WEBHOOK_CLIENTS else text
    except (ValueError, yaml.YAMLError, TypeError, KeyError) as error:
        raise InvalidError(f"`{key}` of Secret {name} is not what it should be", f"in: {place}") from error
    if not secret.isprintable():
        raise InvalidError(
            f"`{key}` of Secret {name} holds a line break, or other characters that nobody types",
            "what the repository signs with has none, so that nothing would ring",
            hint='make it with: printf %s "$SECRET" > token',
        )
    return secret
