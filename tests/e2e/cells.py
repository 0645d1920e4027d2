"""A matrix of cells that build nothing, in a namespace with both engines: each cell is a pod that publishes its key.

How a cell behaves is in its module's name: `bad` fails like a compiler, `slow` takes a while, all others do well.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.app.clusters import ENGINES
from dtkpipe.values.image import ImageRef
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster
from tests.fixtures.cli import Cli, Said
from tests.fixtures.matrix import row, write_lock
from tests.fixtures.registry import LoopbackRegistry

_PROGRAM = """\
import json, sys, time
from pathlib import Path
from dtkpipe.clients.registry import Registry
from dtkpipe.source.fetch import resolve_commit
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.key import KeyTag, content_key
from dtkpipe.values.module import ModuleSpec
from dtkpipe.values.source import Source

file, *words = sys.argv[1:]
given = dict(word.removeprefix("--").split("=", 1) for word in words)
spec, toolkit = ModuleSpec.from_text(given["spec"]), ImageRef.parse(given["toolkit"]).digest
open(file, "w").write(toolkit)
print("a line of the log", flush=True)
if spec.name.startswith("slow"):
    time.sleep(20)
if spec.name.startswith("bad"):
    sys.exit(print("error: the module cannot be built\\n  bad.c:7:1: error: 'gone' undeclared", flush=True) or 10)
registry = Registry(RegistryAccess(insecure=tuple(json.loads(given["insecure-registries"]))))
commit = given["ref"] or resolve_commit(Source.parse(given["repo"], here=Path()))
key = content_key(module=spec.name, commit=commit, kernel=Kernel(given["kernel"]), arch=Arch.parse(given["arch"]),
                  toolkit=toolkit, spec=spec, path=given["path"])
repo = ImageRef.parse(given["push-to"])
registry.push_artifact(repo, "application/vnd.example", {"a": b"a"}, tag=str(KeyTag(key, "unsigned")))
"""
_PIPELINE = """\
from dtkpipe.model import InputRef, Joined, Param, ParamRef, Pipeline, Resources, ResultPath, container

NAMES = ("repo", "ref", "path", "spec", "release", "kernel", "arch", "variant", "stream", "push-to", "staging",
         "toolkit-repo", "toolkit", "insecure-registries")
