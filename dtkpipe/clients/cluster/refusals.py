"""What an API server's refusal means for the user: one place that turns answers into errors.

Answers are objects of kind Status; reasons and causes are those of Kubernetes' API conventions
(apimachinery, pkg/apis/meta/v1, StatusReason and CauseType).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dtkpipe.errors import (
    ConflictError,
    DtkpipeError,
    ExistsError,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    UnreachableError,
)

_WEBHOOK = re.compile(r'admission webhook "([^"]+)" denied the request')
_POLICY = re.compile(r"ValidatingAdmissionPolicy '([^']+)'.* denied request: (.*)")
_WEBHOOK_GONE = re.compile(r'failed calling webhook "([^"]+)"')
_TERMINATING = "NamespaceTerminating"


class GoneError(UnreachableError):
    """The version to go on from is too old (410): whoever lists or watches begins anew."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked of the API server, in words for messages and as `kubectl auth can-i` takes it."""

    verb: str
    words: str
    """Resource: `workflows.argoproj.io`; for other paths, what they are."""
    namespace: str = ""
    name: str = ""
    said: str = ""
    """What it is in plain words, where verb and resource do not say it: `read the log of pod x`."""

    def __str__(self) -> str:
        what = f"{self.words}/{self.name}" if self.name else self.words
        if self.said:
            return self.said
        return f"{self.verb} {what}" + (f" in namespace {self.namespace}" if self.namespace else "")


def refused(code: int, body: bytes, asked: Asked, host: str) -> DtkpipeError:
    """Return the error that an answer of `code` (400 and above) stands for."""
    status = _status(body)
    message = _plain(str(status.get("message") or ""))
    details = _object(status.get("details"))
    got = f"{host} answered {code}" + (f": {message}" if message else "")
    if denied := _WEBHOOK.search(message):
        said = message.partition("denied the request")[2].removeprefix(":").strip()
        return InvalidError(f"the admission webhook {denied[1]} refuses to {asked}", said or got)
    if denied := _POLICY.search(message):
        return InvalidError(f"the admission policy {denied[1]} refuses to {asked}", denied[2])
    if gone := _WEBHOOK_GONE.search(message):
        return UnreachableError(
            f"cannot {asked}: the admission webhook {gone[1]} does not answer", got,
            hint="it is part of what is installed on the cluster: kubectl get pods -A",
        )  # fmt: skip
    match code:
        case 401:
            return NotAllowedError(
                f"the cluster does not know you: cannot {asked}", got,
                hint="log in again (oc login, or your provider's command), or name another --kubeconfig",
            )  # fmt: skip
        case 403:
            return _forbidden(message, details, asked, got)
        case 404:
            return _not_found(details, asked, got)
        case 409 if status.get("reason") == "AlreadyExists":
            return ExistsError(f"cannot {asked}: there is one of that name already", got)
        case 409:
            return ConflictError(f"cannot {asked}: somebody changed it at the same time", got, hint="try again")
        case 410:
            return GoneError(f"cannot {asked}: what was read is too old", got)
        case 400 | 413 | 415 | 422:
            return InvalidError(f"the cluster refuses to {asked}", *(_causes(details) or [got]))
        case 429:
            return UnreachableError(f"the cluster is asked too often: cannot {asked}", got, hint="try again later")
        case _:
            return UnreachableError(f"the cluster fails: cannot {asked}", got)


def _forbidden(message: str, details: Mapping[str, Any], asked: Asked, got: str) -> DtkpipeError:
    if "exceeded quota" in message:
        used = message.partition("exceeded quota: ")[2]
        return NotAllowedError(
            f"the quota of namespace {asked.namespace} is used up: cannot {asked}", f"quota {used}",
            hint=f"kubectl describe quota -n {asked.namespace}; dtkpipe list shows runs that can be deleted",
        )  # fmt: skip
    if any(one.get("reason") == _TERMINATING for one in _each(details)):
        return NotAllowedError(
            f"namespace {asked.namespace} is being deleted: nothing new can be made in it",
            f"asked: {asked}",
            hint=f"kubectl wait --for=delete namespace/{asked.namespace}, or -n another",
        )
    if "violates PodSecurity" in message:
        return NotAllowedError(f"Pod Security of namespace {asked.namespace} forbids to {asked}", message)
    place = f" -n {asked.namespace}" if asked.namespace else ""
    return NotAllowedError(
        f"you are not allowed to {asked}", got,
        hint=f"kubectl auth can-i {asked.verb} {asked.words}{place}; who may what: dtkpipe install --help",
    )  # fmt: skip


def _not_found(details: Mapping[str, Any], asked: Asked, got: str) -> DtkpipeError:
    if details.get("kind") == "namespaces" and asked.words != "namespaces":
        place = str(details.get("name") or asked.namespace)
        return NotFoundError(
            f"there is no namespace `{place}`: cannot {asked}", hint=f"kubectl create namespace {place}, or -n another"
        )
    if not details.get("name") and not asked.said:
        return NotFoundError(f"the cluster does not know {asked.words}: cannot {asked}", got)
    return NotFoundError(f"cannot {asked}: there is none", got)


def _causes(details: Mapping[str, Any]) -> list[str]:
    causes = [_plain(f"{one.get('field', '')}: {one.get('message', '')}".strip(": ")) for one in _each(details)]
    return [one[:500] for one in causes if one][:10]


def _each(details: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    causes = details.get("causes")
    return [one for one in causes if isinstance(one, dict)] if isinstance(causes, list) else []


def _status(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return _object(found)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain(text: str) -> str:
    """Keep what can be printed: the words may be a webhook's own."""
    return "".join(char if char.isprintable() else " " for char in text).strip()[:1000]
