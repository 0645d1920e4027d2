"""What a registry's refusal means for the user: one place that turns answers and broken connections into errors."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError, ReadTimeoutError

from dtkpipe.clients.auth import Credential
from dtkpipe.errors import DtkpipeError, NotAllowedError, NotFoundError, RunFailedError, UnreachableError
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.image import ImageRef


class NoSpaceError(UnreachableError):
    """The registry is full, or the image is over its quota. Trying again at once does not help."""


_ANSWER = 64 * 1024
_NO_SPACE = ("no space left", "insufficient storage", "disk quota", "quota exceeded", "quota has been exceeded")


def refused(
    response: urllib3.BaseHTTPResponse,
    image: ImageRef,
    asked: str,
    credential: Credential | None,
    access: RegistryAccess,
) -> DtkpipeError:
    """Return the error that an answer with an unexpected status stands for. Reads the answer's body."""
    host, status = image.registry, response.status
    said = _message(response)
    got = f"{host} answered {status}" + (f": {said}" if said else "")
    if status in (401, 403):
        return NotAllowedError(
            f"{host} does not allow to {asked}",
            got,
            _credentials_used(credential, image, access),
            hint=f"check the credentials: podman login {host}",
        )
    if status == 404:
        return NotFoundError(f"cannot {asked}: {host} does not have it", got)
    if status in (413, 507) or any(words in said.lower() for words in _NO_SPACE):
        return NoSpaceError(f"{host} has no space left: cannot {asked}", got)
    if status == 429:
        return UnreachableError(f"{host} is asked too often: cannot {asked}", got, hint="try again later")
    if status >= 500:
        return UnreachableError(f"{host} fails: cannot {asked}", got)
    return RunFailedError(f"{host} refuses to {asked}", got)


def unreachable(error: HTTPError, host: str, asked: str, scheme: str = "https") -> UnreachableError:
    """Return the error for a connection that could not be made, or broke more often than we try."""
    cause: BaseException | None = getattr(error, "reason", None) or error
    match cause:
        case NameResolutionError():
            why = "the host name is not known"
        case NewConnectionError():  # for urllib3 a time-out like the next, but it says why: connection refused
            why = re.sub(r"^\[Errno -?\d+\] ", "", str(cause).rpartition(": ")[2]).lower()
        case ConnectTimeoutError():
            why = "no answer: the connection timed out"
        case ReadTimeoutError():
            why = "the answer stopped: no data within the time limit"
        case _:
            why = str(cause)[:300]
    return UnreachableError(
        f"{host} cannot be reached: cannot {asked}",
        why,
        hint=f"is the registry up, and reachable from here? curl -sS {scheme}://{host}/v2/",
    )


def everywhere(failed: Sequence[DtkpipeError], places: Sequence[ImageRef], image: ImageRef, asked: str) -> DtkpipeError:
    """Return the error for an image that neither its mirrors nor its source gave, with what each of them said.

    Its kind is that of the last place; where a mirror refused us or did not answer, that goes before "not found".
    """
    kinds = [error for error in failed if not isinstance(error, NotFoundError)] or list(failed)
    tried = [
        f"{place.name}: {'; '.join(error.details) or error.what}" for place, error in zip(places, failed, strict=True)
    ]
    if places[-1].name != image.name:
        tried.append(f"{image.name}: never asked, its mirrors are all that is allowed")
    return type(kinds[-1])(f"no mirror has it: cannot {asked}", *tried, hint=kinds[-1].hint)


def _credentials_used(credential: Credential | None, image: ImageRef, access: RegistryAccess) -> str:
    if credential:
        return f"credentials used: {credential.source}"
    looked = ", ".join(str(path) for path in access.auth_files)
    if looked:
        return f"no credentials used: no entry for {image.name} in {looked}"
    if access.auth_file:
        return f"no credentials used: {access.auth_file} does not exist"
    return "no credentials used: no auth file was found (REGISTRY_AUTH_FILE is not set)"


def _message(response: urllib3.BaseHTTPResponse) -> str:
    """Return what the registry says, in one line: `errors[].message` of the distribution specification."""
    try:
        body = response.read(_ANSWER, decode_content=True)
        errors = json.loads(body)["errors"]
        words = [f"{one.get('message') or one.get('code')} {_detail(one.get('detail'))}".strip() for one in errors]
        return "".join(char if char.isprintable() else " " for char in "; ".join(words)[:300])
    except (HTTPError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    finally:
        response.drain_conn()


def _detail(detail: object) -> str:
    return "" if not detail else f"({json.dumps(detail)})"
