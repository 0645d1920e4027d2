"""The ends of many runs on a cluster, seen by one list and watch, however many there are."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from dtkpipe.app.clusters import MANAGED, Engine, Place
from dtkpipe.clients.cluster import Object
from dtkpipe.errors import DtkpipeError, RunUnknownError
from dtkpipe.values.run import CANCELLED, FAILED, SUCCEEDED

_ENDED = (SUCCEEDED, FAILED, CANCELLED)


@dataclass
class Ends:
    """Watches all runs of ours in a namespace, from `start` until the process ends."""

    place: Place
    engine: Engine
    _ended: dict[str, Object] = field(default_factory=dict)
    """Runs that have ended, by uid."""
    _gone: set[str] = field(default_factory=set)
    _error: DtkpipeError | None = None
    _stopped: bool = False
    _news: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> None:
        """Begin to watch: before a run is made, so that none is missed that somebody deletes at once."""
        threading.Thread(target=self._watch, daemon=True).start()

    def wait(self, name: str, uid: str, until: float) -> Object | None:
        """Return a run when it has ended; None at `until` (of time.monotonic()), or after `stop`.

        Raises RunUnknownError for one that somebody deletes, and what ended the watch.
        """
        with self._news:
            self._news.wait_for(
                lambda: uid in self._ended or uid in self._gone or self._error or self._stopped,
                max(0.0, until - time.monotonic()),
            )
            if found := self._ended.get(uid):
                return found
            if uid in self._gone:
                raise RunUnknownError(f"run {name} was deleted while it was waited for", hint="dtkpipe list")
            if self._error and not self._stopped:
                raise self._error
            return None

    def stop(self) -> None:
        """Let all `wait` return."""
        with self._news:
            self._stopped = True
            self._news.notify_all()

    def _watch(self) -> None:
        try:
            for kind, run in self.place.cluster.watch(self.engine.runs, self.place.namespace, labels=MANAGED):
                self._note(kind, run)
        except DtkpipeError as error:
            with self._news:
                self._error = error
                self._news.notify_all()

    def _note(self, kind: str, run: Object) -> None:
        uid = str(run["metadata"]["uid"])
        if kind != "DELETED" and (uid in self._ended or self.engine.card(run).state not in _ENDED):
            return
        with self._news:
            if kind == "DELETED":
                self._gone.add(uid)
            else:
                self._ended[uid] = run
            self._news.notify_all()
