"""What breaks while runs are under way, on both engines: each run ends right, or its card says why it did not.

Whatever happens, nothing gets a final tag that was not proven, and nothing of a run is left when it is deleted.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from dtkpipe.app.clusters import ENGINES
from dtkpipe.app.retry import retry
from dtkpipe.errors import InvalidError, UnreachableError
from dtkpipe.model import Pipeline, RunName
from dtkpipe.tasks import StepTask, publish, sign
from dtkpipe.values.image import ImageRef
from dtkpipe.values.run import FAILED, PENDING, SUCCEEDED, RunCard
from tests.e2e.cluster.faults import Faults
from tests.e2e.cluster.images import busybox
from tests.e2e.cluster.target import Cluster
from tests.e2e.tiny import Runs, Site, container_of, needs_secret, relay
from tests.fixtures.cli import Cli
from tests.fixtures.faults import Exchange, Proxy, on, proxied
from tests.fixtures.images import file, layer, push_image
from tests.fixtures.keys import certificate, der, rsa_key
from tests.fixtures.registry import LoopbackRegistry

OUTAGE = 20
"""Seconds."""
KERNEL = "6.1.0-1-amd64"
MANY = """\
from dtkpipe.model import InputRef, Pipeline, Rights, container, param

number, value = param("number", "which of them it is")
push, to = param("push-to", "what is locked")
only = container(
    "only", image={image!r}, argv=("echo", "--", InputRef("number"), InputRef("to")), rights=Rights(root=True),
    inputs={{"number": value, "to": to}}, params=(number, push),
)
many = Pipeline("many", "One of many", tasks=(only,))
"""


@pytest.fixture(scope="module")
def site(cluster: Cluster, runner_image: ImageRef) -> Iterator[Site]:
    made = Site(cluster, runner_image)
    made.install()
    yield made
    made.remove()


@pytest.fixture
def runs(site: Site) -> Iterator[Runs]:
    """Runs of one test: deleted afterwards, and then nothing may be left of them."""
    started = Runs(site)
    yield started
    started.delete()


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    """The way to the registry for pods: tests see who is where on it."""
    with proxied(cluster.registry, cluster.address) as running:
        yield running


def well(card: RunCard, tries: int = 1) -> bool:
    """Whether a run of `relay` ended as if nothing had been, its first task after so many tries."""
    assert card.state == SUCCEEDED, card.to_json()
    answer = [card.result("first", "WORD"), card.result("second", "ANSWER")]
    counted = [len(step.attempts) for step in card.steps]
    return (answer, counted) == (["hello", "hello, too"], [tries, 1, 1])


def states(card: RunCard) -> dict[str, str]:
    return {step.name: step.state for step in card.steps}


def fresh(registry: LoopbackRegistry) -> ImageRef:
    """A shell's image that no node has."""
    image = busybox()
    return push_image(
        registry.client, registry.repo("faults/shell"), [layer(*image.members)], config=image.config,
        labels={"only": secrets.token_hex(8)},
    )  # fmt: skip


@pytest.mark.core
def test_controllers_that_are_killed_miss_nothing(runs: Runs, faults: Faults) -> None:
    """Both engines' at once; tasks end while nobody looks."""
    pipeline = relay(runs.site.cluster.busybox, seconds=5)
    for engine in ENGINES:
        runs.start(engine, "unwatched", pipeline)
    pods = [runs.until_begun(engine, name, "first") for engine, name in runs.started]
    with faults.without_controller("argo"), faults.without_controller("tekton"):
        over = lambda: all(runs.phase(pod) == "Succeeded" for pod in pods)  # noqa: E731
        runs.site.cluster.wait("the tasks have ended", over, 120)
        assert {runs.card(*one).state for one in runs.started} == {"running"}
    for one in runs.started:
        assert well(runs.end(*one))


def test_an_api_server_that_is_gone_for_long(runs: Runs, faults: Faults) -> None:
    """Tasks end meanwhile; who waits for the runs goes on waiting.

    Argo's executor gives up its result after about ten seconds: the task is repeated then, as our own may be.
    """
    pipeline = relay(runs.site.cluster.busybox, seconds=8, retries=1)
    for engine in ENGINES:
        runs.start(engine, "unserved", pipeline)
    with ThreadPoolExecutor() as pool:
        waiting = [runs.ends(pool, *one) for one in runs.started]
        for engine, name in runs.started:
            runs.until_begun(engine, name, "first")
        with faults.without("apiserver", seconds=OUTAGE):
            assert not any(one.done() for one in waiting)
        for one in waiting:
            card = one.result()
            assert well(card, tries=len(card.steps[0].attempts) if card.engine == "argo" else 1)


def shipping(step: StepTask = publish) -> Pipeline:
    return Pipeline("ship", "Publish an image", tasks=(step(run_name=RunName()),))


