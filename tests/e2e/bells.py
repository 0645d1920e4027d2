"""A namespace in which pushes ring, on the cluster that tests have: triggers, calls, and what comes of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from dtkpipe.app.triggers import BELLS, WEBHOOK_CLIENTS
from dtkpipe.clients.cluster import JOBS
from dtkpipe.engines.schedules import SCHEDULE
from dtkpipe.engines.triggers import RECEIVERS
from dtkpipe.engines.triggers.bell import bell_name
from dtkpipe.engines.triggers.tekton_triggers import LISTENER
from dtkpipe.values.image import ImageRef
from tests.e2e.cells import Cells, cells
from tests.e2e.cluster import argo_events, layout, triggers
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster
from tests.e2e.cluster.waiting import NotYet
from tests.fixtures.cli import Said
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.webhooks import Call

SECRET = "what only the forge knows"
BUSY = 503
"""What is said of a listener that hangs up."""
SECONDS = 180


@dataclass(frozen=True)
class Bells:
    """A namespace in which pushes ring."""

    cells: Cells
    runner: ImageRef
    seen: set[str] = field(default_factory=set)
    """Every planner that was there at some time: the cluster keeps the last three."""

    @property
    def path(self) -> str:
        return f"{self.cells.namespace}/source"

    def trigger(self, verb: str, *words: str, after: tuple[str, ...] = ()) -> Said:
        return self.cells.ask("trigger", verb, *words, after=after)

    def create(self, name: str, receiver: str, case: str, *words: str) -> None:
        own = (name, "--on", "push", "--repo", f"github.com/{self.path}", "--engine", receiver, *words)
        after = (*self.cells.matrix(case), "--pipeline", "cell.py")
        made = self.trigger("create", *own, *self.secret(receiver), "--runner-image", str(self.runner), after=after)
        assert made.code == 0, made.err

    def secret(self, receiver: str) -> tuple[str, ...]:
        """The option that names the Secret, where there is one for each trigger."""
        return ("--secret", "hook") if RECEIVERS[receiver].own_secret else ()

    def listed(self, name: str) -> dict[str, Any]:
        (one,) = (one for one in json.loads(self.trigger("list", "-o", "json").out) if one["name"] == name)
        return dict(one)

    def names(self, kind: str, *labels: str) -> list[str]:
        found = self.cells.cluster.kubectl.json("get", kind, "-n", self.cells.namespace, *labels)["items"]
        return [str(one["metadata"]["name"]) for one in found]

    def planners(self, name: str) -> list[str]:
        found = self.names(JOBS.words, "-l", f"{SCHEDULE}={name}")
        self.seen.update(found)
        return found

    def runs(self, receiver: str, case: str) -> list[str]:
        return self.cells.runs(RECEIVERS[receiver].engine, case)

    def bell(self, receiver: str, name: str) -> bool:
        return bell_name(name) in self.names(BELLS[receiver].words)

    def url(self, receiver: str, name: str) -> str:
        """Where calls of a trigger go, as soon as somebody listens there."""
        if receiver == "argo":
            return f"{layout.ARGO_SERVER}/api/v1/events/{self.cells.namespace}/dtkpipe"
        listens, called = (triggers.listens, LISTENER) if receiver == "tekton" else (argo_events.listens, name)
        return listens(self.cells.cluster.kubectl, self.cells.namespace, called)

    def quiet(self, receiver: str, name: str, rung: int, seconds: float = SECONDS) -> str:
        """Wait until so many planners were started, and nothing is at work; return the outcome of the last one."""

        def look() -> str:
            planners, outcome = len(self.planners(name)), str(self.listed(name)["outcome"])
            if planners < rung or outcome == "running" or self.bell(receiver, name):
                raise NotYet(f"{planners} planners, {outcome}")
            return outcome

        return self.cells.cluster.wait(f"{name} is quiet", look, seconds)


def post(url: str, call: Call) -> int:
    """Send a call; return the status of the answer, BUSY where somebody hangs up."""
    try:
        answer = urllib3.request("POST", url, body=call.data, headers=call.all_headers, timeout=60, retries=False)
    except urllib3.exceptions.ProtocolError:
        return BUSY
    return answer.status


@contextlib.contextmanager
def ringing(
    cluster: Cluster, registry: LoopbackRegistry, git: GitServer, runner: ImageRef, folder: Path
) -> Iterator[Bells]:
    """Give a fresh namespace with what receives pushes; nothing of it is left at the end of the block."""
    triggers.up(cluster.kubectl, print)
    argo_events.up(cluster.kubectl, print)
    with cells(cluster, registry, git, runner, folder) as made:
        made.kernels(1)
        argo_events.bus(cluster.kubectl, made.namespace)
        git.secret(made.namespace)
        secret = ("-n", made.namespace, "create", "secret", "generic")
        cluster.kubectl(*secret, "hook", f"--from-literal=token={SECRET}")
        clients = {f"dtkpipe-{one}": f"{{type: {one}, secret: {SECRET}}}" for one in ("github", "gitlab")}
        cluster.kubectl(*secret, WEBHOOK_CLIENTS, *(f"--from-literal={key}={text}" for key, text in clients.items()))
        yield Bells(made, runner)
