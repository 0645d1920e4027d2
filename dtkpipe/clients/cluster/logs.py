"""What containers wrote, line by line; a stream that drops is taken up again where it was."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from dtkpipe.clients.cluster.connection import TIMEOUT, Connection
from dtkpipe.clients.cluster.refusals import Asked
from dtkpipe.errors import UnreachableError

_LONGEST = 64 * 1024
"""Bytes of one line; what is longer comes in pieces."""
_PATIENCE = 60.0
"""Seconds without an answer, after which following ends."""
_SILENCE = 3600.0
"""Seconds that a container may write nothing."""


def lines(connection: Connection, path: str, query: Mapping[str, str], asked: Asked) -> Iterator[str]:
    """Give the lines, without their end. Raises DtkpipeError."""
    if "follow" not in query:
        for line in _read(connection, path, query, asked, TIMEOUT):
            yield _text(line)
        return
    # The server's times say where to go on after a drop.
    asking, last, had, broken = {**query, "timestamps": "true"}, b"", b"", 0.0
    while True:
        try:
            for line in _read(connection, path, asking, asked, _SILENCE):
                stamp, _, rest = line.partition(b" ")
                broken = 0.0
                if had and _moment(stamp) <= _moment(had):
                    continue
                last = max(last, stamp, key=_moment)
                yield _text(rest)
        except UnreachableError:
            now = time.monotonic()
            broken = broken or now
            if now - broken > _PATIENCE:
                raise
            if had := last:
                asking = {**asking, "sinceTime": last.decode(errors="replace")}
                asking.pop("tailLines", None)
            time.sleep(1)
        else:
            return


def _read(connection: Connection, path: str, query: Mapping[str, str], asked: Asked, silence: float) -> Iterator[bytes]:
    with connection.opened("GET", path, asked, query=query, timeout=silence) as answer:
        rest, chunks = b"", answer.stream(16 * 1024, decode_content=True)
        while True:
            with connection.unbroken(asked):
                chunk = next(chunks, None)
            if chunk is None:
                break
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
            if len(rest) > _LONGEST:
                yield rest
                rest = b""
        if rest:
            yield rest


def _moment(stamp: bytes) -> bytes:
    """Make times of RFC 3339 in UTC comparable: with nine digits of fraction each."""
    whole, _, fraction = stamp.rstrip(b"Z").partition(b".")
    return whole + b"." + fraction.ljust(9, b"0")


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")
