"""The part of `submit` that speaks of clusters: prepare, create or attach, follow to the end."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dtkpipe.cli.output import AnyForm, emit, say

if TYPE_CHECKING:
    from dtkpipe.app.clusters import Engine, Place
    from dtkpipe.app.submit.cluster import Prepared, Submitted
    from dtkpipe.app.submit.lock import OnConflict
    from dtkpipe.app.submit.request import Request
    from dtkpipe.cli.clusters import Dry
    from dtkpipe.values.run import RunCard


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How the run is submitted, and what is shown of it."""

    dry_run: Dry = "none"
    on_conflict: OnConflict = "wait"
    follow: bool = False
    wait: bool = False
    timeout: float = 0
    """Seconds to wait for its end; 0 is as long as it takes."""
    quiet: bool = False
    verbose: bool = False
    output: AnyForm = "table"


def submit_there(request: Request, engine: Engine, place: Place, manner: Manner) -> int:
    """Submit a run to a cluster, and follow it if that was asked for; return the exit code."""
    from dtkpipe.app.submit import cluster

    talk = (lambda _line: None) if manner.quiet else say
    until = time.monotonic() + manner.timeout if manner.timeout else None
    prepared = cluster.prepare(request, engine, place, Path.cwd(), talk)
    if manner.dry_run == "client":
        return _dry(prepared, manner)
    cluster.check_there(prepared, talk)
    if manner.dry_run == "server":
        cluster.try_create(prepared)
        return _dry(prepared, manner)
    submitted = cluster.submit(prepared, manner.on_conflict, talk, until)
    _tell_submitted(submitted, prepared, manner)
    if not manner.follow and not manner.wait:
        return 0
    try:
        card = _followed(submitted, prepared, manner, until)
    except KeyboardInterrupt:
        say(f"\nrun {submitted.name} goes on; {_commands(submitted.name, prepared, 'logs -f', 'cancel')}")
        return 130
    return _tell_end(card, prepared, manner)


def _dry(prepared: Prepared, manner: Manner) -> int:
    tasks = " -> ".join(task.name for task in prepared.pipeline.all_tasks)
    emit(manner.output, prepared.run, lambda: f"{prepared.name}: {tasks}", [f"run/{prepared.name}"])
    checked = "the cluster takes it" if manner.dry_run == "server" else "checked here"
    say(f"nothing was run, {checked}: --dry-run={manner.dry_run}")
    return 0


def _tell_submitted(submitted: Submitted, prepared: Prepared, manner: Manner) -> None:
    waits = manner.follow or manner.wait
    what = "created" if submitted.created else f"is there already: {submitted.card.state}"
    line = f"run/{submitted.name} {what}"
    if waits:  # stdout is for the card
        say(line)
    else:
        emit(manner.output, json.loads(submitted.card.to_json()), lambda: line, [f"run/{submitted.name}"])
    if manner.quiet:
        return
    say(f"engine {prepared.engine.name}, {prepared.place}")
    if not submitted.created and submitted.card.state in ("failed", "cancelled"):
        say(f"to run it again: {_commands(submitted.name, prepared, 'retry')}, or submit with --force")
    if not waits:
        say(f"next: {_commands(submitted.name, prepared, 'logs -f', 'describe')}")


def _commands(run: str, prepared: Prepared, *names: str) -> str:
    """Return commands about the run, with the namespace where it is not the context's own."""
    place = prepared.place
    there = "" if place.namespace == place.cluster.namespace else f" -n {place.namespace}"
    return "; ".join(f"dtkpipe {name} {run}{there}" for name in names)


def _followed(submitted: Submitted, prepared: Prepared, manner: Manner, until: float | None) -> RunCard:
    from dtkpipe.app.follow import follow
    from dtkpipe.app.runs_on_cluster import ClusterRuns
    from dtkpipe.cli.progress import shown

    runs = ClusterRuns(prepared.place, prepared.engine)
    if not manner.follow:
        return runs.wait(submitted.name, until)
    # Without a terminal there is no tree that shows what a task says.
    verbose = manner.verbose or not sys.stderr.isatty()
    with shown(quiet=manner.quiet, verbose=verbose) as watcher:
        card = follow(runs, submitted.name, watcher, until)
        watcher.ended(card)
        return card


def _tell_end(card: RunCard, prepared: Prepared, manner: Manner) -> int:
    """Print the card and the next command. Raises why the run failed or was cancelled."""
    from dtkpipe.app.runs import outcome
    from dtkpipe.cli.tree import columns
    from dtkpipe.report.card import facts, seconds

    emit(manner.output, json.loads(card.to_json()), lambda: columns(facts(card)), [f"run/{card.name}"])
    step_summary(card)
    if error := outcome(card):
        say("")
        raise error
    say(f"\ndone in {seconds(card.finished - card.created)}")
    say(f"next: {_commands(card.name, prepared, 'describe')}")
    return 0


def step_summary(card: RunCard) -> None:
    """Add the card to the summary of a GitHub job, where we run in one."""
    if file := os.environ.get("GITHUB_STEP_SUMMARY"):
        from dtkpipe.report.markdown import markdown

        with Path(file).open("a") as summary:
            summary.write(markdown([card]) + "\n")
