"""Credentials for registries: files of containers and Docker, credential helpers, and what a registry asks for.

Formats: containers-auth.json(5); Docker's config.json; its credential helpers (docker/docker-credential-helpers).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtkpipe.errors import InvalidError, NotAllowedError, how_ended
from dtkpipe.tools.process import ProcessFailedError, run
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.image import ImageRef

DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEY = "index.docker.io"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOKEN_USER = "<token>"  # noqa: S105 - the user name that stands for "the secret is an identity token"


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A user and password, or an identity token. Only `source` may be shown."""

    source: str
    """Which entry of which file it came from."""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find(access: RegistryAccess, image: ImageRef) -> Credential | None:
    """Return the credential of the most specific entry for the image's repository, or None.

    Raises InvalidError for a file that cannot be read, NotAllowedError for a helper that fails.
    """
    for path in access.auth_files:
        if found := _in_file(path, image):
            return found
    return None


def _in_file(path: Path, image: ImageRef) -> Credential | None:
    data = _read(path)
    helpers, entries = _mapping(data, "credHelpers", path), _mapping(data, "auths", path)
    wanted = [_key(name) for name in (image.name, _hub(image.name))]
    found = [(key, str(helper)) for key, helper in helpers.items()] + [(key, "") for key in entries]
    for key, helper in sorted(found, key=lambda one: (-len(_key(one[0])), not one[1])):
        if not any(_covers(key, name) for name in wanted):
            continue
        if helper:
            return _ask(helper, key, f"credHelpers entry `{key}` of {path}")
        if parsed := _parse(_as_dict(entries[key]), f"entry `{key}` of {path}"):
            return parsed
    if (store := data.get("credsStore")) and any(_covers(key, name) for key in entries for name in wanted):
        host = "https://index.docker.io/v1/" if image.registry == DOCKER_HUB else image.registry
        return _ask(str(store), host, f"credsStore `{store}` of {path}")
    return None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_bytes() or b"{}")
    except OSError as error:
        raise InvalidError(f"the registry credentials in {path} cannot be read", error.strerror or "") from error
    except ValueError as error:  # its message would quote the content
        raise InvalidError(f"the registry credentials in {path} are not JSON") from error
    if not isinstance(data, dict):
        raise InvalidError(f"the registry credentials in {path} are not a JSON object")
    if not {"auths", "credHelpers", "credsStore"} & data.keys() and any("auth" in _as_dict(v) for v in data.values()):
        return {"auths": data}  # the old .dockercfg: entries without the wrapper
    return data


def _as_dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mapping(data: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    found = data.get(name) or {}
    if not isinstance(found, dict):
        raise InvalidError(f"the registry credentials in {path} are not valid", f"`{name}` is not an object")
    return found


def _key(name: str) -> str:
    """Return an entry's name without scheme and API version: `https://host/v1/` is `host`."""
    return re.sub(r"^https?://", "", name).rstrip("/").removesuffix("/v1").removesuffix("/v2").rstrip("/")


def _hub(name: str) -> str:
    return _DOCKER_HUB_KEY + name.removeprefix(DOCKER_HUB) if name.startswith(f"{DOCKER_HUB}/") else name


def _covers(key: str, name: str) -> bool:
    key = _key(key)
    return bool(key) and (name == key or name.startswith(f"{key}/"))


def _parse(entry: Mapping[str, Any], source: str) -> Credential | None:
    token = str(entry.get("identitytoken") or entry.get("identityToken") or "")
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if encoded := entry.get("auth"):
        try:
            plain = base64.b64decode(str(encoded), validate=True).decode().rstrip("\0")
        except ValueError as error:
            raise InvalidError(f"the {source} is not valid", "`auth` is not base64 of user:password") from error
        username, colon, password = plain.partition(":")
        if not colon:
            raise InvalidError(f"the {source} is not valid", "`auth` is not base64 of user:password")
    if token:
        return Credential(source=source, username=username, identity_token=token)
    return Credential(source=source, username=username, password=password) if username else None


def _ask(helper: str, server: str, source: str) -> Credential | None:
    """Ask a credential helper. One that says that it has nothing is no error."""
    if not _HELPER.fullmatch(helper):
        raise InvalidError("the name of a credential helper is not valid", source)
    try:
        answer = json.loads(run([f"docker-credential-{helper}", "get"], stdin=server, timeout=60).output)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except ProcessFailedError as error:
        if "credentials not found" in error.finished.output + error.finished.errors:
            return None
        raise NotAllowedError(
            f"`docker-credential-{helper}` gave no credentials for {server}",
            f"asked because of the {source}",
            f"it {how_ended(error.finished.returncode)}",
            hint=f"echo {server} | docker-credential-{helper} get",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise NotAllowedError(f"`docker-credential-{helper}` gave an answer that is none", source) from error
    if username == _TOKEN_USER:
        return Credential(source=source, identity_token=secret)
    return Credential(source=source, username=username, password=secret)


@dataclass(frozen=True)
class Challenge:
    """What a registry asks for in `WWW-Authenticate` (RFC 9110, section 11)."""

    scheme: str
    params: Mapping[str, str]


_PARAM = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_SCHEME = re.compile(r"(?:^|,)\s*(Bearer|Basic)(?=\s|,|$)", re.IGNORECASE)


def challenges(header: str) -> tuple[Challenge, ...]:
    """Parse the header; schemes other than Bearer and Basic are left out."""
    quoted = [found.span() for found in re.finditer(r'"(?:[^"\\]|\\.)*"', header)]
    starts = [found for found in _SCHEME.finditer(header) if not any(a < found.start(1) < b for a, b in quoted)]
    ends = [*(following.start() for following in starts[1:]), len(header)][: len(starts)]
    return tuple(
        Challenge(
            start[1].lower(),
            {
                found[1].lower(): re.sub(r"\\(.)", r"\1", found[2]) if found[2] is not None else found[3]
                for found in _PARAM.finditer(header, start.end(), end)
            },
        )
        for start, end in zip(starts, ends, strict=True)
    )
