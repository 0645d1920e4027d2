"""Which tasks must run, and which have succeeded before from the same inputs: like make, with digests for times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from graphlib import TopologicalSorter

from dtkpipe.engines.local.binding import Command, Results
from dtkpipe.engines.local.folder import Record
from dtkpipe.model.pipeline import Task


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to tell whether a task must run."""

    tasks: Sequence[Task]
    records: Mapping[str, Record]
    key: Callable[[Task, Mapping[str, Results]], str]
    """The fingerprint of a task's command, from the results of the tasks before it."""
    alive: Callable[[Record], bool]
    """Tells whether what a task gave is still there."""
    forced: AbstractSet[str] = frozenset()
    """Tasks that must run whatever was before."""

    def stale(self, done: Mapping[str, Results]) -> set[str]:
        """Return the tasks that must run now that those of `done` have run.

        A task is fresh when it succeeded before with the same command. What it gave needs to be there only when a
        task behind it has to run, or when it is a last one: candidates are cleaned up after a run, and a run that is
        repeated does not need them. A task that waits for a stale one is stale until that has run and given its
        results, which may well be the same as before.
        """
        known = dict(done)
        stale: set[str] = set()
        ordered = in_order(self.tasks)
        for task in ordered:
            if task.name in done:
                continue
            record = self.records.get(task.name)
            if (
                record is None
                or task.name in self.forced
                or not all(need in known for need in task.needs)
                or self.key(task, known) != record.key
            ):
                stale.add(task.name)
            else:
                known[task.name] = record.results
        users: dict[str, list[str]] = {}
        for task in ordered:
            for need in task.needs:
                users.setdefault(need, []).append(task.name)
        for task in reversed(ordered):
            if task.name in stale or task.name in done:
                continue
            behind = users.get(task.name, [])
            if (not behind or stale & set(behind)) and not self.alive(self.records[task.name]):
                stale.add(task.name)
        return stale


def in_order(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Return the tasks so that each comes behind those it needs; otherwise in the order of the pipeline."""
    place = {task.name: number for number, task in enumerate(tasks)}
    sorter = TopologicalSorter({task.name: [need for need in task.needs if need in place] for task in tasks})
    sorter.prepare()
    found: list[Task] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        found += [tasks[place[name]] for name in ready]
        sorter.done(*ready)
    return tuple(found)


def behind(tasks: Sequence[Task], name: str) -> set[str]:
    """Return the task `name` and all that come after it."""
    found = {name}
    for task in in_order(tasks):
        if found & set(task.needs):
            found.add(task.name)
    return found


def fingerprint(version: str, image: str, command: Command, secrets: Sequence[str]) -> str:
    """Return the key of a command: it changes when anything changes that the task is given."""
    text = json.dumps([version, image, command.argv, command.env, sorted(secrets)])
    return hashlib.sha256(text.encode()).hexdigest()
