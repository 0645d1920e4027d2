"""What this machine needs for which job: the one table of system packages, and checks that try the thing itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import DtkpipeError, UnsupportedError, UsageError
from dtkpipe.tools import process, qemu
from dtkpipe.tools.process import ToolMissingError
from dtkpipe.values.arch import Arch

JOBS = {
    "build": "compile modules and put them into images",
    "toolkits": "make toolkits from a distribution's kernel packages",
    "verify": "prove modules on x86_64 kernels",
    "verify-arm": "prove modules on aarch64 kernels",
    "secure-boot": "prove signed modules under UEFI Secure Boot",
    "registry": "keep images of local runs in a registry on loopback",
    "tests": "run dtkpipe's own tests",
    "e2e": "run dtkpipe's own tests on a cluster that they make",
}
PUSH_TO = "push-to"
ELSEWHERE = {
    "cluster": "run pipelines on a cluster",
    PUSH_TO: "push images to the repository of the settings, from here",
}
"""Jobs that are not this machine's own: looked at when they are named, and not among `all`."""
DEFAULT_JOBS = tuple(job for job in JOBS if job not in ("tests", "e2e"))
_DISK = 10 * 10**9
_APT = (
    "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120",
)  # fmt: skip


@dataclass(frozen=True)
class Need:
    """A program (found in PATH) or a file (an absolute path, `*` allowed), its Debian package, the jobs it is for."""

    name: str
    package: str
    jobs: tuple[str, ...]
    version: tuple[str, ...] = ()
    """Arguments that make the program print its version."""


