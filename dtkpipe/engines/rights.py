"""Who may do what, each verb with its reason: accounts of tasks and drivers, and people. YAML, checks and pages use it.

Argo's own need: argo-workflows, docs/workflow-rbac.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dtkpipe.model.pipeline import Rights
from dtkpipe.values.forge import TITLES

TASK = Rights().service_account
"""The account of what needs nothing of the cluster."""
BUILD = "dtkpipe-build"
EXECUTOR = "dtkpipe-executor"
"""The account of Argo's executor, which runs beside every task's program: its token is in no program's reach."""
PLANNER = "dtkpipe-planner"
"""The account of schedules and triggers: it submits matrices."""
WATCHER = "dtkpipe-watcher"
"""The account of what watches for triggers: bells, and nodes for kernels that are new."""
SEEN = "dtkpipe-seen"
"""The ConfigMap in which triggers on new releases keep what they saw: trigger -> digest."""
BELL = "dtkpipe-bell"
"""The account of what rings for Tekton's event listener and for Argo Events."""
CALLERS = {"github": "dtkpipe-github", "gitlab": "dtkpipe-gitlab"}
"""Forge -> the account that Argo's server rings as when that one has called."""


class Scope(Enum):
    """Where a right holds."""

    RUNS = "the namespace of the runs"
    TARGET = "the namespace of the drivers"
    CLUSTER = "the cluster"


@dataclass(frozen=True, kw_only=True)
class Right:
    """Some verbs on one resource, and what they are for."""

    resource: str
    """With its group, as `kubectl auth can-i` takes it: `daemonsets.apps`, `pods/exec`."""
    verbs: tuple[str, ...]
    scope: Scope
    why: str
    engine: str = ""
    """Only on this engine."""
    name: str = ""
    """Only on the object of this name."""

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.resource.partition("/")[0].partition(".")[2]

    @property
    def plural(self) -> str:
        """The resource as a rule of RBAC has it, with its subresource."""
        name, slash, part = self.resource.partition("/")
        return f"{name.partition('.')[0]}{slash}{part}"


@dataclass(frozen=True, kw_only=True)
class Account:
    """A ServiceAccount. `tasks`: it is in the namespace of the runs; otherwise in that of the drivers."""

    name: str
    what: str
    rights: tuple[Right, ...] = ()
    tasks: bool = True
    privileged: bool = False
    """May use OpenShift's SCC `privileged`."""
    engine: str = ""
    """Only on this engine."""


def _planned(resource: str, engine: str, *verbs: str, why: str) -> Right:
    return Right(resource=resource, verbs=verbs, scope=Scope.RUNS, engine=engine, why=why)


_MAKE = "to make a run for each cell, and see how it ends; it changes and ends none"
_INSTALLED = "to see that the pipeline is installed, and in which version"
_TURN = "to start one after the other"
_STARTS = "to start the planner, as its trigger says it"
_LISTEN = "to know which triggers there are, and what they ask for"
_RING = "to make the bell of a trigger: an object with a fixed name, and nothing that came with a call in it"
_HEAR = "to hear bells, and switch off those that are answered"


def _caller(forge: str) -> Account:
    return Account(
        name=CALLERS[forge], engine="argo",
        what=f"Argo's server, when {TITLES[forge]} has called and its signature is right",
        rights=(
            _planned("workfloweventbindings.argoproj.io", "argo", "list", why=_LISTEN),
            _planned("workflowtemplates.argoproj.io", "argo", "get", why=_LISTEN),
            _planned("workflows.argoproj.io", "argo", "create", why=_RING),
        ),
    )  # fmt: skip


