"""Draws a page as a real browser shows it: `python -m tests.browser PAGE.html PICTURE.png [WIDTH] [dark]`.

Chromium is spoken to through its DevTools protocol, over a pipe: messages of JSON that end with a zero byte
(chromium, content/public/common/content_switches.cc, remote-debugging-pipe).
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST = 4000
"""Pixels that a picture is high at most."""


class Browser:
    """A browser that runs, and its one tab."""

    _session = ""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out, self._numbers = into, os.fdopen(out, "rb"), itertools.count(1)
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._into, json.dumps({"id": number, "method": method, "params": params, **session}).encode() + b"\0")
        while (answer := self._heard()).get("id") != number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def _heard(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._out.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser ended")
            text += byte
        return dict(json.loads(text))

    def picture(self, page: Path, width: int, *, dark: bool) -> bytes:
        """Return a page as PNG, as high as it is. `width` is in pixels."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self._size(width, 800)
        self.ask("Page.enable")
        self.ask("Page.navigate", url=page.absolute().as_uri())
        while self.ask("Runtime.evaluate", expression="document.readyState")["result"]["value"] != "complete":
            pass
        height = self.ask("Runtime.evaluate", expression="document.documentElement.offsetHeight")["result"]["value"]
        self._size(width, min(int(height), MOST))
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def _size(self, width: int, height: int) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)


@contextmanager
def browser() -> Iterator[Browser]:
    """Run Chromium during the block."""
    program = shutil.which("chromium")
    if program is None:
        sys.exit("pages are drawn by Chromium, which is not here: apt-get install --no-install-recommends chromium")
    (here_out, its_in), (its_out, here_in) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="dtkpipe-browser-") as profile:
        argv = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--remote-debugging-pipe", f"--user-data-dir={profile}"]  # fmt: skip

        def numbered() -> None:
            """The browser reads from 3 and writes to 4, whatever ours are called."""
            high = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (here_out, here_in)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        running = subprocess.Popen(argv, pass_fds=(3, 4), preexec_fn=numbered, stderr=subprocess.DEVNULL)  # noqa: PLW1509
        os.close(here_out)
        os.close(here_in)
        try:
            yield Browser(its_in, its_out)
        finally:
            running.terminate()
            running.wait()
            os.close(its_in)


def main(page: str, picture: str, width: str = "1400", scheme: str = "light") -> None:
    """Draw one page."""
    with browser() as one:
        Path(picture).write_bytes(one.picture(Path(page), int(width), dark=scheme == "dark"))


if __name__ == "__main__":
    main(*sys.argv[1:])
