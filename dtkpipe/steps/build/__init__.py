"""build: compile the module against the toolkit and push the candidate image to the staging repository."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.key import LABEL, ContentKey, content_key
from dtkpipe.values.module import ModuleSpec, Origin
from dtkpipe.values.source import Source

if TYPE_CHECKING:
    from dtkpipe.source.fetch import Fetched
    from dtkpipe.steps.build.image import Builder


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """What to compile, against what, and where the candidate goes."""

    repo: str = arg("Source of the module: folder, tarball, git URL (github.com/org/kmod) or package (apt:NAME/SUITE)")
    ref: str = arg("Branch, tag or commit of the git repository", "")
    path: str = arg("Folder of the module inside the source", "")
    spec: str = arg("dtkpipe.yaml of the module, as JSON or YAML text, instead of the one in the source", "")
    toolkit: ImageRef = arg("Toolkit image, by digest")
    kernel: Kernel = arg("Kernel release to build for")
    arch: Arch = arg("Architecture to build for")
    release: str = arg("Release the image is for; goes into its labels", "")
    build_args: tuple[str, ...] = arg("Build arguments, NAME=value", ())
    hermetic: bool = arg("Compile without network even where a Containerfile of the module's would have it", False)
    staging: ImageRef = arg("Repository for candidates")
    run_name: str = arg("Name of the run: candidates are tagged <run>-<step>")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The candidate image: unsigned, unverified."""

    image_url: str = result("Repository of the candidate")
    image_digest: str = result("Digest of the candidate")
    commit: str = result("Commit of the source, or sha256:... of a folder, tarball or package")
    module: str = result("Name of the module")
    kernel_image: str = result("Kernel artifact (vmlinuz, symvers, in-tree modules) for verify, by digest")


def run(args: Args, room: Room) -> Results:
    """Compile and push.

    Raises InvalidError for a source that is no module or contradicts itself, RunFailedError for one that does not
    compile, excludes the kernel, or gives other modules than its spec lists.
    """
    builder = begin(args, room)

    def build() -> tuple[str, bool]:
        image = builder.build()
        digest = builder.buildah.push(image.id, candidate_of(args))
        builder.buildah.remove(image.id)
        return digest, image.own

    return finish(args, room, builder, build)


def begin(args: Args, room: Room, fetched: Fetched | None = None) -> Builder:
    """Fetch the source, unless that is done, and find out what it is. Raises what run() raises before it compiles."""
    from dtkpipe.clients.registry import Registry
    from dtkpipe.source.fetch import fetch
    from dtkpipe.source.recipe import Target, pairs, refuse_kernel
    from dtkpipe.source.recognise import recognise
    from dtkpipe.steps.build.image import Builder

    registry = Registry(args.access(room.environ))
    target = Target(kernel=args.kernel, arch=args.arch)
    source = source_of(args)
    given = pairs(args.build_args)
    fetched = fetched or fetch(source, room.work / "source")
    room.say(f"source: {fetched.title}")
    found = recognise(fetched.folder, Path(source.path).name or source.name, args.spec)
    refuse_kernel(found.spec, target)
    for note in found.notes:
        room.say(note)
    room.say(f"recipe: {found.spec.build.recipe or 'as written'}, from {found.how}")
    return Builder(
        registry=registry, toolkit=args.toolkit, target=target, fetched=fetched, found=found, given=given,
        hermetic=args.hermetic, room=room,
    )  # fmt: skip


def source_of(args: Args) -> Source:
    """Return where the source is."""
    return Source.parse(args.repo, args.ref, args.path, here=Path.cwd())


def candidate_of(args: Args) -> ImageRef:
    """Return the tag of the candidate."""
    return args.staging.tagged(f"{args.run_name}-build")


def finish(args: Args, room: Room, builder: Builder, build: Callable[[], tuple[str, bool]]) -> Results:
    """Build, hold the candidate against what was promised, and label it.

    `build` pushes the candidate and returns its digest, and whether the image is laid out by us.
    """
    from concurrent.futures import ThreadPoolExecutor

    from dtkpipe.proof.kernel_store import staged_kernel

    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(
            staged_kernel, builder.registry, args.toolkit, args.kernel.release, args.staging, room.cache, room.say
        )
        spec, digest = _candidate(args, room, builder, build)
        files, kernel_image = publishing.result()
    own = files.builtin.union(files.in_tree)
    for name in spec.names:
        if name in own - set(spec.in_tree_modules_to_remove):
            room.say(f"warning: the kernel has a module `{name}` of its own: list it in inTreeModulesToRemove")
    return Results(
        image_url=args.staging.name,
        image_digest=digest,
        commit=builder.fetched.commit,
        module=spec.name,
        kernel_image=str(kernel_image),
    )


def _candidate(
    args: Args, room: Room, builder: Builder, build: Callable[[], tuple[str, bool]]
) -> tuple[ModuleSpec, str]:
    """Build, push and label the candidate; return what it holds, and its digest."""
    from dtkpipe.errors import RunFailedError
    from dtkpipe.steps.build import candidate

    started, source = time.monotonic(), source_of(args)
    digest, own = build()
    staged = replace(candidate_of(args), digest=digest)
    files = candidate.inspect(builder.registry, staged.at(digest), builder.target, room.work / "candidate")
    if not own and files.config.architecture != args.arch.oci:
        raise RunFailedError(f"the Containerfile's image is for {files.config.architecture}, not {args.arch.oci}")
    built = candidate.modules_of(files, builder.target)
    spec = candidate.settle(builder.found, built)
    room.say(f"built: {', '.join(spec.names)} for {args.kernel} ({time.monotonic() - started:.1f} s)")
    if lacking := candidate.lacks(files):
        room.say(f"warning: the image has no {' and no '.join(lacking)}; Kernel Module Management needs both")
    spec = replace(spec, source=_origin(source, builder.fetched.commit))
    labels = {**_labels(args, spec, builder.fetched.commit), LABEL: str(_key(args, spec.name, source, builder))}
    digest = candidate.finish(
        builder.registry, staged, files, labels, builder.target.arch if own else None
    )  # fmt: skip
    return spec, digest


def _origin(source: Source, commit: str) -> Origin:
    """Say where the source is, for others: a path on this machine means nothing to them."""
    if not source.remote or source.repo.startswith("file:"):
        return Origin()
    return Origin(repo=source.repo, ref="" if commit.startswith("sha256:") else commit, path=source.path)


def _key(args: Args, module: str, source: Source, builder: Builder) -> ContentKey:
    given = ModuleSpec.from_text(args.spec, where="--spec") if args.spec else None
    return content_key(
        module=module, commit=builder.fetched.commit, kernel=args.kernel, arch=args.arch, toolkit=args.toolkit.digest,
        path=source.path, spec=given, build_args=builder.given,
    )  # fmt: skip


def _labels(args: Args, spec: ModuleSpec, commit: str) -> dict[str, str]:
    labels = {
        "dtkpipe.kernel": args.kernel.release,
        "dtkpipe.toolkit": str(args.toolkit),
        "dtkpipe.commit": commit,
        "dtkpipe.releases": args.release,
        "dtkpipe.module": spec.name,
        "dtkpipe.spec": spec.to_json(),
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.source": spec.source.repo,
    }
    return {name: value for name, value in labels.items() if value}
