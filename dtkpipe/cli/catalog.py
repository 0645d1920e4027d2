"""The catalogue of OpenShift releases: list, show, update, verify, diff."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dtkpipe.cli import registries
from dtkpipe.cli.output import AnyForm, emit, say, table

if TYPE_CHECKING:
    from dtkpipe.app.catalog import Online
    from dtkpipe.releases.lock import Lock
    from dtkpipe.releases.refresh import Report
    from dtkpipe.releases.row import Row

Minor = Annotated[str, typer.Option(metavar="MINOR", help="4.16, 4.16..4.22, '>=4.16.3 <4.18' (default: all)")]
ArchName = Annotated[str, typer.Option(metavar="ARCH", help="x86_64, aarch64, ppc64le, s390x, all")]
Jobs = Annotated[int, typer.Option(metavar="NUMBER", min=1, max=16, help="Releases that are read at the same time")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    catalog = typer.Typer(rich_markup_mode=None)
    app.add_typer(catalog, name="catalog")

    @catalog.callback()
    def group() -> None:
        """List, refresh and check the lock of OpenShift releases."""

    catalog.command("list")(_list)
    catalog.command()(show)
    catalog.command()(update)
    catalog.command()(verify)
    catalog.command()(diff)


def _list(minor: Minor = "", arch: ArchName = "all", lock: registries.Lock = None, output: AnyForm = "table") -> None:
    """List the releases that the lock knows."""
    from dtkpipe.app.catalog import Selection, selected

    rows = selected(_lock(lock), Selection.parse(minor, arch))
    _print(rows, output)


def show(
    release: Annotated[str, typer.Argument(help="A release: 4.16.3, or the newest of 4.16")],
    lock: registries.Lock = None,
    output: AnyForm = "table",
) -> None:
    """Show everything that the lock knows of a release."""
    from dtkpipe.app.catalog import as_dict, shown

    rows = shown(_lock(lock), release)

    def text() -> str:
        return "\n\n".join(
            "\n".join(f"{name:<10}{_plain(value)}" for name, value in as_dict(row).items()) for row in rows
        )

    emit(output, [as_dict(row) for row in rows], text, [row.name for row in rows])


def update(
    minor: Minor = "",
    arch: ArchName = "all",
    channel: Annotated[
        Literal["stable", "fast", "candidate", "eus", "tags"],
        typer.Option(help="Channel of the update graph, or the tags of the repository"),
    ] = "stable",
    jobs: Jobs = 16,
    lock: registries.Lock = None,
    graph: registries.GraphUrl = "",
    release_repo: registries.ReleaseRepo = "",
    insecure_registry: registries.Insecure = [],  # noqa: B006
    registry_ca: registries.Ca = None,
    registry_mirrors: registries.MirrorFile = None,
) -> int:
    """Add to the lock the releases there are, and what it lacks of those it has.

    Nothing that the lock knows is ever changed. Interrupted, it goes on where it was when it is started again.
    """
    from datetime import UTC, datetime

    from dtkpipe.app.catalog import Selection, update

    online = _online(insecure_registry, registry_ca, registry_mirrors, channel, graph, release_repo)
    day = datetime.now(UTC).date().isoformat()
    report = update(_lock(lock), Selection.parse(minor, arch), online, day, say, jobs=jobs)
    print(
        f"{len(report.added)} added, {len(report.filled)} filled in, {report.same} without news, "
        f"{report.complete} complete, {len(report.failed)} failed"
    )
    return _outcome(report)


def verify(
    minor: Minor = "",
    arch: ArchName = "all",
    jobs: Jobs = 16,
    lock: registries.Lock = None,
    release_repo: registries.ReleaseRepo = "",
    insecure_registry: registries.Insecure = [],  # noqa: B006
    registry_ca: registries.Ca = None,
    registry_mirrors: registries.MirrorFile = None,
) -> int:
    """Read releases in their registry again, and tell where the lock says something else.

    Exit code 1: a registry contradicts the lock.
    """
    from dtkpipe.app.catalog import Selection, drifted, verify

    online = _online(insecure_registry, registry_ca, registry_mirrors, "tags", "", release_repo)
    report = verify(_lock(lock), Selection.parse(minor, arch), online, say, jobs=jobs)
    drift = drifted(report)
    for name in drift:
        print(f"{name}: {report.failed[name]}\n")
    agree = report.same + len(report.filled)
    print(f"{agree} agree, {len(drift)} drifted, {len(report.failed) - len(drift)} could not be read")
    return 1 if drift else _outcome(report)


def diff(
    before: Annotated[Path, typer.Argument(metavar="FOLDER", help="The older lock")],
    lock: registries.Lock = None,
) -> int:
    """Compare the lock with an older one.

    Exit code 1: they differ.
    """
    from dtkpipe.app.catalog import difference
    from dtkpipe.releases.lock import Lock

    found = difference(Lock(before), _lock(lock))
    print("\n".join(found.lines) or "no differences")
    return 1 if found.lines else 0


def _lock(folder: Path | None) -> Lock:
    from dtkpipe.app.resolve import lock_folder
    from dtkpipe.releases.lock import Lock

    return Lock(lock_folder(folder))


def _online(
    insecure: list[str], ca: Path | None, mirrors: Path | None, channel: str, graph: str, releases: str
) -> Online:
    from dtkpipe.app.catalog import Online
    from dtkpipe.clients.registry import Registry
    from dtkpipe.values.image import ImageRef

    access = registries.access(insecure, ca, mirrors)
    repo = ImageRef.parse(releases) if releases else None
    return Online(registry=Registry(access), access=access, channel=channel, graph=graph, releases=repo)


def _outcome(report: Report) -> int:
    """Return 0 when every release could be read, or else the exit code of the first error."""
    return next((error.exit_code for error in report.failed.values()), 0)


def _print(rows: list[Row], output: str) -> None:
    from dtkpipe.app.catalog import as_dict

    def text() -> str:
        return table(
            ("RELEASE", "ARCH", "STREAM", "KERNEL", "TOOLKIT", "FROM"),
            [
                (
                    str(row.version), row.arch.name, row.stream, str(row.kernels.get("std", "-")),
                    row.toolkit[:19] or "-", ", ".join(row.source),
                )
                for row in rows
            ],
        )  # fmt: skip

    emit(output, [as_dict(row) for row in rows], text, [f"{row.version}-{row.arch}" for row in rows])


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {text}" for name, text in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
