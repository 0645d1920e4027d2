"""report: say how the run ended. Always runs, and ends as the run ended."""

from __future__ import annotations

from dataclasses import dataclass

from dtkpipe.errors import RunCancelledError, UsageError
from dtkpipe.steps.contract import Room, StepRefusedError, arg, result
from dtkpipe.values.run import CANCELLED, FAILED, PENDING, RUNNING, SUCCEEDED, state

_NOT_REACHED = "not reached"


@dataclass(frozen=True, kw_only=True)
class Args:
    """How the tasks ended."""

    run_name: str = arg("Name of the run")
    statuses: tuple[str, ...] = arg("task=status of every task before, in order", ())


@dataclass(frozen=True, kw_only=True)
class Results:
    """The outcome in one word. A run that failed also ends the step with exit code 10."""

    outcome: str = result("`succeeded` or `failed`")


def run(args: Args, room: Room) -> Results:
    """Say how each task ended.

    Raises StepRefusedError when a task failed, RunCancelledError when none failed but some did not run to their end,
    UsageError for a status without a task.
    """
    ended = [_task_and_state(status) for status in args.statuses]
    width = max((len(task) for task, _ in ended), default=0)
    for task, how in ended:
        room.say(f"{task:<{width}}  {_NOT_REACHED if how in (PENDING, RUNNING) else how}")
    failed = [task for task, how in ended if how == FAILED]
    stopped = [task for task, how in ended if how in (PENDING, RUNNING, CANCELLED)]
    if failed:
        raise StepRefusedError(
            f"run {args.run_name} failed: {', '.join(failed)}",
            results=Results(outcome=FAILED),
            hint=f"dtkpipe logs {args.run_name} --failed",
        )
    if stopped:
        raise RunCancelledError(f"run {args.run_name} was stopped before its end", f"not done: {', '.join(stopped)}")
    room.say(f"run {args.run_name} succeeded")
    return Results(outcome=SUCCEEDED)


def _task_and_state(status: str) -> tuple[str, str]:
    task, equals, word = status.partition("=")
    if not task or not equals:
        raise UsageError(f"`{status}` is not task=status", "expected e.g. build=Succeeded")
    return task, state(word)