def test_a_registry_that_is_gone_for_long(
    runs: Runs, faults: Faults, registry: LoopbackRegistry, proxy: Proxy, site: Site
) -> None:
    """It dies when every run is in the middle of a pull or of a push. Pods whose image is not there yet come then."""
    source = push_image(registry.client, registry.repo("faults/proven"), [layer(file("opt/x", b"x"))])
    cases = {  # case -> where in its work it is when the registry dies, and how it publishes
        "pulls": ("GET", "proven-{}/blobs/", publish),
        "pushes": ("PUT", "pushes-{}/manifests/", publish),
        "once": ("PUT", "once-{}/manifests/", replace(publish, retries=0)),
    }
    there, all_there, gone = set[str](), threading.Event(), threading.Event()

    def meet(name: str, _: Exchange) -> bool:
        there.add(name)
        if len(there) == len(cases) * len(ENGINES):
            all_there.set()
        gone.wait(300)
        return False

    for engine in ENGINES:
        for case, (method, path, step) in cases.items():
            proven = proxy.repo(f"faults/proven-{engine}") if case == "pulls" else proxy.repo("faults/proven")
            registry.client.copy(source, registry.repo(proven.repository))
            proxy.faults.append(on(method, path.format(engine), partial(meet, f"{engine}-{case}")))
            runs.start(
                engine, case, shipping(step), image=str(proven.at(source.digest)), verdict="proven", kernel=KERNEL,
                push_to=str(proxy.repo(f"{site.namespace}/{case}-{engine}")),
                insecure_registries=json.dumps([proxy.host]),
            )  # fmt: skip
    image = fresh(registry)
    assert all_there.wait(300), f"these alone got to where the registry is to die: {there}"
    with faults.without("registry", seconds=OUTAGE):
        gone.set()
        for engine in ENGINES:
            name = runs.start(engine, "imageless", relay(str(image)))
            runs.until_waits(engine, name, f"image {image} cannot be pulled: ")
    for engine in ENGINES:
        for case in ("pulls", "pushes"):
            card = runs.end(engine, f"{engine}-{case}")
            assert card.state == SUCCEEDED, card.to_json()
            assert tags(registry, site, case, engine) == (KERNEL,)
            assert registry.client.digest(registry.repo(f"{site.namespace}/{case}-{engine}").tagged(KERNEL)) == (
                source.digest
            )
        once = runs.end(engine, f"{engine}-once")
        assert (once.state, once.exit_code) == (FAILED, UnreachableError.exit_code), once.to_json()
        assert proxy.host in once.cause
        assert tags(registry, site, "once", engine) == ()
    pulled_again(runs, image)


def tags(registry: LoopbackRegistry, site: Site, case: str, engine: str) -> tuple[str, ...]:
    """The final tags: all but those that stand for a referrers API (OCI distribution specification)."""
    found = registry.client.tags(registry.repo(f"{site.namespace}/{case}-{engine}"))
    return tuple(one for one in found if not one.startswith("sha256-"))


def pulled_again(runs: Runs, image: ImageRef) -> None:
    """Argo waits for an image until the task's time is up. Tekton soon gives the task up; to retry the run mends it."""
    assert well(runs.end("argo", "argo-imageless"))
    card = runs.end("tekton", "tekton-imageless")
    if card.state == SUCCEEDED:  # the image came before Tekton had enough
        assert well(card)
        return
    assert (card.state, card.exit_code) == (FAILED, 10), card.to_json()
    assert card.cause.startswith(f"first: image {image} cannot be pulled: "), card.cause
    assert states(card) == {"first": FAILED, "second": PENDING, "last": SUCCEEDED}
    again = retry(runs.site.runs("tekton"), card.name, from_failed=False)
    runs.started.append(("tekton", again.name))
    assert well(runs.end("tekton", again.name))


def test_an_image_whose_pull_is_denied(runs: Runs, faults: Faults, registry: LoopbackRegistry) -> None:
    image = fresh(registry)
    with faults.guarded_registry():
        for engine in ENGINES:
            name = runs.start(engine, "imageless", relay(str(image)))
            runs.until_waits(engine, name, f"image {image} cannot be pulled: ")
            (cause,) = [step.cause for step in runs.card(engine, name).steps if step.name == "first"]
            assert "401 Unauthorized" in cause
    pulled_again(runs, image)


def test_a_program_that_somebody_kills(runs: Runs, faults: Faults) -> None:
    """Without retries the run fails and says so; with one, the task is tried again."""
    image = runs.site.cluster.busybox
    for engine in ENGINES:
        runs.start(engine, "killed", relay(image, seconds=15))
        runs.start(engine, "mended", relay(image, seconds=15, retries=1))
    for engine, name in runs.started:
        pod = runs.until_begun(engine, name, "first")
        faults.kill_container(runs.site.namespace, pod, container_of(engine, "first"))
    for engine in ENGINES:
        card = runs.end(engine, f"{engine}-killed")
        assert (card.state, card.exit_code, card.cause) == (FAILED, 10, "first: was killed (SIGKILL)"), card.to_json()
        assert card.steps[0].exit_code == 137
        assert states(card) == {"first": FAILED, "second": PENDING, "last": SUCCEEDED}
        mended = runs.end(engine, f"{engine}-mended")
        assert well(mended, tries=2)
        assert [one.exit_code for one in mended.steps[0].attempts] == [137, 0]


