"""One run at a time for one module and target: a Lease (coordination.k8s.io/v1) that the run holds.

Two runs that would push to the same tags must not do so at once. The Lease is made before the run and is owned by it
from then on, so it goes when the run does. A holder that has ended, or never came to be, is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from dtkpipe.app.clusters import ENGINES, MANAGED, Engine, Place
from dtkpipe.app.submit.request import Say, label
from dtkpipe.clients.cluster import LEASES, Object
from dtkpipe.errors import (
    ConflictError,
    ExistsError,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    RunUnknownError,
    UnreachableError,
)
from dtkpipe.values.run import CANCELLED, FAILED, SUCCEEDED

OnConflict = Literal["wait", "supersede", "fail"]
ENDED = (SUCCEEDED, FAILED, CANCELLED)
_STARTING = 10.0
"""Seconds in which the holder of a Lease makes its run. One whose run is not there by then was killed."""
_FORGOTTEN = 60.0
"""Seconds after which a Lease that no run owns is removed."""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The Lease `name`, for the run `run` of `engine`."""

    place: Place
    engine: Engine
    name: str
    run: str

    @property
    def holder(self) -> str:
        """What `spec.holderIdentity` says of us: engine and run."""
        return f"{self.engine.name}/{self.run}"

    def acquire(self, on_conflict: OnConflict, say: Say, until: float | None = None) -> None:
        """Get the Lease; while another run is at work, wait for it, end it, or fail, as asked.

        `until` is of time.monotonic(). Raises ExistsError for "fail", RunUnknownError when the time is over.
        """
        told = ""
        while True:
            try:
                self.place.cluster.create(LEASES, self._lease(), self.place.namespace)
            except ExistsError:
                pass
            else:
                return
            lease = self.place.cluster.find(LEASES, self.name, self.place.namespace)
            if lease is None:
                continue
            if _holder(lease) == self.holder:
                return
            if self._is_dead(lease):
                if self._take_over(lease):
                    return
                continue
            self._meet(_holder(lease), on_conflict, say, until, quiet=told == _holder(lease))
            told = _holder(lease)

    def belongs_to(self, run: Object) -> None:
        """Let the Lease go with the run. One that is another's by now stays so."""
        owner = {key: run["metadata"][key] for key in ("name", "uid")}
        reference = {"apiVersion": self.engine.runs.api, "kind": self.engine.runs.kind, **owner}
        lease = self.place.cluster.find(LEASES, self.name, self.place.namespace)
        if lease is None or _holder(lease) != self.holder or lease["metadata"].get("ownerReferences"):
            return
        version = lease["metadata"]["resourceVersion"]
        merge = {"metadata": {"resourceVersion": version, "ownerReferences": [reference]}}
        with contextlib.suppress(ConflictError, NotFoundError):
            self.place.cluster.patch(LEASES, self.name, self.place.namespace, merge)

    def release(self) -> None:
        """Give the Lease back, of a run that could not be made."""
        lease = self.place.cluster.find(LEASES, self.name, self.place.namespace)
        if lease and _holder(lease) == self.holder and not lease["metadata"].get("ownerReferences"):
            with contextlib.suppress(ConflictError):
                self.place.cluster.delete(LEASES, self.name, self.place.namespace, uid=lease["metadata"]["uid"])

    def _lease(self) -> Object:
        return {
            "apiVersion": LEASES.api,
            "kind": LEASES.kind,
            "metadata": {"name": self.name, "labels": {"app.kubernetes.io/managed-by": "dtkpipe"}},
            "spec": {"holderIdentity": self.holder, "acquireTime": _now()},
        }

    def _is_dead(self, lease: Object) -> bool:
        """Say whether the holder of the Lease has ended, was deleted, or never came to be."""
        if (ended := _has_ended(self.place, _holder(lease))) is not None:
            return ended
        if lease["metadata"].get("ownerReferences"):
            return True  # its run was there, and was deleted
        version, until = lease["metadata"]["resourceVersion"], time.monotonic() + _STARTING
        for kind, seen in self.place.cluster.watch(LEASES, self.place.namespace, name=self.name, until=until):
            if kind == "DELETED" or seen["metadata"]["resourceVersion"] != version:
                return False  # somebody is at work on it: look again
        return _has_ended(self.place, _holder(lease)) is not False

    def _take_over(self, lease: Object) -> bool:
        """Become the holder. False where somebody else was faster."""
        metadata = {name: lease["metadata"][name] for name in ("name", "resourceVersion", "labels")}
        transitions = int(lease["spec"].get("leaseTransitions") or 0) + 1
        new = self._lease()
        try:
            self.place.cluster.replace(
                LEASES, {**new, "metadata": metadata, "spec": {**new["spec"], "leaseTransitions": transitions}},
                self.place.namespace,
            )  # fmt: skip
        except (ConflictError, NotFoundError):
            return False
        return True

    def _meet(self, holder: str, on_conflict: OnConflict, say: Say, until: float | None, *, quiet: bool) -> None:
        """Do what was asked about a holder that is at work, until it has ended."""
        engine, run = _engine_and_run(holder)
        if on_conflict == "fail":
            raise ExistsError(
                f"run {run} is at work for the same module and target", "--on-conflict fail",
                hint="--on-conflict wait or supersede; what it does: dtkpipe describe " + run,
            )  # fmt: skip
        if on_conflict == "supersede":
            say(f"run {run} is at work for the same module and target: it is cancelled")
            with contextlib.suppress(NotFoundError):
                self.place.cluster.patch(engine.runs, run, self.place.namespace, engine.cancel)
        elif not quiet:
            say(f"run {run} is at work for the same module and target: waiting until it has ended")
        for kind, seen in self.place.cluster.watch(engine.runs, self.place.namespace, name=run, until=until):
            if kind == "DELETED" or engine.card(seen).state in ENDED:
                return
        if until is not None and time.monotonic() >= until:
            raise RunUnknownError(
                f"run {run} is still at work for the same module and target", "the time to wait is over",
                hint="--on-conflict supersede, or a longer --timeout",
            )  # fmt: skip


