"""Put what runs need onto a cluster, and take it off again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dtkpipe.cli.clusters import Context, DryRun, Kubeconfig, Namespace, where
from dtkpipe.cli.compile import KanikoImage
from dtkpipe.cli.output import AnyForm, emit, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dtkpipe.app.install import Change, Installation

Engine = Annotated[str, typer.Option("--engine", "-e", metavar="ENGINE", help="argo or tekton")]
Target = Annotated[
    str, typer.Option("--target-namespace", metavar="NAMESPACE", help="Namespace of the drivers (DaemonSets)")
]
_TARGET = "dtkpipe-drivers"


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @app.command()
    def install(
        *,
        engine: Engine,
        namespace: Namespace = "",
        target_namespace: Target = _TARGET,
        runner_image: Annotated[
            str,
            typer.Option(
                "--runner-image", metavar="IMAGE", help="Image of dtkpipe's steps, instead of the released one"
            ),
        ] = "",
        builder: Annotated[
            list[str],
            typer.Option(
                "--builder",
                metavar="BUILDER",
                help="Install the pipelines that build with it: buildah (default), kaniko; may be repeated",
            ),
        ] = [],  # noqa: B006 - Typer copies it
        kaniko_image: KanikoImage = "",
        dry_run: DryRun = "none",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
        output: AnyForm = "table",
    ) -> None:
        """Put pipelines, accounts and rights onto a cluster.

        A second time it says `unchanged`. With --dry-run=client no cluster is asked: -o yaml prints what would be
        applied, and `dtkpipe compile --dir` writes it as files. What each account may do, and why:
        docs/reference/rbac.md.

        dtkpipe install --engine argo -n dtkpipe

        dtkpipe install --engine tekton -n dtkpipe --dry-run=client -o yaml | kubectl apply -f -
        """
        from dtkpipe.app.clusters import connect, is_configured
        from dtkpipe.app.install import Installation, engine_named
        from dtkpipe.app.install import install as apply
        from dtkpipe.builders import BUILDERS
        from dtkpipe.engines.rbac import NAMESPACE
        from dtkpipe.model.images import DEFAULTS, KANIKO, RUNNER

        chosen, meant = engine_named(engine), where(kubeconfig, context, namespace)
        place = connect(meant) if dry_run != "client" or is_configured(meant) else None
        wanted = Installation(
            engine=chosen, namespace=place.namespace if place else meant.namespace or NAMESPACE,
            target=target_namespace, runner_image=runner_image or DEFAULTS[RUNNER],
            kaniko_image=kaniko_image or DEFAULTS[KANIKO], builders=tuple(dict.fromkeys(builder)) or BUILDERS[:1],
        )  # fmt: skip
        if dry_run == "client" or place is None:
            _print(wanted, output)
            return
        _show(apply(place, wanted, say, dry_run=dry_run == "server"), wanted.objects(), output, dry_run)
        if dry_run == "none":
            start = f"dtkpipe submit --engine {chosen.name} -n {wanted.namespace}"
            say(f"next: {start} --release 4.14 --repo URL --push-to REPOSITORY")

    @app.command()
    def uninstall(
        *,
        engine: Engine,
        namespace: Namespace = "",
        target_namespace: Target = _TARGET,
        dry_run: DryRun = "none",
        context: Context = "",
        kubeconfig: Kubeconfig = None,
        output: AnyForm = "table",
    ) -> None:
        """Take off a cluster what install put there.

        Only what carries dtkpipe's labels goes. Runs, drivers on nodes, secrets and namespaces stay.
        """
        from dtkpipe.app.clusters import connect
        from dtkpipe.app.install import engine_named
        from dtkpipe.app.install import uninstall as remove
        from dtkpipe.errors import UsageError

        if dry_run == "client":
            raise UsageError("only the cluster knows what is installed", hint="--dry-run=server")
        chosen, place = engine_named(engine), connect(where(kubeconfig, context, namespace))
        changes = remove(place, chosen, target_namespace, say, dry_run=dry_run == "server")
        if not changes and output == "table":
            say(f"nothing of {chosen.title} is installed in namespace {place.namespace}")
            return
        _show(changes, [], output, dry_run)


def _print(wanted: Installation, output: str) -> None:
    from dtkpipe.app.compile import name_of

    objects = wanted.objects()
    names = [name_of(one) for one in objects]
    emit(output, objects, lambda: "\n".join(f"{name} (client dry run)" for name in names), names)


def _show(changes: Sequence[Change], objects: Sequence[dict[str, object]], output: str, dry_run: str) -> None:
    suffix = "" if dry_run == "none" else " (server dry run)"

    def text() -> str:
        rows = [(one.name, one.namespace or "-", f"{one.action}{suffix}") for one in changes]
        return table(("OBJECT", "NAMESPACE", "STATE"), rows)

    if output == "yaml" and objects:
        document: object = list(objects)
    else:
        document = [{"object": one.name, "namespace": one.namespace, "state": one.action} for one in changes]
    emit(output, document, text, [one.name for one in changes])
