"""Whole documents, both engines side by side, and everything else in the repository that is compiled from pipelines.

`python -m tests.golden` writes them again. Read the change before you commit it; CI never writes.
"""

from collections.abc import Iterator
from pathlib import Path

from dtkpipe import __version__
from dtkpipe.app.compile import ENGINES, Wanted, as_files, compile_pipeline
from dtkpipe.app.graph import draw
from dtkpipe.app.pipelines import load, names
from dtkpipe.engines.dump import dump
from dtkpipe.engines.rendered import Form

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
OWN = str(ROOT / "tests/fixtures/pipelines/scan.py")
PARAMS = {
    "release": "debian-12",
    "repo": "https://git.example/org/kmod",
    "ref": "1e5",
    "push-to": "registry.example/org/kmod",
    "build-args": '["MODE=debug", "NOTE=two words, \\"quoted\\""]',
}
CASES = {
    "run": ("kmod", Form.RUN, PARAMS),
    "inline": ("prebuild", Form.INLINE, PARAMS),
    "own": (OWN, Form.TEMPLATE, {"severity": "low"}),
}
GRAPHS = {"graph.txt": "ascii", "graph.mmd": "mermaid", "graph.dot": "dot"}


def expected() -> Iterator[tuple[Path, str]]:
    """Every compiled file of the repository, and what it should hold."""
    for case, (name, form, params) in CASES.items():
        for engine in ENGINES:
            rendered = compile_pipeline(load(name), Wanted(engine=engine, form=form, params=params))
            yield HERE / case / f"{engine}.yaml", _without_version(dump(rendered.objects))
    for file, form in GRAPHS.items():
        yield HERE / "own" / file, draw(load(OWN), form)
    yield from catalog()
    yield ROOT / "docs/pipeline.svg", draw(load("kmod"), "svg")


def catalog() -> Iterator[tuple[Path, str]]:
    """What `dtkpipe compile --engine ENGINE --pipeline NAME --dir catalog/ENGINE` writes."""
    for engine in ENGINES:
        for name in names():
            rendered = compile_pipeline(load(name), Wanted(engine=engine, params={}))
            for file, text in as_files(rendered).items():
                yield ROOT / "catalog" / engine / file, text


def _without_version(text: str) -> str:
    return text.replace(f'app.kubernetes.io/version: "{__version__}"', 'app.kubernetes.io/version: "VERSION"')