def test_a_secret_that_comes_late(runs: Runs) -> None:
    """While it is missing, the card says which one."""
    secret, kubectl = f"late-{secrets.token_hex(3)}", runs.site.cluster.kubectl
    for engine in ENGINES:
        runs.start(engine, "keyless", needs_secret(runs.site.cluster.busybox, secret))
    for engine, name in runs.started:
        runs.until_waits(engine, name, f'secret "{secret}" not found')
    kubectl("-n", runs.site.namespace, "create", "secret", "generic", secret, "--from-literal=token=x")
    for one in runs.started:
        assert runs.end(*one).state == SUCCEEDED
    kubectl("-n", runs.site.namespace, "delete", "secret", secret)


def test_a_signing_key_that_is_missing(runs: Runs, registry: LoopbackRegistry, site: Site) -> None:
    """Nothing is signed, so nothing is published."""
    source = push_image(registry.client, registry.repo("faults/proven"), [layer(file("opt/x", b"x"))])
    signed = sign(run_name=RunName())
    pipeline = Pipeline("sign", "Sign and publish", tasks=(signed, publish(run_name=RunName(), after=(signed,))))
    for engine in ENGINES:
        runs.start(
            engine, "unsigned", pipeline, image=str(source), verdict="proven", kernel=KERNEL,
            push_to=str(registry.repo(f"{site.namespace}/unsigned-{engine}")),
            insecure_registries=json.dumps([registry.host]),
            sign_cert=base64.b64encode(der(certificate(rsa_key()))).decode(),
        )  # fmt: skip
    for engine, name in runs.started:
        card = runs.end(engine, name)
        assert (card.state, card.exit_code) == (FAILED, InvalidError.exit_code), card.to_json()
        assert card.cause.startswith("sign: a certificate was given, but the signing key cannot be read"), card.cause
        assert states(card) == {"sign": FAILED, "publish": PENDING}
        assert tags(registry, site, "unsigned", engine) == ()


def test_admission_that_refuses_a_pod(runs: Runs) -> None:
    """In the middle of a run: what refused is named, and what always runs at the end does."""
    name, kubectl = f"{runs.site.namespace}-no-pods", runs.site.cluster.kubectl
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    only = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": runs.site.namespace}}}
    says = {"expression": "!object.metadata.name.contains('-refused-second')", "message": "no pod of that name!"}
    policy = {"matchConstraints": {"resourceRules": [rule]}, "validations": [says]}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": only}
    objects = "\n---\n".join(
        json.dumps(
            {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        )
        for kind, spec in (("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", binding))
    )
    kubectl("apply", "-f", "-", stdin=objects)
    try:
        runs.site.cluster.wait("the policy is in force", lambda: _is_refused(runs.site, "x-refused-second"))
        for engine in ENGINES:
            runs.start(engine, "refused", relay(runs.site.cluster.busybox))
        for one in runs.started:
            card = runs.end(*one)
            assert (card.state, card.exit_code) == (FAILED, 10), card.to_json()
            assert f"ValidatingAdmissionPolicy '{name}'" in card.cause
            assert "no pod of that name!" in card.cause
            assert card.cause.startswith("second: "), card.cause
            assert states(card) == {"first": SUCCEEDED, "second": FAILED, "last": SUCCEEDED}
    finally:
        kubectl("delete", "-f", "-", stdin=objects)


def _is_refused(site: Site, name: str) -> bool:
    try:
        site.cluster.kubectl("-n", site.namespace, "run", name, f"--image={site.cluster.busybox}", "--dry-run=server")
    except RuntimeError as error:
        return "ValidatingAdmissionPolicy" in str(error)
    return False


def test_twenty_different_runs_at_once(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, site = tmp_path_factory.mktemp("many"), runs.site
    cli = Cli(folder, folder / "home")
    (folder / "many.py").write_text(MANY.format(image=site.cluster.busybox))
    for engine in ENGINES:
        compiled = cli("compile", "--engine", engine, "--pipeline", "many.py")
        assert compiled.code == 0, compiled.err
        site.cluster.kubectl("apply", "-n", site.namespace, "-f", "-", stdin=compiled.out)

    def submit(number: int) -> tuple[str, RunCard]:
        engine = list(ENGINES)[number % len(ENGINES)]
        said = cli(
            "submit", "--engine", engine, "-n", site.namespace, "--pipeline", "many.py", "-p", f"number={number}",
            "--push-to", f"registry.example.org/many-{number}", "--wait", "-o", "json", env=site.cluster.environ,
        )  # fmt: skip
        assert said.code == 0, said.err
        return engine, RunCard.from_json(said.out)

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(submit, range(20)))
    runs.started += [(engine, card.name) for engine, card in found]
    assert len(set(runs.started)) == 20
    assert {card.state for _, card in found} == {SUCCEEDED}
    leases = site.cluster.kubectl.json("-n", site.namespace, "get", "leases")["items"]
    assert {one["spec"]["holderIdentity"] for one in leases} == {f"{engine}/{name}" for engine, name in runs.started}