NEEDS = (
    Need(
        "setpriv",
        "util-linux",
        ("build", "toolkits", "verify", "verify-arm", "secure-boot", "registry"),
        ("--version",),
    ),
    Need("git", "git", ("build", "e2e"), ("--version",)),
    Need("buildah", "buildah", ("build",), ("--version",)),
    Need("/usr/lib/podman/netavark", "netavark", ("build",)),  # newer buildahs do not start without it
    Need("newuidmap", "uidmap", ("build", "tests")),
    Need("apt-get", "apt", ("build", "toolkits"), ("--version",)),
    Need("dpkg-deb", "dpkg", ("build", "toolkits"), ("--version",)),
    Need("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring", ("build", "toolkits", "e2e")),
    Need("depmod", "kmod", ("build", "verify", "verify-arm", "secure-boot"), ("--version",)),
    Need("/bin/busybox", "busybox-static", ("verify", "e2e")),
    Need("qemu-system-x86_64", "qemu-system-x86", ("verify", "secure-boot", "e2e"), ("--version",)),
    Need("qemu-system-aarch64", "qemu-system-arm", ("verify-arm",), ("--version",)),
    Need("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf", ("secure-boot",)),
    Need("/usr/share/AAVMF/AAVMF_VARS.ms.fd", "qemu-efi-aarch64", ("verify-arm",)),
    Need("openssl", "openssl", ("secure-boot", "tests"), ("version",)),
    Need("docker-registry", "docker-registry", ("registry", "tests", "e2e"), ("--version",)),
    Need("skopeo", "skopeo", ("registry", "tests"), ("--version",)),
    Need("gcc", "gcc", ("tests",), ("--version",)),
    Need("make", "make", ("tests",), ("--version",)),
    Need("cpio", "cpio", ("tests",), ("--version",)),
    Need("/usr/lib/*/libelf.so.1", "libelf1", ("tests",)),
    Need("containerd", "containerd", ("e2e",), ("--version",)),
    Need("runc", "runc", ("e2e",), ("--version",)),
    Need("/usr/lib/cni/bridge", "containernetworking-plugins", ("e2e",)),
    Need("iptables", "iptables", ("e2e",), ("--version",)),
    Need("conntrack", "conntrack", ("e2e",), ("--version",)),
    Need("ip", "iproute2", ("e2e",), ("-V",)),
    Need("sysctl", "procps", ("e2e",), ("--version",)),
    Need("nsenter", "util-linux", ("e2e",), ("--version",)),
    Need("tini", "tini", ("e2e",), ("--version",)),
    Need("mmdebstrap", "mmdebstrap", ("e2e",), ("--version",)),
    Need("mkfs.ext4", "e2fsprogs", ("e2e",)),
    Need("qemu-img", "qemu-utils", ("e2e",), ("--version",)),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked for. `found` says what was seen, `fix` is a command, or empty."""

    name: str
    ok: bool
    found: str
    jobs: tuple[str, ...]
    package: str = ""
    fix: str = ""


def parse_jobs(text: str) -> tuple[str, ...]:
    """Parse `build,verify`, or `all`. Raises UsageError."""
    if text == "all":
        return tuple(JOBS)
    chosen = tuple(word.strip() for word in text.split(",") if word.strip()) or DEFAULT_JOBS
    if unknown := [job for job in chosen if job not in JOBS and job not in ELSEWHERE]:
        import difflib

        known = [*JOBS, *ELSEWHERE]
        near = difflib.get_close_matches(unknown[0], known, n=1)
        raise UsageError(
            f"there is no job `{unknown[0]}`", f"jobs: {', '.join(known)}, or all",
            hint=f"did you mean `{near[0]}`?" if near else "",
        )  # fmt: skip
    return chosen


def examine(jobs: Sequence[str], cache: Path) -> list[Finding]:
    """Look for everything that `jobs` need, and try what can be tried."""
    wanted = [need for need in NEEDS if set(need.jobs) & set(jobs)]
    # Root builds without subordinate ids; the tests build as another user as well.
    spared = "newuidmap" if os.getuid() == 0 and "tests" not in jobs else ""
    found = [_look(need) for need in wanted if need.name != spared]
    missing = {finding.package for finding in found if not finding.ok}
    for job, name, check in _CHECKS:
        if job in jobs and not missing & {need.package for need in NEEDS if job in need.jobs}:
            found.append(_try(name, job, check, cache))
    return found


def fix(findings: Sequence[Finding], say: Callable[[str], None]) -> None:
    """Install the packages that are missing. Raises UnsupportedError where that is not possible from here."""
    packages = sorted({finding.package for finding in findings if not finding.ok and finding.package})
    if not packages:
        return
    command = f"apt-get install {' '.join(packages)}"
    if not shutil.which("apt-get"):
        raise UnsupportedError(
            "packages can be installed on Debian and its derivatives only", f"missing: {', '.join(packages)}"
        )
    prefix: tuple[str, ...] = ()
    if os.getuid() != 0:
        if not shutil.which("sudo") or process.run(["sudo", "-n", "true"], ok=None).returncode != 0:
            raise UnsupportedError(
                "packages can be installed by root only", "sudo is not there, or asks for a password",
                hint=f"run as root: {command}",
            )  # fmt: skip
        prefix = ("sudo", "-n")
    say(f"installing {' '.join(packages)}")
    try:
        process.run([*prefix, *_APT, "update"], timeout=600)
        process.run([*prefix, *_APT, "install", "--yes", "--no-install-recommends", *packages], timeout=3600)
    except process.ProcessFailedError as error:
        raise UnsupportedError("apt-get could not install what is missing", *error.details, hint=command) from error
    if "docker-registry" in packages and Path("/run/systemd/system").is_dir():
        say("the service docker-registry is turned off again: dtkpipe starts a registry of its own when it needs one")
        process.run([*prefix, "systemctl", "disable", "--now", "docker-registry"], ok=None, timeout=60)


def _look(need: Need) -> Finding:
    install = f"apt-get install {need.package}"
    if need.name.startswith("/"):
        there = next(map(str, Path("/").glob(need.name[1:])), "")
        return Finding(
            name=Path(need.name).name, ok=bool(there), found=there or "missing", jobs=need.jobs, package=need.package,
            fix="" if there else install,
        )  # fmt: skip
    try:
        where = process.which(need.name)
    except process.ToolMissingError:
        return Finding(name=need.name, ok=False, found="missing", jobs=need.jobs, package=need.package, fix=install)
    return Finding(
        name=need.name, ok=True, found=" ".join(filter(None, (_version(need), where))), jobs=need.jobs,
        package=need.package,
    )  # fmt: skip


def _version(need: Need) -> str:
    import re

    if not need.version:
        return ""
    try:
        said = process.run([need.name, *need.version], ok=None, timeout=30)
    except DtkpipeError:
        return ""
    number = re.search(r"\d+(?:\.\d+)+\S*", said.output or said.errors)
    return number[0].rstrip(",)") if number else ""


def _try(name: str, job: str, check: Callable[[Path], str], cache: Path) -> Finding:
    try:
        return Finding(name=name, ok=True, found=check(cache), jobs=(job,))
    except DtkpipeError as error:
        said = next((detail for detail in reversed(error.details) if detail), "")
        return Finding(
            name=name, ok=False, found=f"{error.what}: {said}" if said else error.what, jobs=(job,), fix=error.hint
        )


def _buildah_works(_cache: Path) -> str:
    """Build and keep the smallest image, without network, as a build does."""
    from dtkpipe.tools.buildah import Buildah, may_mount
    from dtkpipe.values.access import RegistryAccess

    user = os.environ.get("USER") or str(os.getuid())
    if os.getuid() != 0 and not _has_ids(user):
        raise UnsupportedError(
            f"user {user} has no subordinate ids, which builds without root need",
            "looked in: /etc/subuid, /etc/subgid",
            hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
        )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="dtkpipe-doctor-") as folder:
        context = Path(folder) / "context"
        context.mkdir()
        (context / "file").write_text("")
        (context / "Containerfile").write_text("FROM scratch\nCOPY file /file\n")
        buildah = Buildah(Path(folder) / "storage", RegistryAccess())
        buildah.remove(buildah.build(context, context / "Containerfile"))
        return f"works, {'as root' if may_mount() else 'in a user namespace'}, {buildah.driver} storage"


def _has_ids(user: str) -> bool:
    wanted = (f"{user}:", f"{os.getuid()}:")
    files = (Path("/etc/subuid"), Path("/etc/subgid"))
    return all(
        file.exists() and any(line.startswith(wanted) for line in file.read_text().splitlines()) for file in files
    )


def _archive_is_known(_cache: Path) -> str:
    """See that apt has Debian's archive to take kernels from."""
    from dtkpipe.tools.apt import archive_site

    if not archive_site(security=False):
        raise UnsupportedError("apt has no archive to take kernels from", hint="add one to /etc/apt/sources.list")
    return "known" if archive_site(security=True) else "known, without security updates"


def _space(cache: Path) -> str:
    place = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < _DISK:
        raise UnsupportedError(
            f"{free / 1e9:.1f} GB are free where the cache is, toolkits and builds want {_DISK / 1e9:.0f}", str(place),
            hint="free some, or set DTKPIPE_CACHE to another place",
        )  # fmt: skip
    return f"{free / 1e9:.0f} GB free for {cache}"


def _kvm(_cache: Path) -> str:
    """KVM is faster, and never needed."""
    try:
        runs = qemu.accelerated(Arch.host())
    except ToolMissingError:
        runs = False
    return "runs machines" if runs else "runs no machines here: kernels are emulated, in seconds"


def _namespaces(_cache: Path) -> str:
    """Make the namespaces that the tests' cluster lives in."""
    try:
        process.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], timeout=30)
    except DtkpipeError as error:
        raise UnsupportedError(
            "namespaces of mounts, processes and network cannot be made", *error.details,
            hint="run as root, on a machine or in a privileged container",
        ) from error  # fmt: skip
    return "of mounts, processes and network can be made"


