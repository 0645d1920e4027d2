"""What rings where Argo Events receives the calls (v1alpha1: EventSource, Sensor): the bell is a Lease. Pure.

Types: argo-events, pkg/apis/events/v1alpha1. Argo Events makes a Deployment and a Service of an EventSource, and a
Deployment of a Sensor; an EventBus carries the call from one to the other. The Sensor filters in Lua, which it gives
the call as `event`: `headers` and `body`.
"""

from __future__ import annotations

from dtkpipe.engines.rendered import Object
from dtkpipe.engines.rights import BELL, TASK
from dtkpipe.engines.schedules import Schedule, schedule_object
from dtkpipe.engines.triggers.bell import (
    EVENTS,
    SECRET_KEY,
    Bell,
    default_too,
    lease,
    ref_names,
)
from dtkpipe.errors import UnsupportedError, UsageError
from dtkpipe.values.forge import GITHUB

SERVICE = "{}-eventsource-svc:12000"
"""The Service that Argo Events makes for the EventSource of a trigger."""
LOGS = "-l sensor-name={}"
"""Whose log says why nothing rings."""
_PORT = 12000
_NAME_LIMIT = 63 - len("-eventsource-svc")
_EVENT = "push"
_MAGIC = "^$()%.[]*+-?"
_ANY = """\
local function any(list, fits)
  for _, one in ipairs(list or {}) do
    if fits(one) then return true end
  end
  return false
end
"""


def rings(trigger: Schedule, bell: Bell) -> tuple[Object, ...]:
    """Return what receives, and what makes the bell.

    Raises UnsupportedError for GitLab, whose token Argo Events looks at only where it has made the webhook itself
    (argo-events 1.9.6, pkg/eventsources/sources/gitlab/start.go), UsageError for too long a name.
    """
    if bell.repository.forge != GITHUB:
        raise UnsupportedError(
            f"Argo Events does not check who calls for {bell.repository.host}",
            "GitLab's token is looked at only where Argo Events has made the webhook itself",
            hint="--engine argo: Argo's server checks it",
        )
    if len(trigger.name) > _NAME_LIMIT:
        raise UsageError(
            f"`{trigger.name}` is too long a name with Argo Events", f"it makes a Service of it; at most {_NAME_LIMIT}"
        )
    source = schedule_object("argoproj.io/v1alpha1", "EventSource", trigger.name, trigger)
    source["spec"] = {
        "service": {"ports": [{"port": _PORT, "targetPort": _PORT}]},
        "template": _template(TASK),
        GITHUB: {_EVENT: _receives(bell)},
    }
    sensor = schedule_object("argoproj.io/v1alpha1", "Sensor", trigger.name, trigger)
    sensor["spec"] = {
        "template": _template(BELL),
        "dependencies": [
            {
                "name": _EVENT, "eventSourceName": trigger.name, "eventName": _EVENT,
                "filters": {"script": _lua(bell)},
            }
        ],
        "triggers": [
            {
                "template": {
                    "name": "bell",
                    "k8s": {"operation": "create", "source": {"resource": lease(trigger, bell.receiver)}},
                }
            }
        ],
    }  # fmt: skip
    return (source, sensor)


def _receives(bell: Bell) -> Object:
    """Return what listens, and makes no webhook itself: that would need a token of the forge that can."""
    owner, _, name = bell.repository.path.partition("/")
    return {
        "webhook": {"endpoint": "/", "port": str(_PORT), "method": "POST"},
        "repositories": [{"owner": owner, "names": [name]}], "events": EVENTS[GITHUB],
        "webhookSecret": {"name": bell.secret, "key": SECRET_KEY},
    }  # fmt: skip


def _template(account: str) -> Object:
    """Return what both pods have. No user: upstream's image names none, and OpenShift takes none but its own."""
    return {
        "serviceAccountName": account,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "container": {
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        },
    }  # fmt: skip


def _lua(bell: Bell) -> str:
    """Return the filter. What a call lacks is an error there, and rings nothing."""
    (event,) = EVENTS[GITHUB]
    named = [f"push.ref == {_text(one)}" for one in ref_names(bell)]
    named += ['push.ref == "refs/heads/" .. push.repository.default_branch'] if default_too(bell) else []
    said = [
        f'event.headers["X-Github-Event"][1] == {_text(event)}',
        f"push.repository.full_name:lower() == {_text(bell.repository.path)}",
        "not push.deleted",
        f"({' or '.join(named)})",
    ]
    prelude = "local push = event.body\n"
    if bell.paths:
        fits = " or ".join(f"file:find({_text(_pattern(one))})" for one in bell.paths)
        each = "any(commit.added, fits) or any(commit.modified, fits) or any(commit.removed, fits)"
        said.append(f"(#commits == 0 or any(commits, function(commit) return {each} end))")
        prelude += f"local commits = push.commits or {{}}\n{_ANY}local function fits(file) return {fits} end\n"
    return f"{prelude}return {' and '.join(said)}\n"


def _pattern(path: str) -> str:
    """Return a pattern of file names as one of Lua's."""
    return "^" + "".join(".*" if one == "*" else f"%{one}" if one in _MAGIC else one for one in path) + "$"


def _text(value: str) -> str:
    """Return a text as Lua writes it."""
    plain = (one if one.isprintable() and one not in '"\\' else _escaped(one) for one in value)
    return f'"{"".join(plain)}"'


def _escaped(one: str) -> str:
    return "".join(f"\\{byte:03d}" for byte in one.encode())
