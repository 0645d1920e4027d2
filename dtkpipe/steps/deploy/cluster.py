"""Part of deploy: the rollout to the nodes of a cluster, canaries first, and back when a node does not take it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dtkpipe.errors import DtkpipeError, NothingSelectedError, UsageError
from dtkpipe.resources import shipped
from dtkpipe.steps.contract import Room, StepRefusedError
from dtkpipe.steps.deploy import daemonset as ds
from dtkpipe.steps.deploy.driver import read_driver
from dtkpipe.steps.deploy.nodes import Selection, select
from dtkpipe.steps.deploy.plan import host_folder, plan
from dtkpipe.steps.deploy.rollout import PUT_BACK_LIMIT, Rollout, RolloutFailedError, Workload
from dtkpipe.steps.deploy.standing import LOADED, Standing
from dtkpipe.values.node import Node, Toleration, parse_label

if TYPE_CHECKING:
    from dtkpipe.clients.cluster import Cluster
    from dtkpipe.steps.deploy import Args

_SHARE = re.compile(r"[1-9]\d{0,3}|(?:[1-9]\d?|100)%")


@dataclass(frozen=True)
class _Wishes:
    """What is said of nodes and pods, parsed."""

    tolerations: tuple[Toleration, ...]
    canary: dict[str, str]


def deploy(cluster: Cluster, args: Args, room: Room) -> dict[str, str]:
    """Roll the image out and return the results, by name. Raises what `dtkpipe.steps.deploy.run` raises."""
    wishes = _wishes(args)
    nodes = _nodes(cluster)
    selection = select(nodes, args.kernel, wishes.tolerations)
    canaries = select(nodes, args.kernel, wishes.tolerations, wishes.canary) if wishes.canary else None
    for chosen in filter(None, (selection, canaries)):
        if not any(node.ready for node in chosen.nodes):
            raise NothingSelectedError(
                f"every {'canary' if chosen is canaries else 'node'} that runs kernel {args.kernel} is down",
                *(f"{node.name}: {node.trouble}" for node in chosen.nodes[:10]),
            )
    for name, taint in selection.repelled.items():
        room.say(f"{name} does not get it: taint {taint}")
    driver = read_driver(args, args.image, args.kernel, room)
    rollout = Rollout(cluster, args.target_namespace, room.say, time.monotonic() + args.rollout_timeout)
    wanted = ds.Deployment(
        module=args.module or driver.name,
        kernel=args.kernel,
        image=args.image,
        acts=plan(driver, args.kernel, args.firmware_folder),
        loader=(shipped("catalog/driver") / "load").read_text(),
        label=selection.label,
        host_folder=host_folder(driver),
        firmware_folder=args.firmware_folder,
        run=args.run_name,
        tolerations=wishes.tolerations,
        priority_class_name=args.priority_class_name,
        max_unavailable=args.max_unavailable,
        pull_secret=args.pull_secret,
    )
    rollout.vacate(wanted.name)
    before = rollout.find(wanted.name)
    wanted = replace(wanted, previous_image=_previous(before, wanted))
    room.say(f"daemonset/{wanted.name} in {args.target_namespace}: nodes with {wanted.label}={args.kernel.tag}")
    try:
        found = _waves(rollout, wanted, before, canaries)
    except RolloutFailedError as error:
        raise _put_back(rollout, wanted, error) from error
    return {"workload": f"daemonset/{wanted.name}", "nodes": summary(found)}


def _waves(
    rollout: Rollout, wanted: ds.Deployment, before: Workload | None, canaries: Selection | None
) -> list[Standing]:
    """Roll out to the canaries, if there are any, then to all."""
    if canaries:
        only = canaries.names
        if before:
            # Pods keep their old image until they are deleted: here those of the canaries.
            first = rollout.apply(wanted, strategy="OnDelete")
            rollout.renew(first, only)
        else:
            first = rollout.apply(replace(wanted, only=canaries.only))
        _somewhere(rollout.wait(first, only))
        rollout.say(f"the canaries have it: {', '.join(sorted(only))}")
    workload = rollout.apply(wanted)
    found = _somewhere(rollout.wait(workload))
    rollout.complete(workload)
    return found


def _somewhere(found: list[Standing]) -> list[Standing]:
    """Return what was found. Raises RolloutFailedError when every node went down meanwhile: nothing is known then."""
    if not any(one.state == LOADED for one in found):
        why = [f"{one.node}: {one}" for one in found[:10]]
        raise RolloutFailedError("no node has the driver: all went away", *why, standings=found)
    return found


def _put_back(rollout: Rollout, wanted: ds.Deployment, error: RolloutFailedError) -> DtkpipeError:
    """Put back what was there before, and return the error that says both."""
    rollout.say(str(error))
    again = replace(rollout, deadline=time.monotonic() + PUT_BACK_LIMIT)
    try:
        now = again.find(wanted.name)
        done = again.put_back(now, remove=True) if now else "the DaemonSet is gone"
    except DtkpipeError as failure:
        done = f"going back failed: {failure.what}"
    results = {"workload": f"daemonset/{wanted.name}", "nodes": summary(error.standings)}
    from dtkpipe.steps.deploy import Results

    return StepRefusedError(error.what, *error.details, done, results=Results(**results), hint=error.hint)


def _previous(before: Workload | None, wanted: ds.Deployment) -> str:
    """Return the image to go back to: the last one whose rollout was completed."""
    if not before:
        return ""
    image = before.annotation(ds.IMAGE)
    if image != str(wanted.image) and before.annotation(ds.ROLLOUT) == ds.COMPLETE:
        return image
    return before.annotation(ds.PREVIOUS)


def _wishes(args: Args) -> _Wishes:
    if not _SHARE.fullmatch(args.max_unavailable):
        raise UsageError(
            f"--max-unavailable takes a number or a share such as 10%, not `{args.max_unavailable[:80]}`"
        )  # fmt: skip
    if args.rollout_timeout < 1:
        raise UsageError("--rollout-timeout takes a number of seconds, at least 1")
    if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", args.firmware_folder) or ".." in args.firmware_folder.split("/"):
        raise UsageError(f"--firmware-folder takes an absolute path, not `{args.firmware_folder[:80]}`")
    return _Wishes(
        tuple(Toleration.parse(text) for text in args.tolerations),
        dict([parse_label(args.canary)]) if args.canary else {},
    )


def _nodes(cluster: Cluster) -> list[Node]:
    from dtkpipe.clients.cluster import NODES

    return [Node.from_object(one) for one in cluster.list(NODES)]


def summary(found: Sequence[Standing], limit: int = 1024) -> str:
    """Return JSON, node -> standing, of as many nodes as fit: those that are not well first."""
    kept: dict[str, str] = {}
    for one in sorted(found, key=lambda one: (one.state == LOADED, one.node)):
        more = {**kept, one.node: str(one)[:200]}
        if len(json.dumps(more)) > limit:
            break
        kept = more
    return json.dumps(kept)
