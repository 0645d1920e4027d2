"""apt: packages out of Debian's archive, for any suite and architecture, without touching the machine's own apt.

Each suite and architecture has a private apt root in the cache. Where the archive is, its proxies, credentials and
keys are the machine's own settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import DtkpipeError, NotFoundError, UnreachableError, UnsupportedError
from dtkpipe.tools import process
from dtkpipe.tools.lock import locked
from dtkpipe.tools.process import ProcessFailedError
from dtkpipe.values.arch import Arch

INDEX_AGE = 24 * 3600
"""Seconds until an index is fetched again."""
_RETRY_AGE = 600
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def _silent(_line: str) -> None:
    return


@dataclass(frozen=True)
class Package:
    """One version of one package. `depends` are the names its Depends field lists, first alternatives only."""

    name: str
    version: str
    arch: str
    sha256: str
    size: int
    """Of the .deb, in bytes."""
    depends: tuple[str, ...]

    @property
    def pinned(self) -> str:
        """The package as apt's command line takes it: `name=version`."""
        return f"{self.name}={self.version}"

    @property
    def file_name(self) -> str:
        """The name `apt-get download` gives the file."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.arch}.deb"


class Archive:
    """One suite of the archive (`bookworm`) for one architecture."""

    def __init__(
        self,
        suite: str,
        arch: Arch,
        cache: Path,
        *,
        pockets: Sequence[str] = ("updates", "security"),
        say: Callable[[str], None] = _silent,
        max_age: float = INDEX_AGE,
    ) -> None:
        """Make the archive's handle; nothing is fetched before the first question.

        `pockets` are the suites beside the main one (`bookworm-updates`, `bookworm-security`). `max_age` (seconds)
        of 0 fetches the index anew. `say` hears when an old index has to do.
        """
        self.suite = suite
        self.arch = arch
        self._pockets = tuple(pockets)
        self._say = say
        self._max_age = max_age
        self._debs = cache / "packages"
        self._root = self._debs / "apt" / f"{suite}-{arch.debian}"
        self._ready = False

    def show(self, name: str) -> tuple[Package, ...]:
        """Return every version of a package, newest first; none if there is no such package."""
        stanzas = self._ask(["apt-cache", "show", "--", name], ok=(0, 100))
        return tuple(_package(stanza) for stanza in stanzas.split("\n\n") if stanza.strip())

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a package, newest first."""
        return tuple(package.version for package in self.show(name))

    def newest(self, name: str) -> Package:
        """Return the newest version of a package. Raises NotFoundError."""
        found = self.show(name)
        if not found:
            raise NotFoundError(f"{self.suite} has no package `{name}` for {self.arch}")
        return found[0]

    def search(self, regex: str) -> tuple[str, ...]:
        """Return the names of the packages that match a POSIX regular expression, sorted."""
        lines = self._ask(["apt-cache", "search", "--names-only", "--", regex]).splitlines()
        return tuple(sorted({line.split(" - ")[0] for line in lines}))

    def closure(self, names: Sequence[str]) -> tuple[Package, ...]:
        """Return `names` and all that they depend on (not what they recommend), by name. Raises NotFoundError."""
        try:
            plan = self._ask(["apt-get", "install", "--simulate", "--no-install-recommends", "--", *names])
        except ProcessFailedError as error:
            raise NotFoundError(f"{self.suite} cannot give {', '.join(names)}", *error.details) from error
        wanted = dict(re.findall(r"^Inst (\S+) \((\S+) ", plan, re.MULTILINE))
        wanted = {name.split(":")[0]: version for name, version in wanted.items()}
        known = self._ask(["apt-cache", "show", "--", *(f"{name}={wanted[name]}" for name in sorted(wanted))])
        return tuple(_package(stanza) for stanza in known.split("\n\n") if stanza.strip())

    def fetch(self, names: Sequence[str | Package]) -> list[Path]:
        """Return the .deb of each package, in that order; downloads and checks what is not there.

        A name means its newest version. Raises NotFoundError, UnreachableError.
        """
        packages = [self.newest(name) if isinstance(name, str) else name for name in names]
        self._fresh()
        with locked(self._debs / "fetch.lock"):
            for left in self._debs.glob(".fetch-*"):
                shutil.rmtree(left, ignore_errors=True)
            if missing := [package for package in packages if not self._is_here(package)]:
                with tempfile.TemporaryDirectory(dir=self._debs, prefix=".fetch-") as folder:
                    self._apt(["apt-get", "download", "-qq", "--", *(one.pinned for one in missing)], cwd=Path(folder))
                    for package in missing:
                        (Path(folder) / package.file_name).replace(self._debs / package.file_name)
        return [self._debs / package.file_name for package in packages]

    @property
    def index_time(self) -> float:
        """When the index was fetched, in seconds since the epoch; 0 if never."""
        stamp = self._root / "updated"
        return stamp.stat().st_mtime if stamp.exists() else 0

    def _is_here(self, package: Package) -> bool:
        path = self._debs / package.file_name
        if not path.is_file() or path.stat().st_size != package.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256

    def _ask(self, argv: Sequence[str], ok: Sequence[int] = (0,)) -> str:
        """Ask apt, or give the answer it gave before to the same question from the same index."""
        self._fresh()
        answers = self._root / "answers" / f"{int(self.index_time)}"
        answer = answers / hashlib.sha256(json.dumps(list(argv)).encode()).hexdigest()[:32]
        with contextlib.suppress(FileNotFoundError):
            return answer.read_text()
        output = self._apt(argv, ok=ok)
        answers.mkdir(parents=True, exist_ok=True)
        for old in answers.parent.iterdir():
            if old != answers:
                shutil.rmtree(old, ignore_errors=True)
        partial = answer.with_suffix(f".{os.getpid()}")
        partial.write_text(output)
        partial.replace(answer)
        return output

    def _apt(self, argv: Sequence[str], *, ok: Sequence[int] = (0,), cwd: Path | None = None) -> str:
        env = {"APT_CONFIG": str(self._root / "apt.conf"), "LC_ALL": "C"}
        try:
            return process.run(argv, env=env, ok=ok, cwd=cwd).output
        except ProcessFailedError as error:
            if "No space left on device" in error.finished.errors:
                raise UnsupportedError(f"no space left on this machine for {self._debs}", *error.details[:2]) from error
            if "Failed to fetch" in error.finished.errors or "Unable to fetch" in error.finished.errors:
                raise self._unreachable(error) from error
            raise

    def _fresh(self) -> None:
        if self._ready:
            return
        if time.time() - self.index_time > self._max_age:
            self._root.mkdir(parents=True, exist_ok=True)
            with locked(self._root / "lock"):
                if time.time() - self.index_time > self._max_age:
                    self._update()
        self._ready = True

    def _update(self) -> None:
        tried = self._root / "tried"
        if self.index_time and tried.exists() and time.time() - tried.stat().st_mtime < min(_RETRY_AGE, self._max_age):
            return
        self._configure()
        try:
            self._apt(["apt-get", "update", "-qq"])
        except (ProcessFailedError, UnreachableError) as error:
            if not self.index_time:
                raise self._unreachable(error) from error
            tried.touch()
            day = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.index_time))
            self._say(f"the package index of {self.suite} could not be fetched; the one of {day} is used")
            return
        (self._root / "updated").touch()

    def _unreachable(self, error: DtkpipeError) -> UnreachableError:
        """Say that the archive cannot be used now: it does not answer, or it is being changed under our hands."""
        said = [line.strip() for line in error.details if line.strip().startswith(("E:", "Hash"))]
        return UnreachableError(
            f"packages of {self.suite} for {self.arch} could not be fetched", *(said or error.details)[:2],
            hint="try again; apt asks where this machine, or the runner image, has its archive:"
            " docs/how-to/mirrors-and-disconnected.md",
        )  # fmt: skip

    def _configure(self) -> None:
        """Write apt.conf and sources.list out of the machine's own settings."""
        root = self._root
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "status").touch()
        signed = f" signed-by={_KEYRING}" if _KEYRING.exists() else ""
        sites = {self.suite: archive_site(security=False)}
        sites |= {f"{self.suite}-{one}": archive_site(security=one == "security") for one in self._pockets}
        if not sites[self.suite]:
            raise UnsupportedError(
                "this machine's apt does not know where Debian's archive is",
                "looked in: /etc/apt/sources.list, /etc/apt/sources.list.d",
                hint="use a Debian machine or container, or give a toolkit image: --toolkit IMAGE",
            )
        if lacking := [suite for suite, site in sites.items() if not site]:
            self._say(f"this machine's apt does not know {', '.join(lacking)}: those packages are left out")
        entry = f"deb [arch={self.arch.debian}{signed}]"
        lines = [f"{entry} {site} {suite} main\n" for suite, site in sites.items() if site]
        (root / "sources.list").write_text("".join(lines))
        machine = process.run(["apt-config", "dump"]).output.splitlines()
        ours = {
            "Dir::State": root / "state", "Dir::State::status": root / "status", "Dir::Cache": root / "cache",
            "Dir::Etc::sourcelist": root / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::main": "/dev/null", "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architecture": self.arch.debian, "APT::Sandbox::User": "root", "APT::Update::Error-Mode": "any",
            "Acquire::GzipIndexes": "false", "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        }  # fmt: skip
        kept = [line for line in machine if re.match(r"Acquire::(?!IndexTargets|Languages|GzipIndexes)\S+ ", line)]
        conf = [*kept, f'APT::Architectures {{ "{self.arch.debian}"; }};']
        conf += [f'{name} "{value}";' for name, value in ours.items()]
        (root / "apt.conf").write_text("\n".join(conf) + "\n")


_MAIN = re.compile(r"'(\S+)/dists/([^/]+)/main/binary-[a-z0-9]+/Packages\S*'")
_CODENAME = r"(bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)"


def archive_site(security: bool) -> str:
    """Return where the machine's own apt fetches Debian (or its security updates) from; "" if it does not say.

    Third parties name their suites like Debian's: among several sites the one that is laid out like Debian's counts.
    """
    known = _MAIN.findall(process.run(["apt-get", "update", "--print-uris"]).output)
    suffix = "-security" if security else ""
    sites = [site for site, suite in known if re.fullmatch(_CODENAME + suffix, suite)]
    return max(sites, key=lambda site: site.rstrip("/").endswith(f"debian{suffix}"), default="")


def unpack(deb: Path, folder: Path) -> None:
    """Unpack the files of a package into `folder`, which appears only when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as partial:
        process.run(["dpkg-deb", "--extract", deb, Path(partial) / "files"])
        shutil.rmtree(folder, ignore_errors=True)
        (Path(partial) / "files").rename(folder)


def _package(stanza: str) -> Package:
    fields = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", stanza, re.MULTILINE))
    listed = [fields.get("Pre-Depends", ""), fields.get("Depends", "")]
    names = [part.split("|")[0].split("(")[0].strip().split(":")[0] for text in listed for part in text.split(",")]
    return Package(
        name=fields["Package"],
        version=fields["Version"],
        arch=fields["Architecture"],
        sha256=fields["SHA256"],
        size=int(fields["Size"]),
        depends=tuple(name for name in names if name),
    )
