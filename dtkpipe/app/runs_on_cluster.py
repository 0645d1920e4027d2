"""The runs of a cluster's engine: found by name, listed, waited for, ended, tried again, deleted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtkpipe.app.clusters import MANAGED, RUN, Engine, Place
from dtkpipe.app.runs import with_findings
from dtkpipe.clients.cluster import EVENTS, PODS, Object, Resource
from dtkpipe.errors import NotAllowedError, NotFoundError, RunUnknownError, UnsupportedError, UsageError
from dtkpipe.values.run import CANCELLED, FAILED, SUCCEEDED, RunCard

ENDED = (SUCCEEDED, FAILED, CANCELLED)
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_AT_ONCE = 100
"""Names in one selector; a longer list of runs is asked for without names."""


@dataclass(frozen=True)
class ClusterRuns:
    """The runs of one engine in a namespace. Every method raises NotAllowedError and UnreachableError."""

    place: Place
    engine: Engine

    def __str__(self) -> str:
        return f"{self.engine.title} in {self.place}"

    def all(self, limit: int = 0) -> list[RunCard]:
        """Return the cards of our runs, the newest first, at most `limit`.

        Two requests, however many there are, one more where runs have parts, one where some were made by hand: a run
        is too large to read all of them.
        Raises UnsupportedError for a cluster without the engine.
        """
        known = sorted(self._known(), key=_created, reverse=True)
        chosen = known[:limit] if limit else known
        names = [str(one["metadata"]["name"]) for one in chosen]
        own = [name for name, one in zip(names, chosen, strict=True) if _labels(one).get(RUN) == name]
        found = self._named(self.engine.runs, RUN, own)
        if len(own) < len(names):  # made by hand, e.g. `dtkpipe compile | kubectl create`
            found += self.place.cluster.list(self.engine.runs, self.place.namespace, labels=f"{MANAGED},!{RUN}")
        runs = {str(run["metadata"]["name"]): run for run in found}
        parts = self._parts(names)
        return [self.engine.card(runs[name], parts.get(name, ())) for name in names if name in runs]

    def card(self, name: str) -> RunCard | None:
        """Return the card of a run with all that is known of it, if there is such a run."""
        if not _NAME.fullmatch(name):
            return None
        run = self.place.cluster.find(self.engine.runs, name, self.place.namespace)
        return self.whole(run) if run else None

    def whole(self, run: Object) -> RunCard:
        """Return the card of a run from its object, its parts, its pods and what was warned of them."""
        name = str(run["metadata"]["name"])
        selector, cluster, namespace = self.engine.selector(name), self.place.cluster, self.place.namespace
        parts = cluster.list(self.engine.parts, namespace, labels=selector) if self.engine.parts else []
        pods = self._optional(PODS, labels=selector)
        card = self.engine.card(run, parts, pods)
        if any((step.cause or step.pod) and not step.started for step in card.steps):
            card = self.engine.card(run, parts, pods, self._optional(EVENTS, fields="type=Warning"))
        return with_findings(card)

    def find(self, name: str) -> Object:
        """Return the object of a run. Raises NotFoundError with the nearest name."""
        run = self.place.cluster.find(self.engine.runs, name, self.place.namespace) if _NAME.fullmatch(name) else None
        if run is None:
            raise self.missing(name)
        return run

    def missing(self, name: str) -> NotFoundError:
        """Return the error for a run that is not there."""
        found = self._known()
        near = difflib.get_close_matches(name, [str(run["metadata"]["name"]) for run in found], n=1)
        return NotFoundError(
            f"there is no run `{name[:80]}`", f"looked in: {self}",
            hint=f"did you mean `{near[0]}`?" if near else "dtkpipe list",
        )  # fmt: skip

    def wait(self, name: str, until: float | None = None) -> RunCard:
        """Return the card of a run when it has ended. `until` is of time.monotonic().

        Raises NotFoundError, and RunUnknownError when it is over before the run is, or when somebody deletes the run.
        """
        self.place.cluster.be_patient()
        first = self.find(name)
        if self.engine.card(first).state in ENDED:
            return self.whole(first)
        uid = first["metadata"]["uid"]
        watch = self.place.cluster.watch(self.engine.runs, self.place.namespace, name=name, until=until)
        for kind, run in watch:
            if kind == "DELETED" or run["metadata"]["uid"] != uid:
                raise RunUnknownError(
                    f"run {name} was deleted while it was waited for", f"in: {self}", hint="dtkpipe list"
                )
            if self.engine.card(run).state in ENDED:
                return self.whole(run)
        raise RunUnknownError(
            f"run {name} has not ended yet", hint=f"dtkpipe describe {name} -n {self.place.namespace}"
        )

    def cancel(self, name: str) -> bool:
        """Ask the engine to end a run. False: it has ended already. Raises NotFoundError."""
        if self.engine.card(self.find(name)).state in ENDED:
            return False
        self.place.cluster.patch(self.engine.runs, name, self.place.namespace, self.engine.cancel)
        return True

    def delete(self, name: str) -> None:
        """Delete a run that has ended, and with it its pods. Raises NotFoundError, UsageError for one that runs."""
        run = self.find(name)
        if self.engine.card(run).state not in ENDED:
            raise UsageError(f"run `{name}` is running", hint=f"dtkpipe cancel {name}")
        self.place.cluster.delete(self.engine.runs, name, self.place.namespace, uid=str(run["metadata"]["uid"]))

    def retry(self, name: str, *, from_failed: bool) -> RunCard:
        """Run it again as a run of another name, and return its card. Raises UsageError for one that did not fail."""
        from dtkpipe.app.retry import retry

        return retry(self, name, from_failed=from_failed)

    def _known(self) -> list[Object]:
        """Return the metadata of our runs."""
        try:
            return self.place.cluster.list(self.engine.runs, self.place.namespace, labels=MANAGED, metadata=True)
        except NotFoundError as error:
            raise UnsupportedError(
                f"{self.engine.title} is not on this cluster", f"asked: {self.place.cluster.host}",
                hint="dtkpipe doctor --for cluster",
            ) from error  # fmt: skip

    def _parts(self, names: Sequence[str]) -> Mapping[str, list[Object]]:
        """Return the objects that runs are made of, by run."""
        found: dict[str, list[Object]] = {}
        for part in self._named(self.engine.parts, self.engine.run_label, names) if self.engine.parts else ():
            found.setdefault(_labels(part).get(self.engine.run_label, ""), []).append(part)
        return found

    def _named(self, resource: Resource, label: str, names: Sequence[str]) -> list[Object]:
        """Return the objects whose label has one of these values, by one request."""
        if not names:
            return []
        selector = f"{MANAGED},{label} in ({','.join(names)})" if len(names) <= _AT_ONCE else f"{MANAGED},{label}"
        return self.place.cluster.list(resource, self.place.namespace, labels=selector)

    def _optional(self, resource: Resource, *, labels: str = "", fields: str = "") -> list[Object]:
        """Return what makes a card better, and is not needed for one: who may see runs need not see pods."""
        try:
            return self.place.cluster.list(resource, self.place.namespace, labels=labels, fields=fields)
        except NotAllowedError:
            return []


def _created(run: Object) -> str:
    return str(run["metadata"].get("creationTimestamp") or "")


def _labels(one: Object) -> Mapping[str, str]:
    return one["metadata"].get("labels") or {}
