"""smoke-test: prove on every node that the loaded module is the one that was built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtkpipe.errors import InvalidError, NothingSelectedError
from dtkpipe.steps.contract import RegistryArgs, Room, StepRefusedError, arg, result
from dtkpipe.values.health import FAILS, HEALTHY, NOT_CONCERNED, REPORTED, WORDS, NodeVerdict, ordered, pack
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel

if TYPE_CHECKING:
    from dtkpipe.clients.cluster import Cluster
    from dtkpipe.steps.deploy.driver import Driver
    from dtkpipe.steps.smoke_test.report import NodeReport
    from dtkpipe.tools.host import HostKernel

HOST = "host"


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """What must be loaded, and where."""

    image: ImageRef = arg("Published image, by digest")
    kernel: Kernel = arg("Kernel release of the image")
    workload: str = arg("What deploy rolled out: `daemonset/<name>`, or `host`")
    target_namespace: str = arg("Namespace of the DaemonSet", "dtkpipe-drivers")
    ready_within: int = arg("Seconds to wait for nodes whose pod is not ready", 60)
    require_all_nodes: bool = arg("Fail for a node that is down, too", False)


@dataclass(frozen=True, kw_only=True)
class Results:
    """One verdict per node."""

    nodes: str = result("JSON: node -> `healthy`, or a word and what is wrong; at most 2 KiB, what fails comes first")


def run(args: Args, room: Room) -> Results:
    """Compare every module of the image with what the kernel of each node has loaded, and run its checks there.

    Raises StepRefusedError when a node is not healthy, NothingSelectedError when no node is meant, NotFoundError for a
    workload that is not there, UnsupportedError for this machine with another kernel or one that loads no modules.
    """
    if args.workload == HOST:
        from dtkpipe.steps.deploy.driver import read_driver
        from dtkpipe.tools.host import HostKernel

        host = HostKernel()
        host.require(args.kernel)
        return conclude([_on_host(read_driver(args, args.image, args.kernel, room), host)], args, room)
    from dtkpipe.clients.cluster import Cluster

    return run_on(Cluster(), args, room)


def run_on(cluster: Cluster, args: Args, room: Room) -> Results:
    """Test the nodes of a cluster that a driver is for, and tell each verdict as it comes.

    Raises what run() raises, and InvalidError for a DaemonSet that has another image than the one to test.
    """
    from dtkpipe.clients.cluster import DAEMON_SETS
    from dtkpipe.steps.deploy.daemonset import IMAGE
    from dtkpipe.steps.deploy.driver import read_driver
    from dtkpipe.steps.deploy.rollout import Workload
    from dtkpipe.steps.deploy.trouble import patiently
    from dtkpipe.steps.smoke_test.cluster import Inquiry
    from dtkpipe.steps.smoke_test.judge import Built

    name = args.workload.removeprefix("daemonset/")
    if not name or "/" in name:
        raise InvalidError(f"`{args.workload[:80]}` is no workload", "expected daemonset/<name>, or host")
    workload = Workload(patiently(lambda: cluster.read(DAEMON_SETS, name, args.target_namespace)))
    has = workload.annotation(IMAGE)
    if args.image.digest not in has:
        raise InvalidError(
            f"daemonset/{name} has another image than the one to test", f"it has {has or 'none of ours'}",
            f"to test: {args.image}", hint="dtkpipe status",
        )  # fmt: skip
    driver = read_driver(args, args.image, args.kernel, room)
    modules = [Built.from_module(module) for module in driver.modules.values()]
    inquiry = Inquiry(
        cluster=cluster, namespace=args.target_namespace, workload=workload, modules=modules,
        spec=driver.spec, checks=driver.spec.checks if driver.spec else (),
    )  # fmt: skip
    return conclude(inquiry.reports(lambda report: tell(report, room), wait=args.ready_within), args, room)


def tell(report: NodeReport, room: Room) -> None:
    """Say a node's verdict and what explains it."""
    verdict = report.verdict
    room.say(f"{verdict.node}: {verdict.word}" + (f": {verdict.reason}" if verdict.reason else ""))
    for line in report.details[:20]:
        room.say(f"  {line}")


def conclude(reports: Sequence[NodeReport], args: Args, room: Room) -> Results:
    """Turn reports into the step's results. Raises StepRefusedError, NothingSelectedError."""
    verdicts = ordered([report.verdict for report in reports])
    by_node = {report.verdict.node: report for report in reports}
    room.document(
        {
            "image": str(args.image),
            "kernel": args.kernel.release,
            "workload": args.workload,
            "nodes": {verdict.node: by_node[verdict.node].document() for verdict in verdicts},
        }
    )
    results = Results(nodes=pack(verdicts))
    meant = [one for one in verdicts if one.word not in NOT_CONCERNED]
    if not meant:
        raise NothingSelectedError(
            f"no node is there to test: none with kernel {args.kernel} is selected by {args.workload}",
            *(f"{one.node}: {one.text}" for one in verdicts[:10]), hint="dtkpipe label-nodes",
        )  # fmt: skip
    if bad := _failing(meant, args.require_all_nodes):
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise StepRefusedError(
            f"node {bad[0].node}: {bad[0].text}{others}", *by_node[bad[0].node].details[:20],
            results=results, hint=WORDS[bad[0].word].fix,
        )  # fmt: skip
    if not any(one.word == HEALTHY for one in meant):
        raise StepRefusedError(
            f"no node could be tested: node {meant[0].node}: {meant[0].text}", results=results,
            hint=WORDS[meant[0].word].fix,
        )  # fmt: skip
    healthy = sum(one.word == HEALTHY for one in meant)
    room.say(f"{healthy} of {len(meant)} nodes are healthy")
    return results


def _failing(verdicts: Sequence[NodeVerdict], strict: bool) -> list[NodeVerdict]:
    effects = (FAILS, REPORTED) if strict else (FAILS,)
    return [one for one in verdicts if WORDS[one.word].effect in effects]


def _on_host(driver: Driver, host: HostKernel) -> NodeReport:
    """Test this machine: the log of the kernel is left out, it says nothing of when the modules were loaded."""
    from dtkpipe.steps.smoke_test.facts import from_root, paths, understand
    from dtkpipe.steps.smoke_test.judge import Built, judge
    from dtkpipe.steps.smoke_test.report import report

    modules = [Built.from_module(module) for module in driver.modules.values()]
    names = [module.name for module in modules]
    facts = understand(from_root(host.root)(paths(names, driver.spec)), names)
    return report(host.name, judge(modules, driver.spec, facts), modules, facts)
