"""Resolve a release, a kernel or an image to a toolkit and its kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from dtkpipe.cli import registries
from dtkpipe.cli.output import AnyForm, emit, say
from dtkpipe.releases.answer import Answer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def resolve(
        release: Annotated[
            str, typer.Option(metavar="RELEASE", help="4.14, 4.14.38, latest, stable-4.16, a range, debian-12")
        ] = "",
        release_image: Annotated[str, typer.Option(metavar="IMAGE", help="Image of a release")] = "",
        toolkit: Annotated[str, typer.Option(metavar="IMAGE", help="Driver Toolkit image")] = "",
        kernel: Annotated[str, typer.Option(metavar="KERNEL", help="Kernel release, as `uname -r` prints it")] = "",
        from_cluster: Annotated[
            bool, typer.Option("--from-cluster", help="The toolkit of the cluster's newest operating system")
        ] = False,
        node: Annotated[str, typer.Option(metavar="NODE", help="The toolkit for the kernel that a node runs")] = "",
        kubeconfig: Annotated[Path | None, typer.Option(metavar="FILE", help="Which clusters there are")] = None,
        context: Annotated[str, typer.Option(metavar="NAME", help="Context of the kubeconfig")] = "",
        arch: Annotated[
            str, typer.Option(metavar="ARCH", help="x86_64, aarch64, ppc64le, s390x (default: this machine's)")
        ] = "",
        variant: Annotated[
            str, typer.Option(metavar="VARIANT", help="Kernel flavour: std, rt, 64k (default: std)")
        ] = "",
        stream: Annotated[
            str, typer.Option(metavar="STREAM", help="Stream of the operating system: rhel-9, rhel-10")
        ] = "",
        via: Annotated[
            Literal["", "lock", "payload", "redhat"], typer.Option(help="Ask one place alone", show_default=False)
        ] = "",
        allow_kernel_mismatch: Annotated[
            bool,
            typer.Option(
                "--allow-kernel-mismatch", help="Take a toolkit that is not for the kernel of its operating system"
            ),
        ] = False,
        lock: registries.Lock = None,
        graph: registries.GraphUrl = "",
        release_repo: registries.ReleaseRepo = "",
        insecure_registry: registries.Insecure = [],  # noqa: B006
        registry_ca: registries.Ca = None,
        registry_mirrors: registries.MirrorFile = None,
        output: AnyForm = "table",
    ) -> None:
        """Find the toolkit and the kernel of a release.

        Nothing is pulled. Asked in this order: the lock that ships with dtkpipe, then the release payload in its
        registry. The answer says which it was. `-o name` prints the image of the toolkit alone.
        """
        from dtkpipe.app.resolve import Request, lock_folder, resolve

        request = Request(
            release=release, release_image=release_image, toolkit=toolkit, kernel=kernel, from_cluster=from_cluster,
            node=node, kubeconfig=kubeconfig, context=context, arch=arch, variant=variant,
            stream=stream, via=via, release_repo=release_repo, allow_mismatch=allow_kernel_mismatch,
        )  # fmt: skip
        answer = resolve(
            request, lock_folder(lock), lambda: registries.access(insecure_registry, registry_ca, registry_mirrors),
            graph, os.environ, say,
        )  # fmt: skip
        if answer.missing:
            say(f"note: the kernel is not known: {answer.missing}")
        emit(output, answer.to_dict(), lambda: _table(answer), [str(answer.toolkit or "")])


def _table(answer: Answer) -> str:
    name = f"{answer.release or 'not known'}   {answer.arch}   {answer.stream}".rstrip()
    others = [one for one in answer.streams if one != answer.stream]
    rows = [
        ("release", name),
        ("toolkit", str(answer.toolkit or "made when a run needs it")),
        ("kernel", str(answer.kernel or "not known")),
        *[("", f"{variant}: {kernel}") for variant, kernel in answer.kernels.items() if kernel != answer.kernel],
        ("rhcos", answer.rhcos),
        ("gate", f"{answer.gate}: {_GATES[answer.gate]}" if answer.toolkit else ""),
        ("streams", f"also {', '.join(others)} (--stream)" if others else ""),
        *[("how" if not number else "", line) for number, line in enumerate(answer.how)],
    ]
    return "\n".join(f"{head:<10}{text}" for head, text in rows if text)


_GATES = {
    "equal": "the toolkit is for the kernel of its operating system",
    "not checked": "the kernel of the operating system is not known",
    "overridden": "the toolkit is not for the kernel of its operating system, and that was allowed",
}
