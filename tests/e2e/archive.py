"""Debian's archive for pods of the tests' cluster, which look up no names: this machine fetches for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from dtkpipe.clients.registry import Registry
from dtkpipe.clients.rewrite import rewrite_layers
from dtkpipe.tools.apt import archive_site
from dtkpipe.values.image import ImageRef
from tests.fixtures.serving import Quiet, serving

_SOURCES = "etc/apt/sources.list"


@contextlib.contextmanager
def archive(address: str) -> Iterator[str]:
    """Give `host:port` of what answers as the archive does that this machine's apt asks."""
    site = urlsplit(archive_site(security=False))

    class Handler(Quiet):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            got = urllib3.request("GET", f"{site.scheme}://{site.netloc}{self.path}", timeout=60)
            self.send_response(got.status)
            self.send_header("Content-Length", str(len(got.data)))
            self.end_headers()
            self.wfile.write(got.data)

        do_GET = _answer  # noqa: N815

    with serving(Handler, address) as host:
        yield host


def told_of(host: str, runner: ImageRef, registry: Registry, work: Path) -> ImageRef:
    """Return the runner image with an apt that asks `host`, as somebody makes it who has a mirror."""
    sites = (urlsplit(archive_site(security=one)) for one in (False, True))
    names = {f"{site.scheme}://{site.netloc}/".encode() for site in sites if site.netloc}

    def asks(_path: str, content: bytes) -> bytes:
        for name in names:
            content = content.replace(name, f"http://{host}/".encode())
        return content

    made = rewrite_layers(registry, runner, lambda entry: entry.path == _SOURCES, asks, work)
    assert made.paths == (_SOURCES,)
    return made.image
