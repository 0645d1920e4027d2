"""How registries may be spoken to: which hosts without TLS, which authorities, which credentials. Holds no secret."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.errors import InvalidError
from dtkpipe.values.mirrors import Mirrors, parse_mirrors

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")


@dataclass(frozen=True, kw_only=True)
class RegistryAccess:
    """What `Registry` and the tools that talk to registries need to know besides the image's name."""

    insecure: tuple[str, ...] = ()
    """Hosts (`host:port`, as in image references) that may be spoken to without TLS, or with any certificate."""
    ca: str = ""
    """Certificates (PEM) to trust besides the system's."""
    auth_file: Path | None = None
    """The one file of credentials to use (REGISTRY_AUTH_FILE). It may be missing: then nobody has credentials."""
    default_auth_files: tuple[Path, ...] = ()
    """Where to look, in this order, when `auth_file` is not given."""
    certificate_folders: tuple[Path, ...] = ()
    """Where certificates for single registries are (containers-certs.d(5)): a folder for each host, first one wins."""
    mirrors: Mirrors = Mirrors()
    """Where images are read instead of, or before, the registry that their names say."""

    def is_insecure(self, registry: str) -> bool:
        """Tell whether `registry` (the host of an image reference) may be spoken to without TLS."""
        return registry in self.insecure

    def certificates(self, host: str) -> Path | None:
        """Return the folder with the certificates for a host (`host:port`), if there is one."""
        return next((folder / host for folder in self.certificate_folders if (folder / host).is_dir()), None)

    @property
    def auth_files(self) -> tuple[Path, ...]:
        """The files of credentials that exist, in the order in which they are asked."""
        asked = (self.auth_file,) if self.auth_file else self.default_auth_files
        return tuple(path for path in asked if path.is_file())


def access_from(insecure: Sequence[str], ca: str, environ: Mapping[str, str], mirrors: str = "") -> RegistryAccess:
    """Make the access from a step's `insecure_registries`, `registry_ca` and `registry_mirrors` and the environment.

    Order of the files: containers-auth.json(5), then Docker's. Raises InvalidError for a host that is none, for a CA
    that is not PEM, and for mirrors that are not valid.
    """
    for host in insecure:
        if not _HOST.fullmatch(host):
            raise InvalidError(f"`{host}` is not a registry host", "expected host or host:port, e.g. localhost:5000")
    if ca and "-----BEGIN CERTIFICATE-----" not in ca:
        raise InvalidError("the certificates for registries are not PEM", "expected -----BEGIN CERTIFICATE-----")
    own = environ.get("REGISTRY_AUTH_FILE", "")
    return RegistryAccess(
        insecure=tuple(insecure),
        ca=ca,
        auth_file=Path(own) if own else None,
        default_auth_files=tuple(_default_auth_files(environ)),
        certificate_folders=tuple(_certificate_folders(environ)),
        mirrors=parse_mirrors(mirrors) if mirrors else Mirrors(),
    )


def _certificate_folders(environ: Mapping[str, str]) -> list[Path]:
    own = [Path(environ["HOME"]) / ".config/containers/certs.d"] if environ.get("HOME") else []
    return [*own, Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d")]


def _default_auth_files(environ: Mapping[str, str]) -> list[Path]:
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    places = []
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        places.append(Path(runtime) / "containers/auth.json")
    places.append(Path(f"/run/containers/{os.getuid()}/auth.json"))
    if config := environ.get("XDG_CONFIG_HOME"):
        places.append(Path(config) / "containers/auth.json")
    elif home:
        places.append(home / ".config/containers/auth.json")
    if docker := environ.get("DOCKER_CONFIG"):
        places.append(Path(docker) / "config.json")
    elif home:
        places.append(home / ".docker/config.json")
    return places
