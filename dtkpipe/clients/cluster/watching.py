"""Watching objects for as long as it takes: over dropped connections, restarted API servers and forgotten versions.

The protocol is Kubernetes' own (API concepts, "Efficient detection of changes"): list, then watch from the list's
resourceVersion on; 410 means that this version is forgotten, and the list is read again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dtkpipe.clients.cluster.connection import TIMEOUT, Connection
from dtkpipe.clients.cluster.refusals import Asked, GoneError, refused
from dtkpipe.clients.cluster.resources import Object, Resource, with_kind
from dtkpipe.errors import DtkpipeError, NotAllowedError, NotFoundError, UnreachableError

_TURN = 60
"""Seconds after which the server is asked to end an answer: so a connection that died silently is noticed."""
_SLACK = 5.0
_PAUSES = (0.2, 0.5, 1.0, 2.0)
_SETTLING = 30.0
"""Seconds in which a server that starts may refuse what it allowed before: its own caches are empty."""

Event = tuple[str, Object]


@dataclass
class Watch:
    """One watch. `query` are its selectors."""

    connection: Connection
    resource: Resource
    namespace: str
    query: Mapping[str, str]
    asked: Asked
    patience: float
    until: float | None
    name: str = ""
    """Of the one object that is watched, if it is one."""
    _version: str = ""
    _known: dict[str, Object] = field(default_factory=dict)
    """Every object that was given and not deleted, by uid."""
    _answered: float = 0.0

    def events(self) -> Iterator[Event]:
        """Give what is there, then what changes."""
        begun, self._answered = False, time.monotonic()
        turn = 0
        while not self._over():
            before = self._answered
            try:
                if not self._version:
                    yield from self._list()
                    if self.name and not begun and not self._known:
                        yield "DELETED", {"metadata": {"name": self.name, "uid": "", "resourceVersion": ""}}
                    begun = True
                yield from self._changes()
            except GoneError:
                self._version = ""
            except UnreachableError as error:
                self._wait_or_raise(error, self.patience)
            except (NotAllowedError, NotFoundError) as error:
                if not begun:
                    raise
                self._wait_or_raise(error, min(self.patience, _SETTLING))
            turn = 0 if self._answered > before + 1 else min(turn + 1, len(_PAUSES) - 1)
            if not self._over():
                time.sleep(_PAUSES[turn])

    def _over(self) -> bool:
        return self.until is not None and time.monotonic() >= self.until

    def _left(self, most: float) -> float:
        return most if self.until is None else max(0.1, min(most, self.until - time.monotonic()))

    def _wait_or_raise(self, error: DtkpipeError, patience: float) -> None:
        silent = time.monotonic() - self._answered
        if silent > patience and not self._over():
            raise type(error)(error.what, *error.details, f"for {silent:.0f} s", hint=error.hint) from error

    def _list(self) -> Iterator[Event]:
        """Give what is new or different since it was given last, and what is gone."""
        path = self.resource.path(self.namespace)
        left = self._left(TIMEOUT)
        page = self.connection.ask("GET", path, self.asked, query=self.query, timeout=left, patient=False)
        items = {_uid(one): one for one in with_kind(page, self.resource)}
        version = str((page.get("metadata") or {}).get("resourceVersion") or "")
        if not version:
            raise UnreachableError(f"the cluster gave an answer that is none: cannot {self.asked}")
        self._answered = time.monotonic()
        self._version = version
        for uid in [uid for uid in self._known if uid not in items]:
            yield "DELETED", self._known.pop(uid)
        for uid, one in items.items():
            old = self._known.get(uid)
            self._known[uid] = one
            if not old:
                yield "ADDED", one
            elif _version(old) != _version(one):
                yield "MODIFIED", one

    def _changes(self) -> Iterator[Event]:
        """Give changes until the answer ends."""
        seconds = math.ceil(self._left(_TURN))
        query = {
            **self.query, "watch": "true", "resourceVersion": self._version, "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }  # fmt: skip
        path, timeout = self.resource.path(self.namespace), self._left(seconds + _SLACK)
        with self.connection.opened("GET", path, self.asked, query=query, timeout=timeout) as answer:
            self._answered = time.monotonic()
            for line in self._lines(answer):
                kind, one = self._event(line)
                self._answered = time.monotonic()
                self._version = _version(one) or self._version
                if kind == "BOOKMARK":
                    continue
                if kind == "DELETED":
                    self._known.pop(_uid(one), None)
                else:
                    self._known[_uid(one)] = one
                yield kind, one
                if self._over():
                    return

    def _lines(self, answer: Any) -> Iterator[bytes]:
        rest = b""
        chunks = answer.stream(64 * 1024, decode_content=True)
        while True:
            with self.connection.unbroken(self.asked):
                chunk = next(chunks, None)
            if chunk is None:
                return
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole

    def _event(self, line: bytes) -> Event:
        try:
            event = json.loads(line)
            kind, one = str(event["type"]), event["object"]
        except (ValueError, KeyError, TypeError, RecursionError):
            kind, one = "", None
        if kind == "ERROR" and isinstance(one, dict):
            code = one.get("code")
            raise refused(code if isinstance(code, int) else 500, json.dumps(one).encode(), self.asked, _HOST)
        if not isinstance(one, dict) or not isinstance(one.get("metadata"), dict):
            raise UnreachableError(f"the cluster gave an answer that is none: cannot {self.asked}")
        return kind, one


_HOST = "the cluster"


def _uid(one: Object) -> str:
    metadata = one.get("metadata") or {}
    return str(metadata.get("uid") or f"{metadata.get('namespace')}/{metadata.get('name')}")


def _version(one: Object) -> str:
    return str((one.get("metadata") or {}).get("resourceVersion") or "")
