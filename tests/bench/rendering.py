"""Renders many pipelines in one process, to YAML, and prints the seconds: `rendering ENGINE COUNT`."""

import importlib
import sys
import time

from dtkpipe.app.pipelines import load
from dtkpipe.engines.dump import dump
from dtkpipe.engines.rendered import Form
from dtkpipe.model.images import DEFAULTS


def main(engine: str, count: int) -> None:
    """Render `count` different ones."""
    render = importlib.import_module(f"dtkpipe.engines.{engine}.render").render
    pipeline = load("kmod")
    started = time.perf_counter()
    for number in range(count):
        params = {"repo": f"https://git.example/org/kmod-{number}", "push-to": "quay.io/org/kmod"}
        assert dump(render(pipeline, Form.TEMPLATE, params, images=DEFAULTS).objects)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
