"""buildah: builds images and runs programs in them, as root or not, with chroot isolation.

Chroot isolation needs no container runtime and no privilege beyond a user namespace, so the same calls work on a
laptop and in an unprivileged pod. Without the right to mount, root works in a user namespace where it has it; buildah
makes one for other users itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import resource
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from dtkpipe.errors import DtkpipeError, NotAllowedError, NotFoundError, UnreachableError, UnsupportedError
from dtkpipe.tools import process, rooted
from dtkpipe.tools.process import Finished, ProcessFailedError
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.image import ImageRef

_CAP_SYS_ADMIN = 21
_ENDED = re.compile(rb"(subprocess exited with status|Error: exit status) \d+")
_IN_USE = re.compile(r"image is in use by a container")
"""What a build ends with that wants to clear away an image of which another one has a container."""
_NOT_BEGUN = re.compile(r"sealing memfd copy: Device or resource busy")
"""What buildah says that could not start itself in the container: the kernel held a page of its copy just then."""
_LINE = 8192
_REFUSED = re.compile(r"unauthorized|authentication required|denied|forbidden|\b40[13]\b", re.IGNORECASE)
_ABSENT = re.compile(r"manifest unknown|name unknown|not found|\b404\b", re.IGNORECASE)


@dataclass(frozen=True)
class Mount:
    """A folder of the host inside a container."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Buildah:
    """buildah with storage of its own. `storage` is a folder that may be shared by runs at the same time."""

    storage: Path
    access: RegistryAccess

    def build(
        self,
        context: Path,
        containerfile: Path,
        *,
        args: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        target: str = "",
        network: bool = False,
        timestamp: int = 0,
        log: Path | None = None,
        echo: IO[bytes] | None = None,
    ) -> str:
        """Build `containerfile` over `context`; return the image's id (`sha256:...`).

        The same input gives the same image: every time in it is `timestamp` (seconds since the epoch). Without
        `network` neither the instructions nor FROM reach out: pull() the base images before.
        Raises ProcessFailedError with the builder's last lines; the whole output is in `log`, and goes to `echo` as
        it comes.
        """
        with self._settings() as (registries, connection), tempfile.TemporaryDirectory() as folder:
            iid = Path(folder) / "iid"
            argv: list[str | Path] = ["build", "--isolation=chroot", "--format=oci", f"--timestamp={timestamp}"]
            argv += ["--force-rm", "--layers=false", "--identity-label=false", f"--iidfile={iid}", *_limits()]
            argv += [f"--build-arg={name}={value}" for name, value in (args or {}).items()]
            argv += [f"--label={name}={value}" for name, value in (labels or {}).items()]
            argv += [f"--target={target}"] if target else []
            argv += [*connection, "--pull=false"] if network else ["--pull=never"]
            command = [*registries, *argv, "--file", containerfile, context]
            try:
                with self._at_work():
                    self._run(command, network=network, log=log, echo=echo)
            except ProcessFailedError as error:
                if not _IN_USE.search(error.finished.output + error.finished.errors):
                    raise
                with self._at_work(alone=True):
                    self._run(command, network=network, log=log, echo=echo)
            return iid.read_text().strip()

    def pull(self, ref: ImageRef) -> str:
        """Bring an image into the storage, if it is not there; return its id. Raises what push() raises."""
        with self._settings() as (registries, connection):
            pulled = self._talk([*registries, "pull", "--policy=missing", "--quiet", *connection, str(ref)], ref)
        return "sha256:" + pulled.output.strip().splitlines()[-1].removeprefix("sha256:")

    def push(self, image_id: str, ref: ImageRef) -> str:
        """Push an image; return the digest it got there (`sha256:...`).

        Raises NotAllowedError, NotFoundError, UnreachableError, each with the registry named.
        """
        with self._settings() as (registries, connection), tempfile.TemporaryDirectory() as folder:
            digest = Path(folder) / "digest"
            argv = [*registries, "push", "--quiet", "--format=oci", f"--digestfile={digest}", *connection]
            self._talk([*argv, image_id, f"docker://{ref}"], ref)
            return digest.read_text().strip()

    def run_in(
        self,
        image: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        mounts: Sequence[Mount] = (),
        workdir: str = "",
        network: bool = True,
        log: IO[bytes],
    ) -> int:
        """Run `argv` in a container of `image` (an id or a name in the storage); return its exit code.

        What it says goes to `log`, line by line as it comes.
        """
        with self._at_work():
            return self._run_in(image, argv, env or {}, mounts, workdir, network, log)

    def _run_in(
        self, image: str, argv: Sequence[str], env: Mapping[str, str], mounts: Sequence[Mount], workdir: str,
        network: bool, log: IO[bytes],
    ) -> int:  # fmt: skip
        container = self._run(["from", "--pull=never", *_limits(), image]).output.strip()
        try:
            command = ["run", "--isolation=chroot"]
            command += [f"--env={name}={value}" for name, value in env.items()]
            for mount in mounts:
                command.append(f"--volume={mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}")
            command += [f"--workingdir={workdir}"] if workdir else []
            before = [*rooted.prefix(), *_namespaces(network), *self._global(self.driver)]
            whole = [*before, *command, container, "--", *argv]
            for again in (True, False):
                with process.start(whole, env=self._environment(), stderr=process.STDOUT) as started:
                    begun = _pass_on(started.stdout, log, again=again)
                if begun or not started.returncode:
                    break
            return started.returncode
        finally:
            self._run(["rm", container], ok=None)

    def remove(self, image_id: str) -> None:
        """Remove an image from the storage. One that is not there, or is in use, is no error."""
        self._run(["rmi", image_id], ok=None)

    @property
    def driver(self) -> str:
        """The storage driver: overlay, or vfs where overlay cannot be mounted. What a storage began with stays."""
        for known in ("overlay", "vfs"):
            if (self.storage / known).is_dir():
                return known
        self.storage.mkdir(parents=True, exist_ok=True)
        command = [*rooted.prefix(), *_namespaces(network=True), *self._global("overlay"), "info"]
        probe = process.run(command, env=self._environment(), ok=None)
        return "overlay" if probe.returncode == 0 else "vfs"

    def _environment(self) -> dict[str, str]:
        """Keep what buildah writes besides its storage in places that are ours, and in a pod on its volumes."""
        own = self.storage / "user"
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {"XDG_RUNTIME_DIR": str(own), "TMPDIR": tempfile.gettempdir()}

    def _global(self, driver: str) -> list[str | Path]:
        return ["buildah", "--root", self.storage, "--runroot", self.storage / "run", "--storage-driver", driver]

    @contextlib.contextmanager
    def _at_work(self, *, alone: bool = False) -> Iterator[None]:
        """Hold the storage while containers are in it, or `alone`, when nobody else has any in it.

        Who finds nobody else at work removes what killed ones left: an image that a container was made of cannot be
        removed, and a build ends with an error.
        """
        self.storage.mkdir(parents=True, exist_ok=True)
        with (self.storage / "at-work.lock").open("ab") as lock:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if alone else fcntl.LOCK_NB))
                if self._run(["containers", "--quiet"], ok=None).output.strip():
                    self._run(["rm", "--all"], ok=None)
            if not alone:
                fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def _run(
        self,
        argv: Sequence[str | Path],
        *,
        network: bool = True,
        log: Path | None = None,
        echo: IO[bytes] | None = None,
        ok: Sequence[int] | None = (0,),
        again: bool = True,
    ) -> Finished:
        before = [*rooted.prefix(), *_namespaces(network)]
        command = [*before, *self._global(self.driver), *argv]
        try:
            return process.run(command, env=self._environment(), log=log, echo=echo, ok=ok)
        except ProcessFailedError as error:
            if again and _NOT_BEGUN.search(error.finished.output + error.finished.errors):
                return self._run(argv, network=network, log=log, echo=echo, ok=ok, again=False)
            # It is buildah that failed, whatever stands before it.
            raise ProcessFailedError(replace(error.finished, argv=error.finished.argv[len(before) :])) from error

    def _talk(self, argv: Sequence[str | Path], ref: ImageRef) -> Finished:
        try:
            return self._run(argv)
        except ProcessFailedError as error:
            raise _about_registry(error, ref) from error

    @contextlib.contextmanager
    def _settings(self) -> Iterator[tuple[list[str | Path], list[str | Path]]]:
        """Give the flags before and after the subcommand that say how registries are spoken to."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            registries: list[str | Path] = []
            if self.access.insecure or self.access.mirrors.sets:
                (folder / "registries.conf").write_text(_registries(self.access))
                registries = ["--registries-conf", folder / "registries.conf"]
            connection: list[str | Path] = []
            if self.access.auth_file:
                auth = self.access.auth_file
                if not auth.is_file():
                    auth = folder / "auth.json"
                    auth.write_text("{}")
                connection.append(f"--authfile={auth}")
            if self.access.ca:
                (folder / "certs").mkdir()
                (folder / "certs" / "ca.crt").write_text(self.access.ca)
                connection.append(f"--cert-dir={folder / 'certs'}")
            yield registries, connection


def _pass_on(said: IO[bytes] | None, log: IO[bytes], *, again: bool) -> bool:
    """Copy what a program says; buildah's own words on how it ended, which come last, are left out.

    Tell whether the program was begun at all. That it was not is left out as well where it is tried `again`.
    """
    held, begun = b"", True
    for number, line in enumerate(iter(lambda: said.readline(_LINE) if said else b"", b"")):
        if number == 0 and _NOT_BEGUN.search(line.decode(errors="replace")):
            begun = False
            if again:
                continue
        held += line
        if not _ENDED.fullmatch(line.strip()):
            log.write(held)
            log.flush()
            held = b""
    return begun


def _namespaces(network: bool) -> list[str | Path]:
    """Return what to put before buildah, to give it the right to mount, and to take the network away.

    buildah's chroot isolation cannot do the latter. The namespace it makes for a root without that right has no
    rights either where a process may get no new ones, as in a pod; ours has the same users as the machine.
    """
    without = [] if network else ["--net"]
    if os.geteuid() != 0:
        return ["buildah", "unshare", "unshare", *without] if without else []
    if may_mount():
        return ["unshare", *without] if without else []
    return ["unshare", "--user", "--map-users=0,0,65536", "--map-groups=0,0,65536", "--mount", *without]


def _limits() -> list[str | Path]:
    """Return the flags that keep the limits that we have: newer buildahs raise two of them, which not every root may.

    buildah itself lowers its number of processes to pid_max.
    """
    files, processes = resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_NPROC)
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    soft, hard = (most if limit == resource.RLIM_INFINITY else min(limit, most) for limit in processes)
    return [f"--ulimit=nofile={files[0]}:{files[1]}", f"--ulimit=nproc={soft}:{hard}"]


def _registries(access: RegistryAccess) -> str:
    """Return the machine's own containers-registries.conf(5), drop-ins included, with our hosts and mirrors.

    buildah takes one file in place of all others, so that mirrors and short names would be lost without a merge.
    """
    merged: dict[str, Any] = {}
    files = [Path("/etc/containers/registries.conf"), *sorted(Path("/etc/containers/registries.conf.d").glob("*.conf"))]
    for path in files:
        if path.is_file():
            for key, value in tomllib.loads(path.read_text()).items():
                merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    ours = [{"location": host, "insecure": True} for host in access.insecure] + _mirrored(access)
    taken = {one.get("prefix", one.get("location")) for one in ours}
    own = [one for one in merged.get("registry", []) if one.get("prefix", one.get("location")) not in taken]
    return "".join(f"{key} = {_toml(value)}\n" for key, value in {**merged, "registry": own + ours}.items())


def _mirrored(access: RegistryAccess) -> list[dict[str, Any]]:
    """Return the mirror sets as registries.conf has them: those for digests first, as our own client asks."""
    sets = sorted(access.mirrors.sets, key=lambda one: one.tags)
    found: list[dict[str, Any]] = []
    for source in dict.fromkeys(one.source for one in sets):
        mine = [one for one in sets if one.source == source]
        mirrors = [
            {
                "location": mirror,
                "insecure": access.is_insecure(mirror.partition("/")[0]),
                "pull-from-mirror": "all" if one.tags else "digest-only",
            }
            for one in mine
            for mirror in one.mirrors
        ]
        entry: dict[str, Any] = {"prefix": source, "mirror": mirrors, "blocked": not mine[0].contact_source}
        found.append(entry if source.startswith("*") else {**entry, "location": source})
    return found


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def may_mount() -> bool:
    """Tell whether this process has CAP_SYS_ADMIN."""
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bool(effective and int(effective[1], 16) >> _CAP_SYS_ADMIN & 1)


def _about_registry(error: ProcessFailedError, ref: ImageRef) -> DtkpipeError:
    said = error.details[-1] if error.details else error.what
    if "no space left on device" in said:
        return UnsupportedError("no space left on this machine for images", said)
    if _REFUSED.search(said):
        return NotAllowedError(
            f"registry {ref.registry} refuses access to {ref.repository}",
            said,
            hint=f"buildah login {ref.registry}, or set REGISTRY_AUTH_FILE",
        )
    if _ABSENT.search(said):
        return NotFoundError(f"{ref} is not there", said)
    return UnreachableError(f"registry {ref.registry} does not answer as it should", said)
