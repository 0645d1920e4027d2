"""Running a program in a container of a pod, over a WebSocket.

Frames begin with the number of their channel: 1 is what the program wrote, 2 its errors, 3 how it ended, as a Status
(kubelet, cri/streaming/remotecommand; protocols v4.channel.k8s.io and v5.channel.k8s.io).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from dtkpipe.clients.cluster.connection import TIMEOUT, Connection
from dtkpipe.clients.cluster.refusals import Asked, refused
from dtkpipe.errors import NotFoundError, RunUnknownError, UnreachableError

_OUTPUT, _ERRORS, _STATUS = 1, 2, 3
MOST = 1024 * 1024
"""Bytes that are kept of each channel, if nobody asks for more."""


@dataclass(frozen=True)
class Executed:
    """How a program ended, and what it wrote to stdout and stderr."""

    returncode: int
    output: str
    errors: str
    raw: bytes = field(default=b"", repr=False)
    """The output as it came: files of the kernel are not always text."""


def run(
    connection: Connection, path: str, container: str, argv: Sequence[str], timeout: float, asked: Asked, most: int
) -> Executed:
    """Run `argv`. Raises NotFoundError, NotAllowedError, RunUnknownError when it does not end, UnreachableError."""
    from kubernetes import stream
    from websocket import WebSocketBadStatusException, WebSocketException, setdefaulttimeout

    ws_client: Any = stream.ws_client  # its functions have no types
    query = [("container", container), ("stdout", "true"), ("stderr", "true"), *(("command", word) for word in argv)]
    # One configuration and socket of its own for each program: kubernetes.stream() would change a shared client.
    request = connection.api.param_serialize("GET", path, auth_settings=["BearerToken"])
    headers = {name.lower(): value for name, value in request[2].items()}
    setdefaulttimeout(TIMEOUT)
    url = ws_client.get_websocket_url(f"{connection.host}{path}?{urlencode(query)}")
    end = time.monotonic() + timeout
    try:
        socket = ws_client.create_websocket(connection.settings, url, headers)
    except WebSocketBadStatusException as error:
        body = error.resp_body if isinstance(error.resp_body, bytes) else b""
        raise refused(int(error.status_code), body, asked, connection.host) from error
    except (WebSocketException, OSError, ValueError) as error:
        raise UnreachableError(
            f"the cluster at {connection.host} cannot be reached: cannot {asked}", str(error)[:200]
        ) from error
    try:
        return _ended(_channels(socket, end, most), argv, asked)
    except (WebSocketException, OSError) as error:
        if time.monotonic() >= end:
            raise RunUnknownError(f"`{argv[0]}` did not end within {timeout:.0f} s", f"asked: {asked}") from error
        raise UnreachableError(f"the connection broke: cannot {asked}", str(error)[:200]) from error
    finally:
        socket.close(timeout=1)


def _channels(socket: Any, end: float, most: int) -> dict[int, bytearray]:
    """Read frames until the other side ends the talk, or its Status has come; what is too much is dropped."""
    found = {channel: bytearray() for channel in (_OUTPUT, _ERRORS, _STATUS)}
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        socket.settimeout(left)
        code, data = socket.recv_data()
        if code == 8 or (data and data[0] == _STATUS and _is_whole(data[1:])):  # RFC 6455: 8 closes
            found[_STATUS] += data[1:] if code != 8 else b""
            return found
        if data and data[0] in found:
            kept = found[data[0]]
            kept += data[1 : 1 + most - len(kept)]


def _is_whole(status: bytes) -> bool:
    try:
        json.loads(status)
    except ValueError:
        return False
    return True


def _ended(found: dict[int, bytearray], argv: Sequence[str], asked: Asked) -> Executed:
    try:
        status = json.loads(found[_STATUS])
        causes = {one.get("reason"): str(one["message"]) for one in (status.get("details") or {}).get("causes") or ()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreachableError(f"the connection ended before the program did: cannot {asked}") from error
    raw = bytes(found[_OUTPUT])
    output, errors = raw.decode(errors="replace"), found[_ERRORS].decode(errors="replace")
    if status.get("status") == "Success":
        return Executed(0, output, errors, raw)
    if (code := causes.get("ExitCode", "")).isdecimal():
        return Executed(int(code), output, errors, raw)
    why = str(status.get("message")).rpartition("exec failed: ")[2][:300]
    kind = NotFoundError if "not found" in why or "no such file" in why else UnreachableError
    raise kind(f"`{argv[0]}` cannot be run: cannot {asked}", why)
