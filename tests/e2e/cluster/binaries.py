"""The cluster's programs, built from Go modules. What is built is kept by everything it is built from.

Another engine is one more entry of ENGINES and a folder `go/<name>` with go.mod, go.sum and tools.go.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.cluster import layout
from tests.validators import go

HERE = Path(__file__).parent / "go"

_ARGO = "github.com/argoproj/argo-workflows/v4"
_TEKTON = "github.com/tektoncd/pipeline"
_TRIGGERS = "github.com/tektoncd/triggers"
_ARGO_EVENTS = "github.com/argoproj/argo-events"
KUBERNETES_VERSION = "v1.34.10"
ARGO_VERSION = "v4.0.7"
TEKTON_VERSION = "v1.15.0"
TRIGGERS_VERSION = "v0.37.0"
ARGO_EVENTS_VERSION = "v1.9.6"
KANIKO_VERSION = "v1.24.0"


@dataclass(frozen=True)
class Engine:
    """A Go module of ours that names programs of others. `programs`: file name -> package."""

    name: str
    programs: Mapping[str, str]
    stamps: Mapping[str, str] = field(default_factory=dict)
    """What the linker writes into string variables."""
    vendor: Callable[[Path], None] | None = None
    """Repairs the vendored sources; without it nothing is vendored."""
    manifests: tuple[str, str] = ("", "")
    """A module and the folder in it whose YAML files are kept beside the programs."""

    @property
    def folder(self) -> Path:
        """Where the programs are, or will be."""
        digest = hashlib.sha256(repr((sorted(self.programs.items()), sorted(self.stamps.items()))).encode())
        for source in sorted((HERE / self.name).iterdir()):
            digest.update(source.read_bytes())
        return layout.cache() / "bin" / f"{self.name}-{digest.hexdigest()[:16]}"

    def program(self, name: str) -> Path:
        return self.folder / name

    @property
    def yaml(self) -> Path:
        """The folder of its own manifests."""
        return self.folder / "manifests"


def _repair_argo(vendored: Path) -> None:
    """A module's zip holds no symbolic links and no built web page: put back what upstream's tree has."""
    argo = vendored / _ARGO
    signals = argo / "workflow/executor/osspecific/signal_linux.go"
    if not signals.exists():
        signals.symlink_to("signal_darwin.go")
    page = argo / "ui/dist/app/index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("<html></html>\n")


def _kubernetes_stamps() -> dict[str, str]:
    """Unstamped programs call themselves v0.0.0, and Tekton refuses such an API server."""
    _, major, minor = f".{KUBERNETES_VERSION[1:]}".split(".")[:3]
    said = {
        "gitVersion": KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor, "gitCommit": "none",
        "gitTreeState": "clean",
    }  # fmt: skip
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return {f"{package}.{name}": value for package in packages for name, value in said.items()}


KUBERNETES = Engine(
    "kubernetes",
    {
        **{name: f"k8s.io/kubernetes/cmd/{name}" for name in (
            "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"
        )},
        "etcd": "go.etcd.io/etcd/server/v3",
    },
    _kubernetes_stamps(),
)  # fmt: skip
ARGO = Engine(
    "argo",
    {name: f"{_ARGO}/cmd/{name}" for name in ("workflow-controller", "argoexec", "argo")},
    {f"{_ARGO}.version": ARGO_VERSION},
    vendor=_repair_argo,
    manifests=(_ARGO, "manifests/base/crds/full"),
)
TEKTON = Engine(
    "tekton",
    {name: f"{_TEKTON}/cmd/{name}" for name in ("controller", "webhook", "entrypoint", "nop", "workingdirinit")},
    manifests=(_TEKTON, "config"),
)
KANIKO = Engine("kaniko", {"executor": "github.com/GoogleContainerTools/kaniko/cmd/executor"})
PAUSE = Engine("pause", {"pause": "."})
ENGINES = (KUBERNETES, ARGO, TEKTON, KANIKO, PAUSE)
"""What every cluster has."""
TRIGGERS = Engine(
    "triggers",
    {name: f"{_TRIGGERS}/cmd/{name}" for name in ("controller", "eventlistenersink", "interceptors", "webhook")},
    manifests=(_TRIGGERS, "config"),
)
"""Tekton Triggers: only where a test asks for it."""
ARGO_EVENTS = Engine(
    "argo-events",
    {"argo-events": f"{_ARGO_EVENTS}/cmd", "nats-server": "github.com/nats-io/nats-server/v2"},
    manifests=(_ARGO_EVENTS, "manifests"),
)
"""Argo Events, and what carries its events: the same."""
PIPELINES_AS_CODE = Engine("pipelines-as-code", {"starts": "."})
"""A program of ours around its reader and matcher: what a call starts."""


def build(say: Callable[[str], None], engines: Sequence[Engine] = ENGINES) -> None:
    """Build what is not there, one program after the other: Go uses all processors for one."""
    for engine in engines:
        if engine.folder.exists():
            continue
        unfinished = engine.folder.with_name(f".{engine.folder.name}.{os.getpid()}")
        unfinished.mkdir(parents=True)
        with tempfile.TemporaryDirectory(prefix="dtkpipe-go-") as sources:
            shutil.copytree(HERE / engine.name, sources, dirs_exist_ok=True)
            _build(engine, Path(sources), unfinished, say)
        unfinished.rename(engine.folder)


def _build(engine: Engine, sources: Path, target: Path, say: Callable[[str], None]) -> None:
    mode = "readonly"
    if engine.vendor:
        _go(["mod", "vendor", "-e"], sources)
        engine.vendor(sources / "vendor")
        mode = "vendor"
    stamps = " ".join(f"-X {name}={value}" for name, value in engine.stamps.items())
    for name, package in engine.programs.items():
        started = time.monotonic()
        _go(
            ["build", f"-mod={mode}", "-trimpath", "-ldflags", f"-s -w {stamps}", "-o", str(target / name), package],
            sources,
        )
        say(f"built {name} in {time.monotonic() - started:.0f} s")
    module, folder = engine.manifests
    if module:
        where = _go(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module], sources).strip()
        for path in sorted((Path(where) / folder).rglob("*.yaml")):
            kept = target / "manifests" / path.relative_to(Path(where) / folder)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(path.read_bytes())


def _go(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    done = subprocess.run([go(), *arguments], cwd=folder, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"go {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout
