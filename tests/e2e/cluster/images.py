"""The images of the cluster's registry, made of static programs. Kept as a registry's storage, by content."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dtkpipe.clients.registry import Registry
from dtkpipe.values.image import ImageRef
from tests.e2e.cluster import layout
from tests.e2e.cluster.binaries import (
    ARGO,
    ARGO_VERSION,
    ENGINES,
    KANIKO,
    KANIKO_VERSION,
    PAUSE,
    TEKTON,
    TEKTON_VERSION,
)  # fmt: skip
from tests.fixtures.images import Member, file, folder, layer, push_image, symlink
from tests.fixtures.registry import running_registry

_BUSYBOX = Path("/bin/busybox")
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532::/home/nonroot:/bin/sh\n"


@dataclass(frozen=True)
class Image:
    """One image: its files, and what its configuration says beside them."""

    tag: str
    members: tuple[Member, ...]
    config: Mapping[str, object] = field(default_factory=dict)


def busybox() -> Image:
    """A shell and what a shell calls."""
    applets = subprocess.run([_BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    links = (symlink(f"bin/{name}", "busybox") for name in applets if name != "busybox")
    members = (folder("bin"), file("bin/busybox", _BUSYBOX.read_bytes(), 0o755), *links, _open("tmp"), *_users())
    return Image("busybox:1", members, {"Cmd": ["/bin/sh"]})


def _kaniko() -> Image:
    """As upstream's image: kaniko builds in its own root."""
    program = file("kaniko/executor", KANIKO.program("executor").read_bytes(), 0o755)
    members = (
        _open("kaniko"), _open("kaniko/.docker"), program, *_users(), file("etc/nsswitch.conf", b"hosts: files dns\n"),
        folder("root"), _open("tmp"), _open("workspace"),
    )  # fmt: skip
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/kaniko"
    config = {
        "Entrypoint": ["/kaniko/executor"], "WorkingDir": "/workspace",
        "Env": [path, "HOME=/root", "USER=root", "DOCKER_CONFIG=/kaniko/.docker/"],
    }  # fmt: skip
    return Image(f"kaniko-project/executor:{KANIKO_VERSION}", members, config)


def program(tag: str, path: Path, where: str = "") -> Image:
    """An image of one program."""
    folders = (folder(where.rstrip("/")),) if where else ()
    members = (*folders, file(f"{where}{path.name}", path.read_bytes(), 0o755), *_users())
    return Image(tag, members, {"Entrypoint": [f"/{where}{path.name}"]})


def _users() -> tuple[Member, ...]:
    return folder("etc"), file("etc/passwd", _PASSWD), file("etc/group", b"root:x:0:\nnonroot:x:65532:\n")


def _open(path: str) -> Member:
    return Member(path, kind=tarfile.DIRTYPE, mode=0o1777)


def _images() -> Iterator[Image]:
    yield busybox()
    yield _kaniko()
    yield program("pause:1", PAUSE.program("pause"))
    yield program(f"argoexec:{ARGO_VERSION}", ARGO.program("argoexec"), "bin/")
    for name in TEKTON.programs:  # Tekton copies its entrypoint by the name /ko-app/entrypoint
        yield program(f"tekton-{name}:{TEKTON_VERSION}", TEKTON.program(name), "ko-app/")


def push(image: Image, registry: Registry, host: str) -> None:
    """Push an image into a registry."""
    name, _, tag = image.tag.partition(":")
    push_image(
        registry, ImageRef(host, name), [layer(*image.members)], compressions=["zstd"], tag=tag, config=image.config
    )


def storage(say: Callable[[str], None]) -> Path:
    """Return the storage of a registry that has all images; make it if it is not there."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + _BUSYBOX.read_bytes())
    for engine in ENGINES:
        digest.update(engine.folder.name.encode())
    kept = layout.cache() / f"images-{digest.hexdigest()[:16]}"
    if not kept.exists():
        say("making the images of the cluster")
        with (
            tempfile.TemporaryDirectory(prefix=".images-", dir=layout.cache()) as work,
            running_registry(Path(work)) as running,
        ):
            for image in _images():
                push(image, running.client, running.host)
            shutil.copytree(running.storage, kept.with_suffix(".new"))
        kept.with_suffix(".new").rename(kept)
    return kept
