"""Runs, wherever they are: on this machine, or in a namespace of a cluster with Argo Workflows or Tekton.

Which places are looked at: the engine that the user names; else the cluster, when a flag names one; else this machine
and the cluster that is configured, if any. A name is looked for on this machine first, where it costs nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from dtkpipe.app.runs import LATEST, Runs
from dtkpipe.errors import (
    DtkpipeError,
    NotAllowedError,
    NotFoundError,
    UnreachableError,
    UnsupportedError,
    UsageError,
)
from dtkpipe.values.run import RunCard

if TYPE_CHECKING:
    from dtkpipe.app.clusters import Where

_Answer = TypeVar("_Answer")
LOCAL = "local"
ENGINES = (LOCAL, "argo", "tekton")


class RunPlace(Protocol):
    """One place where runs are. What the methods raise is said by `Runs` and `ClusterRuns`."""

    def __str__(self) -> str: ...
    def all(self, limit: int = 0) -> list[RunCard]:
        """Return the cards of runs, the newest first."""

    def card(self, name: str) -> RunCard | None:
        """Return the whole card of a run, if it is there."""

    def wait(self, name: str, until: float | None = None) -> RunCard:
        """Return the card of a run when it has ended."""

    def cancel(self, name: str) -> bool:
        """Ask the engine to end a run; False when it has ended already."""

    def retry(self, name: str, *, from_failed: bool) -> RunCard:
        """Run it again, and return the card of the new run."""

    def delete(self, name: str) -> None:
        """Delete a run that has ended."""


class Reader(Protocol):
    """The logs of one run."""

    def lines(self) -> Iterator[tuple[str, str]]:
        """Give (task, line) of what has been written."""

    def follow(self) -> Iterator[tuple[str, str]]:
        """Give (task, line) until the run ends."""


LAST = -1


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """Which logs. `attempt`: 1 for the first try, LAST for the last, LAST - 1 for the one before it."""

    tail: int = 0
    attempt: int = LAST
    node: str = ""


@dataclass(frozen=True)
class Found:
    """A run, and where it is."""

    place: RunPlace
    card: RunCard


@dataclass
class Anywhere:
    """The places to look at. `strict`: the user named them, so one that cannot be asked is an error."""

    places: Sequence[RunPlace]
    say: Callable[[str], None]
    strict: bool = True
    silent: set[str] = field(default_factory=set)
    """Places that did not answer, and are not asked again."""
    unasked: DtkpipeError | None = None
    """Why the first of them did not."""

    def all(self, limit: int) -> list[RunCard]:
        """Return the newest runs of all places; one that was not named and does not answer is said, and left out."""
        cards: list[RunCard] = []
        for place in self.places:
            cards += self._asked(place, lambda one: one.all(limit), list[RunCard]())
        return sorted(cards, key=lambda card: card.created, reverse=True)[:limit]

    def find(self, name: str) -> Found:
        """Return a run by its name; `@latest` is the newest.

        Raises NotFoundError, UsageError for one of two, and why a place could not be asked where it may be there.
        """
        if name == LATEST:
            return self._latest()
        found: list[Found] = []
        for place in self.places:
            card = self._asked(place, lambda one: one.card(name), None)
            if card and card.engine == LOCAL:
                return Found(place, card)
            found += [Found(place, card)] if card else []
        if len(found) > 1:
            raise UsageError(
                f"there are two runs `{name}`", *(str(one.place) for one in found),
                hint=f"say which: --engine {' or '.join(one.card.engine for one in found)}",
            )  # fmt: skip
        if not found:
            raise self.unasked or self._missing(name)
        return found[0]

    def _latest(self) -> Found:
        newest: list[Found] = []
        for place in self.places:
            cards = self._asked(place, lambda one: one.all(1), list[RunCard]())
            newest += [Found(place, card) for card in cards]
        if not newest:
            raise self.unasked or NotFoundError("there are no runs yet", *self.looked(), hint="dtkpipe submit --help")
        one = max(newest, key=lambda found: found.card.created)
        return Found(one.place, one.place.card(one.card.name) or one.card)

    def _missing(self, name: str) -> NotFoundError:
        names = [card.name for card in self.all(1000)]
        near = difflib.get_close_matches(name, names, n=1)
        return NotFoundError(
            f"there is no run `{name[:80]}`", *self.looked(),
            hint=f"did you mean `{near[0]}`?" if near else "dtkpipe list",
        )  # fmt: skip

    def looked(self) -> list[str]:
        """Return where was looked, a line each."""
        return [f"looked in: {place}" for place in self.places]

    def _asked(self, place: RunPlace, ask: Callable[[RunPlace], _Answer], nothing: _Answer) -> _Answer:
        """Return what a place answers; `nothing` for one that nobody named and that cannot answer, which is said."""
        if str(place) in self.silent:
            return nothing
        try:
            return ask(place)
        except UnsupportedError:  # the cluster is without that engine
            if len(self.places) == 1:
                raise
            return nothing
        except (UnreachableError, NotAllowedError) as error:
            if self.strict:
                raise
            self.say(f"note: {error.what}: its runs are not among these")
            self.unasked = self.unasked or error
            # The other engine is on the same cluster.
            down = isinstance(error, UnreachableError)
            self.silent |= {str(one) for one in self.places if down and not isinstance(one, Runs)} | {str(place)}
            return nothing


def anywhere(engine: str, where: Where, *, named: bool, state: Path, say: Callable[[str], None]) -> Anywhere:
    """Return the places to look at. `named`: the user named a cluster by a flag.

    Raises UsageError for an engine that there is not, InvalidError for a kubeconfig that is not usable.
    """
    if engine and engine not in ENGINES:
        near = difflib.get_close_matches(engine, ENGINES, n=1)
        raise UsageError(
            f"there is no engine `{engine}`", hint=f"did you mean `{near[0]}`?" if near else "--engine local"
        )
    here = Runs(state)
    if engine == LOCAL:
        return Anywhere([here], say)
    from dtkpipe.app import clusters

    if engine:
        return Anywhere([_on(where, engine)], say)
    if named:
        return Anywhere([_on(where, one) for one in clusters.ENGINES], say)
    if not clusters.is_configured(where):
        return Anywhere([here], say)
    try:
        there = [_on(where, one) for one in clusters.ENGINES]
    except DtkpipeError as error:
        say(f"note: only this machine is looked at: {error.what}")
        return Anywhere([here], say)
    return Anywhere([here, *there], say, strict=False)


def _on(where: Where, engine: str) -> RunPlace:
    from dtkpipe.app.clusters import ENGINES as CLUSTER_ENGINES
    from dtkpipe.app.clusters import connect
    from dtkpipe.app.runs_on_cluster import ClusterRuns

    return ClusterRuns(connect(where), CLUSTER_ENGINES[engine])


def reader(found: Found, tasks: Sequence[str], options: LogOptions, say: Callable[[str], None]) -> Reader:
    """Return what reads the logs of `tasks`. Raises UnsupportedError for what a run on this machine does not have."""
    place = found.place
    if isinstance(place, Runs):
        from dtkpipe.app.logs import Reader as LocalReader

        if options.node or options.attempt != LAST:
            raise UnsupportedError(
                f"run {found.card.name} is on this machine",
                "it has no nodes, and each task has one log of all attempts",
            )
        return LocalReader(place.folder(found.card.name), tasks, options.tail)
    from dtkpipe.app.logs_on_cluster import ClusterReader, DriverReader
    from dtkpipe.app.runs_on_cluster import ClusterRuns

    if not isinstance(place, ClusterRuns):
        raise TypeError(f"{place} keeps no logs")
    if options.node:
        previous = options.attempt == LAST - 1
        return DriverReader(runs=place, card=found.card, node=options.node, tail=options.tail, previous=previous)
    return ClusterReader(runs=place, card=found.card, tasks=tasks, tail=options.tail, attempt=options.attempt, say=say)
