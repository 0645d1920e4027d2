"""Whole documents, both engines side by side, and everything else in the repository that is compiled from pipelines.

`python -m tests.golden` writes them again. Read the change before you commit it; CI never writes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dtkpipe import __version__
from dtkpipe.app.clusters import ENGINES, Engine
from dtkpipe.app.compile import Wanted, compile_pipeline
from dtkpipe.app.doctor import NEEDS
from dtkpipe.app.graph import draw
from dtkpipe.app.install import Installation
from dtkpipe.app.matrix.plan import Request
from dtkpipe.app.pipelines import load
from dtkpipe.app.rings import on_catalog
from dtkpipe.app.schedules import NO_TIMES, Matrix, Planner, schedule
from dtkpipe.app.triggers import Trigger, on_node_kernel, on_release, rung
from dtkpipe.builders import CAPABILITIES, with_builder
from dtkpipe.engines.dump import dump
from dtkpipe.engines.installed import files
from dtkpipe.engines.rbac import NAMESPACE, openshift
from dtkpipe.engines.rendered import Form
from dtkpipe.engines.triggers import RECEIVERS, pipelines_as_code
from dtkpipe.model.images import DEFAULTS, RUNNER
from dtkpipe.values.arch import Arch
from dtkpipe.values.cron import Cron
from dtkpipe.values.forge import Repository

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
    kaniko = with_builder(load("prebuild"), "kaniko")
    for engine in ENGINES:
        rendered = compile_pipeline(kaniko, Wanted(engine=engine, params={}))
        yield HERE / "kaniko" / f"{engine}.yaml", _without_version(dump(rendered.objects))
    yield from triggers()
    for file, form in GRAPHS.items():
        yield HERE / "own" / file, draw(load(OWN), form)
    yield from catalog()
    yield ROOT / "catalog/runner/packages", packages()
    yield ROOT / "docs/pipeline.svg", draw(load("kmod"), "svg")


def triggers() -> Iterator[tuple[Path, str]]:
    """What `dtkpipe trigger create` makes."""
    for engine in ENGINES.values():
        for case, trigger in _triggers(engine).items():
            yield HERE / case / f"{engine.name}.yaml", _without_version(dump(trigger.render()))
    for name, receiver in RECEIVERS.items():
        secret = "hook" if receiver.own_secret else ""
        url = "https://github.com/org/catalogue" if name == "argo-events" else _URL
        rings = on_catalog(_planner(ENGINES[receiver.engine], NAMESPACE), url, Repository.parse(url), secret)
        yield HERE / "trigger" / f"{name}.yaml", _without_version(dump(rung(rings, name).render()))
    rings = on_catalog(_planner(ENGINES["tekton"], pipelines_as_code.NAMESPACE), _URL, Repository.parse(_URL), "")
    run = pipelines_as_code.pipeline_run(schedule(rings.planner, NO_TIMES), rings.bell)
    yield HERE / "trigger" / "pipelines-as-code.yaml", _without_version(dump([run]))


_URL = "https://gitlab.example/org/catalogue"


def _planner(engine: Engine, namespace: str) -> Planner:
    request = Request(
        modules=["modules/*"], releases="4.16..4.18", arches=[Arch.parse("x86_64")], variants=["std"],
        signer="unsigned", push_to="registry.example/org",
    )  # fmt: skip
    matrix = Matrix(request=request, params={}, options={"--jobs": "4"})
    return Planner(
        name="catalogue", engine=engine, namespace=namespace, matrix=matrix, image=DEFAULTS[RUNNER], here=HERE
    )


def _triggers(engine: Engine) -> Mapping[str, Trigger]:
    """Triggers on new releases, and on new kernels."""
    planner = _planner(engine, NAMESPACE)
    read = replace(planner.matrix.request, modules=[f"{_URL}//modules/*"])
    from_git = replace(planner, matrix=replace(planner.matrix, request=read))
    return {
        "release": on_release(replace(from_git, name="releases"), Cron.parse("*/15 * * * *", "UTC")),
        "node-kernel": on_node_kernel(replace(from_git, name="kernels"), 60),
    }


def catalog() -> Iterator[tuple[Path, str]]:
    """What `dtkpipe compile --engine ENGINE --dir catalog/ENGINE` writes, and what `--openshift` adds."""
    for engine in ENGINES.values():
        wanted = Installation(engine=engine, namespace=NAMESPACE)
        for file, text in files(wanted.objects(), engine.name).items():
            yield ROOT / "catalog" / engine.name / file, text
    for file, text in files(openshift(NAMESPACE, CAPABILITIES), "openshift").items():
        yield ROOT / "catalog" / "openshift" / file, text


def packages() -> str:
    """What the runner image installs: doctor's table, for the jobs that pods do, and what dtkpipe itself runs on."""
    jobs = {"build", "toolkits", "verify", "verify-arm", "secure-boot"}
    names = {need.package for need in NEEDS if jobs & set(need.jobs)} | {"ca-certificates", "python3"}
    return "".join(f"{name}\n" for name in sorted(names))


def _without_version(text: str) -> str:
    return text.replace(f'app.kubernetes.io/version: "{__version__}"', 'app.kubernetes.io/version: "VERSION"')
