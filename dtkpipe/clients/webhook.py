"""Calling an address as a forge does."""

from __future__ import annotations

from collections.abc import Mapping

from dtkpipe.errors import UnreachableError, UsageError

_SECONDS = 30.0


def send(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Send a call and return the status of the answer. Raises UnreachableError, UsageError for what is no address."""
    from urllib3 import PoolManager
    from urllib3.exceptions import HTTPError

    if not url.startswith(("https://", "http://")):
        raise UsageError(f"`{url[:80]}` is not an address", "expected https://HOST/...")
    try:
        with PoolManager() as client:
            answer = client.request(
                "POST", url, body=body, headers=dict(headers), timeout=_SECONDS, retries=False, redirect=False
            )
            return answer.status
    except (HTTPError, ValueError) as error:
        raise UnreachableError(f"{url} does not answer", str(error)[:200]) from error