def lock_name(module: str, params: Mapping[str, str]) -> str:
    """Return the name of the Lease for what a run builds: the repository, and the kernel or what leads to it."""
    target = [params.get(name, "") for name in ("push-to", "kernel", "release", "toolkit", "variant", "arch", "stream")]
    words = (label(module, 20), label(params.get("kernel") or params.get("release") or "", 20))
    digest = hashlib.sha256(json.dumps([module, *target]).encode()).hexdigest()[:8]
    return "-".join(["dtkpipe", *filter(None, words), digest])


def sweep(place: Place) -> None:
    """Remove Leases of ours whose run never came to be, e.g. because its `submit` was killed.

    Where that is not possible now, the next `submit` does it.
    """
    with contextlib.suppress(NotAllowedError, UnreachableError):
        for lease in place.cluster.list(LEASES, place.namespace, labels=MANAGED):
            if lease["metadata"].get("ownerReferences") or not _is_old(lease):
                continue
            with contextlib.suppress(ConflictError, InvalidError):
                if _has_ended(place, _holder(lease)) is not False:
                    place.cluster.delete(
                        LEASES, lease["metadata"]["name"], place.namespace, uid=lease["metadata"]["uid"]
                    )


def _has_ended(place: Place, holder: str) -> bool | None:
    """Say whether a holder's run has ended; None where there is no such run."""
    engine, run = _engine_and_run(holder)
    found = place.cluster.find(engine.runs, run, place.namespace)
    return None if found is None else engine.card(found).state in ENDED


def _engine_and_run(holder: str) -> tuple[Engine, str]:
    name, _, run = holder.partition("/")
    if name not in ENGINES or not run:
        raise InvalidError(f"a Lease is held by `{holder[:80]}`, which is none of dtkpipe's runs")
    return ENGINES[name], run


def _holder(lease: Mapping[str, Any]) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _is_old(lease: Object) -> bool:
    made = str((lease.get("spec") or {}).get("acquireTime") or lease["metadata"].get("creationTimestamp") or "")
    try:
        return time.time() - datetime.fromisoformat(made).timestamp() > _FORGOTTEN
    except ValueError:
        return True


def _now() -> str:
    """The time as a Lease has it: RFC 3339 with microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
