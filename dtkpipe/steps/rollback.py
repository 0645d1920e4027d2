"""rollback: put back what was on the nodes before the run, if its driver failed there. Always runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from dtkpipe.errors import DtkpipeError, RunFailedError, UsageError
from dtkpipe.steps.contract import Room, arg, result
from dtkpipe.values.run import FAILED, state

_CLUSTER = "cluster"


@dataclass(frozen=True, kw_only=True)
class Args:
    """The run, and how its tasks on the nodes ended."""

    run_name: str = arg("Name of the run: the drivers that carry it are put back")
    statuses: tuple[str, ...] = arg("task=status of the tasks that touch nodes", ())
    target: str = arg("`cluster` (a DaemonSet), or `host`: the kernel of this machine", _CLUSTER)
    target_namespace: str = arg("Namespace of the DaemonSet", "dtkpipe-drivers")


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was done."""

    rolled_back: str = result("What was put back, or why nothing was")


def run(args: Args, room: Room) -> Results:
    """Put back the image before on every node, and where there was none remove the driver.

    Does nothing unless one of the tasks failed; what deploy has put back itself is the run's no more, and stays.
    Raises RunFailedError when a node does not get its old driver back, UsageError for a status without a task.
    """
    ended = dict(_task_and_state(status) for status in args.statuses)
    failed = [task for task, how in ended.items() if how == FAILED]
    if not failed or args.target != _CLUSTER:
        why = "nothing to put back on this machine" if failed else "nothing to put back: no task on the nodes failed"
        room.say(why)
        return Results(rolled_back=why)
    from dtkpipe.clients.cluster import Cluster
    from dtkpipe.steps.deploy.daemonset import RUN
    from dtkpipe.steps.deploy.rollout import PUT_BACK_LIMIT, Rollout

    rollout = Rollout(Cluster(), args.target_namespace, room.say, time.monotonic() + PUT_BACK_LIMIT)
    ours = [one for one in rollout.all() if one.annotation(RUN) == args.run_name]
    if not ours:
        room.say(f"{', '.join(failed)} failed, and nothing on the nodes is of run {args.run_name}")
    done, errors = list[str](), list[str]()
    for workload in ours:
        try:
            done.append(rollout.put_back(workload, remove=True))
            room.say(done[-1])
        except DtkpipeError as error:
            errors.append(error.what)
    if errors:
        raise RunFailedError("going back failed", *errors, *done)
    return Results(rolled_back="; ".join(done) or "nothing is of this run")


def _task_and_state(status: str) -> tuple[str, str]:
    task, equals, word = status.partition("=")
    if not task or not equals:
        raise UsageError(f"`{status[:80]}` is not task=status", "expected e.g. smoke-test=Failed")
    return task, state(word)