resolve = container(
    "resolve", image={image!r},
    argv=("/opt/dtkpipe/bin/python", "-c", {program!r}, ResultPath("TOOLKIT_DIGEST"),
          *(Joined((f"--{{name}}=", InputRef(name))) for name in NAMES)),
    inputs={{name: ParamRef(name) for name in NAMES}},
    params=[Param(name=name, description=name, default="") for name in NAMES],
    results={{"TOOLKIT_DIGEST": "toolkit"}},
    resources=Resources(cpu="20m", memory="48Mi", memory_limit="256Mi", scratch={scratch!r}),
)
cell = Pipeline({name!r}, "builds nothing", tasks=(resolve,))
"""


@dataclass(frozen=True)
class Cells:
    """A folder with modules and a lock of releases, and a namespace with the pipeline `cell`."""

    cluster: Cluster
    namespace: str
    registry: LoopbackRegistry
    git: GitServer
    cli: Cli

    def modules(self, case: str, *names: str) -> None:
        """Write module specs into `<case>/`; their sources are in one git repository."""
        folder = self.cli.here / case
        (self.cli.here / "source").mkdir(exist_ok=True)
        (self.cli.here / "source" / "Makefile").write_text("obj-m := a.o\n")
        repo = f"github.com/{self.namespace}/source"
        if not (self.git.folder / repo).exists():
            self.git.serve(repo, self.cli.here / "source")
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            spec = f"apiVersion: dtkpipe/v1\nname: {name}\nsource: {{repo: 'https://{repo}'}}\n"
            (folder / f"{name}.yaml").write_text(f"{spec}build: {{recipe: kbuild}}\n")

    def commit(self) -> None:
        """Push a commit to the repository of the sources."""
        self.git.serve(f"github.com/{self.namespace}/source", self.cli.here / "source")

    def pipeline(self, engine: str, name: str, runner: ImageRef, scratch: str = "64Mi") -> None:
        """Write the pipeline of a cell to `<name>.py`, and install it."""
        text = _PIPELINE.format(name=name, image=str(runner), program=_PROGRAM, scratch=scratch)
        (self.cli.here / f"{name}.py").write_text(text)
        compiled = self.cli("compile", "--engine", engine, "--pipeline", f"{name}.py")
        assert compiled.code == 0, compiled.err
        self.cluster.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=compiled.out)

    def kernels(self, number: int) -> None:
        """Write a lock of so many releases, each with a kernel of its own."""
        write_lock(self.cli.here / "lock", [row(f"4.16.{one}", f"5.14.0-427.{one}.1.el9_4") for one in range(number)])

    def place(self, case: str) -> ImageRef:
        return self.registry.repo(f"{self.namespace}/{case}")

    def matrix(self, case: str) -> tuple[str, ...]:
        """The arguments that say which matrix is meant."""
        return (
            "--modules", f"{case}/*.yaml", "--releases", "4.16", "--arch", "x86_64", "--lock", "lock", "--push-to",
            str(self.place(case)), "--insecure-registry", self.registry.host,
        )  # fmt: skip

    def words(self, engine: str, case: str, *more: str) -> tuple[str, ...]:
        own = ("--engine", engine, "-n", self.namespace, "--pipeline", "cell.py", "-o", "json")
        return ("matrix", "submit", *self.matrix(case), *own, *more)

    def submit(self, engine: str, case: str, *more: str, timeout: float = 900) -> Said:
        said = self.cli(*self.words(engine, case, *more), env=self.environ, timeout=timeout)
        assert "Traceback" not in said.err, said.err
        return said

    def ask(self, *command: str, after: Sequence[str] = ()) -> Said:
        """Run a command about the namespace; `after` is what goes behind `--`."""
        behind = ("--", *after) if after else ()
        said = self.cli(*command, "-n", self.namespace, *behind, env=self.environ)
        assert "Traceback" not in said.err, said.err
        return said

    def start(self, engine: str, case: str, *more: str) -> subprocess.Popen[str]:
        argv = ["env", "--default-signal=INT", *self.cli.argv(*self.words(engine, case, *more))]
        return subprocess.Popen(
            argv, cwd=self.cli.here, env=self.cli.environ(self.environ), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    @property
    def environ(self) -> dict[str, str]:
        return {**self.cluster.environ, **self.git.environ}

    def runs(self, engine: str, case: str) -> list[str]:
        """The names of the runs of a case."""
        items = self.cluster.kubectl.json("get", ENGINES[engine].runs.words, "-n", self.namespace)["items"]
        return [str(one["metadata"]["name"]) for one in items if f"/{case}/" in str(one["spec"])]


@contextlib.contextmanager
def cells(
    cluster: Cluster, registry: LoopbackRegistry, git: GitServer, runner: ImageRef, folder: Path,
    engines: Sequence[str] = tuple(ENGINES),
) -> Iterator[Cells]:  # fmt: skip
    """Give a fresh namespace with everything installed; nothing of it is left at the end of the block."""
    name = f"t-{secrets.token_hex(4)}"
    (folder / "here").mkdir()
    made = Cells(cluster, name, registry, git, Cli(folder / "here", folder / "home"))
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=baseline")
    own = ("-n", name, "--target-namespace", f"{name}-drivers")
    try:
        for engine in engines:
            said = made.cli("install", "--engine", engine, *own, "--runner-image", str(runner), env=cluster.environ)
            assert said.code == 0, said.err
            made.pipeline(engine, "cell", runner)
        yield made
    finally:
        for engine in engines:
            made.cli("uninstall", "--engine", engine, *own, env=cluster.environ)
        cluster.kubectl("delete", "namespace", name, f"{name}-drivers", "--wait=false", "--ignore-not-found")