_NODES = "to see which nodes have the kernel, and which are down"
ACCOUNTS = (
    Account(name=TASK, what="tasks that need nothing of the cluster, and what listens with Argo Events"),
    Account(
        name=BUILD,
        what="`build`: the one task that is root in its container, with an SCC of its own on OpenShift",
    ),
    Account(
        name=EXECUTOR,
        engine="argo",
        what="Argo's executor, which runs in a container of its own beside every task's program",
        rights=(
            Right(
                resource="workflowtaskresults.argoproj.io",
                verbs=("create", "patch"),
                scope=Scope.RUNS,
                engine="argo",
                why="it reports by them how a task ended and what it gave",
            ),
        ),
    ),
    Account(
        name="dtkpipe-deploy",
        what="`deploy` and `rollback`: the only ones that may write workloads, and only beside the drivers",
        rights=(
            Right(resource="nodes", verbs=("list",), scope=Scope.CLUSTER, why=_NODES),
            Right(
                resource="daemonsets.apps",
                verbs=("get", "list", "create", "patch", "delete"),
                scope=Scope.TARGET,
                why="one DaemonSet per module and kernel: rolled out, followed, put back, removed",
            ),
            Right(
                resource="configmaps",
                verbs=("create", "patch"),
                scope=Scope.TARGET,
                why="the loader's program, which the DaemonSet mounts and owns",
            ),
            Right(
                resource="controllerrevisions.apps",
                verbs=("list",),
                scope=Scope.TARGET,
                why="to find the previous image for a rollback",
            ),
            Right(
                resource="pods",
                verbs=("list", "watch", "delete"),
                scope=Scope.TARGET,
                why="to follow the rollout on each node, and to replace the pod of a node whose driver is stuck",
            ),
            Right(
                resource="pods/log", verbs=("get",), scope=Scope.TARGET, why="the loader's last words are the cause",
            ),
            Right(
                resource="events",
                verbs=("list",),
                scope=Scope.TARGET,
                why="why a pod could not be made: quota, Pod Security, an image that cannot be pulled",
            ),
        ),
    ),
    Account(
        name="dtkpipe-smoke-test",
        what="`smoke-test`: looks into drivers that run, and writes nothing",
        rights=(
            Right(resource="nodes", verbs=("list", "watch"), scope=Scope.CLUSTER, why=_NODES),
            Right(
                resource="daemonsets.apps",
                verbs=("get",),
                scope=Scope.TARGET,
                why="to know which image and kernel the nodes should have",
            ),
            Right(resource="pods", verbs=("list", "watch"), scope=Scope.TARGET, why="where the drivers are"),
            Right(
                resource="pods/exec",
                verbs=("get", "create"),
                scope=Scope.TARGET,
                why="to read what the kernel says of the module, and run the module's checks (get: by WebSocket)",
            ),
        ),
    ),
    Account(
        name=PLANNER,
        what="schedules and triggers: `matrix submit`, which makes runs; the runs' tasks have accounts of their own",
        rights=(
            _planned("workflows.argoproj.io", "argo", "create", "get", "list", "watch", why=_MAKE),
            _planned("workflowtemplates.argoproj.io", "argo", "get", why=_INSTALLED),
            _planned("pipelineruns.tekton.dev", "tekton", "create", "get", "list", "watch", why=_MAKE),
            _planned("pipelines.tekton.dev", "tekton", "get", why=_INSTALLED),
            _planned("taskruns.tekton.dev", "tekton", "list", why="the parts of a run: how each task ended"),
            _planned("pods", "", "get", "list", why="when a task began"),
            _planned("pods/log", "", "get", why="why a cell failed, for its record"),
            _planned("events", "", "list", why="why a pod could not start"),
            Right(
                resource="configmaps", verbs=("get", "patch"), scope=Scope.RUNS, name=SEEN,
                why="which releases there were when a trigger planned last",
            ),
            _planned(
                "leases.coordination.k8s.io", "", "create", "get", "list", "watch", "patch", "update", "delete",
                why="the lock: one run at a time for one module and kernel; and to see that a bell is off",
            ),
        ),
    ),
    Account(
        name=WATCHER,
        what="triggers: it watches bells, and nodes for a kernel that none had, and starts planners",
        rights=(
            Right(
                resource="nodes", verbs=("list", "watch"), scope=Scope.CLUSTER, why="to see which kernels they run",
            ),
            _planned("cronjobs.batch", "", "get", why=_STARTS),
            _planned("jobs.batch", "", "create", why=_STARTS),
            _planned("jobs.batch", "", "get", "list", "watch", why=_TURN),
            _planned("leases.coordination.k8s.io", "", "get", "list", "watch", "delete", why=_HEAR),
            _planned("workflows.argoproj.io", "argo", "get", "list", "watch", "delete", why=f"{_HEAR}: Argo's server"),
        ),
    ),
    Account(
        name=BELL,
        what="what listens for forges: Tekton's event listener, and the Sensors of Argo Events",
        rights=(
            *(
                _planned(f"{one}.triggers.tekton.dev", "tekton", "get", "list", "watch", why=_LISTEN)
                for one in ("eventlisteners", "interceptors", "triggerbindings", "triggers", "triggertemplates")
            ),
            *(
                Right(
                    resource=f"{one}.triggers.tekton.dev", verbs=("get", "list", "watch"), scope=Scope.CLUSTER,
                    engine="tekton", why="what checks signatures and filters is the same for all namespaces",
                )
                for one in ("clusterinterceptors", "clustertriggerbindings")
            ),
            _planned("leases.coordination.k8s.io", "", "create", why=_RING),
        ),
    ),
    _caller("github"),
    _caller("gitlab"),
    Account(
        name="dtkpipe-driver",
        what="drivers: their pods load modules and need no API; on OpenShift the SCC `privileged`",
        tasks=False,
        privileged=True,
    ),
)  # fmt: skip
TOKENLESS = frozenset(one.name for one in ACCOUNTS if not one.rights)
"""Accounts that may nothing: their pods get no token."""


def _runs(resource: str, engine: str) -> Right:
    return Right(
        resource=resource, verbs=("create", "get", "list", "watch", "patch", "delete"), scope=Scope.RUNS, engine=engine,
        why="runs: submit, list, wait, cancel, retry, delete",
    )  # fmt: skip


PEOPLE = (
    _runs("workflows.argoproj.io", "argo"),
    Right(
        resource="workflowtemplates.argoproj.io", verbs=("get",), scope=Scope.RUNS, engine="argo",
        why=_INSTALLED,
    ),
    _runs("pipelineruns.tekton.dev", "tekton"),
    Right(
        resource="pipelines.tekton.dev", verbs=("get",), scope=Scope.RUNS, engine="tekton",
        why=_INSTALLED,
    ),
    Right(
        resource="taskruns.tekton.dev", verbs=("get", "list", "watch"), scope=Scope.RUNS, engine="tekton",
        why="the parts of a run: describe, --follow",
    ),
    Right(resource="pods", verbs=("get", "list", "watch"), scope=Scope.RUNS, why="why a task does not start"),
    Right(resource="pods/log", verbs=("get",), scope=Scope.RUNS, why="logs, --follow"),
    Right(resource="events", verbs=("list",), scope=Scope.RUNS, why="what a pod that is gone had waited for"),
    Right(
        resource="leases.coordination.k8s.io", verbs=("create", "get", "list", "watch", "patch", "update", "delete"),
        scope=Scope.RUNS, why="the lock: one run at a time for one module and kernel",
    ),
)  # fmt: skip
"""What somebody needs who submits runs and follows them. `edit` of the namespace, with the engines' own additions to
it, holds all of this."""
