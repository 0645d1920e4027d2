"""The images of the cluster's registry, made of static programs. Kept as a registry's storage, by content."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532::/home/nonroot:/bin/sh\n"


@dataclass(frozen=True)
class Image:
    """One image: its files, and what its configuration says beside them."""

    tag: str
    members: tuple[Member, ...]
    config: Mapping[str, object] = field(default_factory=dict)


def _images() -> list[Image]:
    """All images. Tekton copies its entrypoint by the name /ko-app/entrypoint; kaniko builds in its own root."""
    applets = subprocess.run([_BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    shell = (
        folder("bin"), file("bin/busybox", _BUSYBOX.read_bytes(), 0o755),
        *(symlink(f"bin/{name}", "busybox") for name in applets if name != "busybox"),
        Member("tmp", kind=b"5", mode=0o1777), folder("etc"), file("etc/passwd", _PASSWD.encode()),
    )  # fmt: skip
    kaniko = (
        Member("kaniko", kind=b"5", mode=0o777), Member("kaniko/.docker", kind=b"5", mode=0o777),
        file("kaniko/executor", KANIKO.program("executor").read_bytes(), 0o755),
        folder("etc"), file("etc/passwd", b"root:x:0:0:root:/root:/sbin/nologin\n"), file("etc/group", b"root:x:0:\n"),
        file("etc/nsswitch.conf", b"hosts: files dns\n"), folder("root"), Member("tmp", kind=b"5", mode=0o1777),
        Member("workspace", kind=b"5", mode=0o777),
    )  # fmt: skip
    made = [
        Image("pause:1", _program("", "pause", PAUSE.program("pause")), {"Entrypoint": ["/pause"]}),
        Image("busybox:1", shell, {"Cmd": ["/bin/sh"]}),
        Image(
            f"argoexec:{ARGO_VERSION}", _program("bin/", "argoexec", ARGO.program("argoexec")),
            {"Entrypoint": ["/bin/argoexec"]},
        ),
        Image(f"kaniko-project/executor:{KANIKO_VERSION}", kaniko, {
            "Entrypoint": ["/kaniko/executor"], "WorkingDir": "/workspace",
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/kaniko", "HOME=/root",
                    "USER=root", "DOCKER_CONFIG=/kaniko/.docker/"],
        }),
    ]  # fmt: skip
    for name in TEKTON.programs:
        members = (
            *_program("ko-app/", name, TEKTON.program(name)),
            folder("etc"),
            file("etc/passwd", _PASSWD.encode()),
        )
        made.append(Image(f"tekton-{name}:{TEKTON_VERSION}", members, {"Entrypoint": [f"/ko-app/{name}"]}))
    return made


def _program(where: str, name: str, program: Path) -> tuple[Member, ...]:
    folders = (folder(where.rstrip("/")),) if where else ()
    return (*folders, file(f"{where}{name}", program.read_bytes(), 0o755))


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
                name, _, tag = image.tag.partition(":")
                push_image(
                    running.client, running.repo(name), [layer(*image.members)], compressions=["zstd"], tag=tag,
                    config=image.config,
                )  # fmt: skip
            shutil.copytree(running.storage, kept.with_suffix(".new"))
        kept.with_suffix(".new").rename(kept)
    return kept
