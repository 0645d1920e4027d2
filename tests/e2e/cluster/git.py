"""A git server on this machine that pods reach under the names of the real world."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster.target import Cluster
from tests.fixtures.registry import free_port

_AUTHOR = {
    "GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@example.org",
}  # fmt: skip


@dataclass(frozen=True)
class GitServer:
    """Serves repositories below `folder`."""

    cluster: Cluster
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"git://{self.cluster.address}:{self.port}/"

    @property
    def config(self) -> str:
        """The git configuration with which every https:// address is one of this server."""
        return f'[url "{self.url}"]\n\tinsteadOf = https://\n'

    @property
    def environ(self) -> dict[str, str]:
        """The same, for a program on this machine."""
        key = f"url.{self.url}.insteadOf"
        return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": "https://"}

    def serve(self, name: str, source: Path) -> str:
        """Serve a folder's files as `https://<name>`; returns the commit. Another content is one more commit."""
        bare = self.folder / name
        if not bare.exists():
            self._git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
            for key in ("uploadpack.allowAnySHA1InWant", "uploadpack.allowFilter"):
                self._git("-C", str(bare), "config", key, "true")
        tree = ("--git-dir", str(bare), "--work-tree", str(source))
        self._git(*tree, "add", "--all", "--force")
        self._git(*tree, "commit", "--quiet", "--allow-empty", "--message=as the test has it")
        return self._git("-C", str(bare), "rev-parse", "HEAD").strip()

    def secret(self, namespace: str) -> None:
        """Make Secret `dtkpipe-git`, with which builds in a namespace fetch from here."""
        self.cluster.kubectl(
            "-n", namespace, "create", "secret", "generic", "dtkpipe-git", f"--from-literal=config={self.config}"
        )

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True,
            env={**os.environ, **_AUTHOR, "GIT_CONFIG_GLOBAL": "/dev/null"},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def running(cluster: Cluster, folder: Path) -> Iterator[GitServer]:
    """Run the server until the end of the block."""
    server = GitServer(cluster, folder, free_port())
    folder.mkdir(parents=True, exist_ok=True)
    exec_path = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    daemon = subprocess.Popen([
        Path(exec_path) / "git-daemon", "--export-all", "--reuseaddr", f"--base-path={folder}",
        f"--listen={cluster.address}", f"--port={server.port}", folder,
    ])  # fmt: skip
    try:
        probe = ["git", "ls-remote", f"{server.url}probe"]
        server.serve("probe", _empty(folder))

        def answers() -> bool:
            assert daemon.poll() is None, "git daemon ended"
            return subprocess.run(probe, capture_output=True).returncode == 0

        cluster.wait("the git server answers", answers, 20)
        yield server
    finally:
        daemon.terminate()
        daemon.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path) -> Path:
    empty = folder / "empty"
    empty.mkdir()
    return empty
