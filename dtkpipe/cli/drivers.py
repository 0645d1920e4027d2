"""Drivers on the nodes of a cluster: deploy, status, smoke-test, rollback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dtkpipe.cli import clusters, registries
from dtkpipe.cli.output import TableOrJson, emit, say, table

if TYPE_CHECKING:
    from dtkpipe.app.drivers import Driver, Site
    from dtkpipe.steps.contract import RegistryArgs

Namespace = Annotated[
    str, typer.Option("--target-namespace", metavar="NAMESPACE", help="Namespace of the drivers")
]  # fmt: skip
Kernel = Annotated[
    str, typer.Option(metavar="KERNEL", help="Kernel release, where there are several", show_default=False)
]  # fmt: skip
WideForm = Annotated[
    Literal["table", "wide", "json", "yaml", "name"],
    typer.Option("-o", "--output", help="Form of the answer on stdout"),
]  # fmt: skip
_DRIVERS = "dtkpipe-drivers"


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @app.command()
    def deploy(
        image: Annotated[str, typer.Argument(metavar="IMAGE", help="Driver image: repository:tag, or by digest")],
        kernel: Annotated[
            str, typer.Option(metavar="KERNEL", help="Kernel release of the image (default: what the image says)")
        ] = "",
        module: Annotated[
            str, typer.Option(metavar="NAME", help="Name of the driver (default: what the image says)")
        ] = "",
        canary: Annotated[str, typer.Option(metavar="KEY=VALUE", help="Label of the nodes that get it first")] = "",
        max_unavailable: Annotated[
            str, typer.Option(metavar="NUMBER", help="How many nodes, or which share, may be without it at a time")
        ] = "1",
        toleration: Annotated[
            list[str],
            typer.Option(metavar="TAINT", help="Taint that does not keep it away: key[=value][:Effect], or *"),
        ] = [],  # noqa: B006 - Typer copies it
        priority_class_name: Annotated[
            str, typer.Option(metavar="NAME", help="PriorityClass of the pods")
        ] = "system-node-critical",
        pull_secret: Annotated[
            str, typer.Option(metavar="NAME", help="Secret in that namespace that nodes pull the image with")
        ] = "",
        firmware_folder: Annotated[
            str, typer.Option(metavar="FOLDER", help="Folder of the node that its kernel looks for firmware in")
        ] = "/var/lib/firmware",
        rollout_timeout: Annotated[
            int, typer.Option(metavar="SECONDS", min=1, help="Until every node must have it; then it is taken back")
        ] = 300,
        target_namespace: Namespace = _DRIVERS,
        context: clusters.Context = "",
        kubeconfig: clusters.Kubeconfig = None,
        insecure_registry: registries.Insecure = [],  # noqa: B006
        registry_ca: registries.Ca = None,
        registry_mirrors: registries.MirrorFile = None,
        output: TableOrJson = "table",
    ) -> None:
        """Roll a driver image out to the nodes that run its kernel.

        One DaemonSet for each module and kernel. A node that does not take it ends the rollout, and what was there
        before is put back.
        """
        import json

        from dtkpipe.app.drivers import deploy as roll_out
        from dtkpipe.app.drivers import published
        from dtkpipe.steps.deploy import Args
        from dtkpipe.values.image import ImageRef

        asked = ImageRef.parse(image)
        given = registries.args(insecure_registry, registry_ca, registry_mirrors)
        site = _site(kubeconfig, context, target_namespace, given)
        found = published(site, asked, kernel)
        args = Args(
            image=found.image, kernel=found.kernel, module=module, target_namespace=target_namespace, canary=canary,
            max_unavailable=max_unavailable, tolerations=tuple(toleration), priority_class_name=priority_class_name,
            pull_secret=pull_secret, firmware_folder=firmware_folder, rollout_timeout=rollout_timeout, **vars(given),
        )  # fmt: skip
        results = roll_out(site, args)
        nodes = json.loads(results["nodes"])
        emit(
            output, {"workload": results["workload"], "image": str(found.image), "kernel": str(found.kernel),
                     "nodes": nodes},
            lambda: table(("NODE", "STATE"), list(nodes.items())),
        )  # fmt: skip
        there = "" if target_namespace == _DRIVERS else f" --target-namespace {target_namespace}"
        say(f"\nnext: dtkpipe smoke-test {image}{there}")

    @app.command()
    def status(
        module: Annotated[str, typer.Argument(metavar="[MODULE]", help="Name of a driver (default: all)")] = "",
        kernel: Kernel = "",
        target_namespace: Namespace = _DRIVERS,
        context: clusters.Context = "",
        kubeconfig: clusters.Kubeconfig = None,
        output: WideForm = "table",
    ) -> None:
        """Show the drivers on nodes, and whether what is loaded is right.

        READY counts the nodes whose pod is ready, HEALTHY those whose kernel has just these modules loaded and a clean
        log since. `-o wide` shows every node.
        """
        from dtkpipe.app.drivers import status as look
        from dtkpipe.app.drivers import uncovered

        found = look(_site(kubeconfig, context, target_namespace), module, kernel)
        if not found and output in ("table", "wide"):
            say(f"there are no drivers in namespace {target_namespace}\n\nhint: dtkpipe deploy IMAGE")
            return
        emit(
            "table" if output == "wide" else output,
            [driver.document() for driver in found],
            lambda: _wide(found) if output == "wide" else _overview(found),
            [f"daemonset/{driver.workload.name}" for driver in found],
        )
        for name, nodes in uncovered(found).items() if not kernel else ():
            some = ", ".join(nodes[:5]) + (f" and {len(nodes) - 5} more" if len(nodes) > 5 else "")
            say(f"note: there is no driver `{name}` for the kernel of {some}")

    @app.command("smoke-test")
    def smoke_test(
        target: Annotated[str, typer.Argument(metavar="MODULE|IMAGE", help="Name of a driver, or its image")],
        kernel: Kernel = "",
        ready_within: Annotated[
            int, typer.Option(metavar="SECONDS", min=0, help="Wait for nodes whose pod is not ready")
        ] = 60,
        require_all_nodes: Annotated[
            bool, typer.Option("--require-all-nodes", help="Fail for a node that is down, too")
        ] = False,
        target_namespace: Namespace = _DRIVERS,
        context: clusters.Context = "",
        kubeconfig: clusters.Kubeconfig = None,
        insecure_registry: registries.Insecure = [],  # noqa: B006
        registry_ca: registries.Ca = None,
        registry_mirrors: registries.MirrorFile = None,
        output: TableOrJson = "table",
    ) -> None:
        """Prove on every node that the loaded modules are the image's, and run their checks there.

        Exit code 10 when a node is not healthy. The words for nodes: docs/reference/node-verdicts.md.
        """
        from dtkpipe.app.drivers import smoke_test as test

        given = registries.args(insecure_registry, registry_ca, registry_mirrors)
        site = _site(kubeconfig, context, target_namespace, given)
        tests = list(test(site, target, kernel, ready_within=ready_within, require_all_nodes=require_all_nodes))
        rows = [
            (name, str(one.document["kernel"]), str(report["verdict"]), str(report["reason"]))
            for one in tests
            for name, report in one.document["nodes"].items()
        ]
        emit(
            output,
            [one.document for one in tests],
            lambda: table(("NODE", "FOR KERNEL", "VERDICT", "REASON"), rows),
        )
        for refusal in (one.refusal for one in tests):
            if refusal:
                say("")
                raise refusal

    @app.command()
    def rollback(
        module: Annotated[str, typer.Argument(metavar="MODULE", help="Name of a driver")],
        kernel: Kernel = "",
        target_namespace: Namespace = _DRIVERS,
        context: clusters.Context = "",
        kubeconfig: clusters.Kubeconfig = None,
    ) -> None:
        """Put the image before back on every node, and wait until each has loaded it."""
        from dtkpipe.app.drivers import rollback as go_back

        print(go_back(_site(kubeconfig, context, target_namespace), module, kernel))


def _site(kubeconfig: Path | None, context: str, namespace: str, given: RegistryArgs | None = None) -> Site:
    from dtkpipe.app.clusters import connect
    from dtkpipe.app.drivers import Site
    from dtkpipe.steps.contract import RegistryArgs

    place = connect(clusters.where(kubeconfig, context, namespace))
    return Site(
        cluster=place.cluster, namespace=namespace, registries=given or RegistryArgs(), environ=registries.environ(),
        say=say,
    )  # fmt: skip


def _overview(drivers: list[Driver]) -> str:
    from dtkpipe.app.drivers import concerned
    from dtkpipe.steps.deploy import daemonset as ds

    rows = []
    for driver in drivers:
        nodes = len(concerned(driver.reports))
        workload = driver.workload
        rows.append(
            (driver.module, workload.annotation(ds.KERNEL), str(nodes), f"{driver.ready}/{nodes}",
             f"{driver.healthy}/{nodes}", workload.annotation(ds.ROLLOUT) or "-", workload.annotation(ds.IMAGE) or "-")
        )  # fmt: skip
    return table(("MODULE", "KERNEL", "NODES", "READY", "HEALTHY", "ROLLOUT", "IMAGE"), rows)


def _wide(drivers: list[Driver]) -> str:
    from dtkpipe.app.drivers import concerned
    from dtkpipe.steps.deploy import daemonset as ds

    rows = [
        (driver.module, report.verdict.node, driver.workload.annotation(ds.KERNEL), report.verdict.word,
         name or "-", one.get("srcversion") or "-", one.get("buildId", "")[:12] or "-", one.get("taint") or "-",
         report.verdict.reason or "-")
        for driver in drivers
        for report in concerned(driver.reports)
        for name, one in (report.modules or {"": {}}).items()
    ]  # fmt: skip
    heads = ("MODULE", "NODE", "KERNEL", "VERDICT", "LOADED", "SRCVERSION", "BUILD ID", "TAINT", "REASON")
    return table(heads, rows)