def _pushes(_cache: Path) -> str:
    """See whether images could be pushed, without pushing."""
    from dtkpipe.clients.registry import Registry
    from dtkpipe.settings import load
    from dtkpipe.values.access import access_from
    from dtkpipe.values.image import ImageRef

    settings = {name: one.value for name, one in load(os.environ, Path.cwd()).items()}
    if not settings[PUSH_TO]:
        raise UnsupportedError("no repository is named", "looked for: the setting push-to", hint="DTKPIPE_PUSH_TO=REPO")
    repo = ImageRef.parse(str(settings[PUSH_TO]))
    ca = Path(str(settings["registry-ca"])).read_text() if settings["registry-ca"] else ""
    Registry(access_from(tuple(settings["insecure-registries"]), ca, os.environ)).try_push(repo)
    return f"takes images for {repo}"


_CHECKS: tuple[tuple[str, str, Callable[[Path], str]], ...] = (
    ("build", "building", _buildah_works),
    ("toolkits", "archive", _archive_is_known),
    ("build", "disk", _space),
    ("verify", "kvm", _kvm),
    (PUSH_TO, "registry", _pushes),
    ("e2e", "namespaces", _namespaces),
)


def document(findings: Sequence[Finding]) -> list[Mapping[str, object]]:
    """Return the findings as plain data."""
    return [
        {
            "name": one.name,
            "ok": one.ok,
            "found": one.found,
            "for": list(one.jobs),
            "package": one.package,
            "fix": one.fix,
        }
        for one in findings
    ]


def missing(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Give what is not as it should be."""
    return (finding for finding in findings if not finding.ok)
