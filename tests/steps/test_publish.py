"""publish and clean: only proven images at final tags, all attached before, and nobody else's tags touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dtkpipe.clients.registry import Registry
from dtkpipe.errors import DtkpipeError, InvalidError, RunFailedError, UnreachableError
from dtkpipe.proof.verdict import SCHEMA, pack_evidence
from dtkpipe.steps import clean, publish
from dtkpipe.steps.contract import Room
from dtkpipe.values.arch import X86_64
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.key import LABEL, KeyTag, content_key
from dtkpipe.values.run import RunCard
from tests.fixtures.faults import Answer, Exchange, Proxy, on, proxied
from tests.fixtures.images import file, layer, push_image
from tests.fixtures.registry import LoopbackRegistry, running_registry

pytestmark = pytest.mark.tools

KERNEL = Kernel("5.14.0-1.el9.aarch64+64k")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TAG = "5.14.0-1.el9.aarch64_64k"


@pytest.fixture
def client(registry: LoopbackRegistry) -> Registry:
    return registry.client


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return "publish/" + hashlib.sha256(request.node.name.encode()).hexdigest()[:16]


@pytest.fixture
def candidate(registry: LoopbackRegistry, client: Registry, name: str) -> ImageRef:
    return push_image(client, registry.repo(f"{name}-staging"), [layer(file("a", name.encode()))], tag="run-1-build")


class Desk:
    """Runs publish and clean, and remembers what they said."""

    def __init__(self, work: Path, host: str) -> None:
        self.work, self.host, self.said = work, host, list[str]()

    @property
    def room(self) -> Room:
        return Room(work=self.work, cache=self.work, environ={}, say=self.said.append)

    def publish(self, image: ImageRef, to: ImageRef, **more: object) -> publish.Results:
        given: dict[str, object] = {
            "image": image, "verdict": "proven", "evidence": evidence(image), "push_to": to, "kernel": KERNEL,
            "run_name": "run-1", "commit": COMMIT, "repo": "https://host/org/kmod", "signer": "unsigned",
            "insecure_registries": (image.registry, to.registry, self.host),
        }  # fmt: skip
        return publish.run(publish.Args(**(given | more)), self.room)  # type: ignore[arg-type]

    def clean(self, staging: ImageRef, run_name: str = "run-1") -> clean.Results:
        args = clean.Args(staging=staging, run_name=run_name, insecure_registries=(staging.registry,))
        return clean.run(args, self.room)


def evidence(image: ImageRef, verdict: str = "proven", seconds: float = 1.0) -> str:
    proofs = [{"name": "vermagic", "result": "passed", "seconds": seconds}]
    return pack_evidence(
        {"schema": SCHEMA, "verdict": verdict, "image": str(image), "kernel": str(KERNEL), "proofs": proofs}
    )


@pytest.fixture
def desk(tmp_path: Path, registry: LoopbackRegistry) -> Desk:
    return Desk(tmp_path, registry.host)


def test_a_proven_image_gets_its_tags_and_what_belongs_to_it(
    registry: LoopbackRegistry, client: Registry, desk: Desk, candidate: ImageRef, name: str
) -> None:
    to = registry.repo(name)
    results = desk.publish(candidate, to.tagged("latest"))
    assert results.image_url == to.name
    assert results.image_digest == candidate.digest
    assert results.tags.split() == ["latest", f"{TAG}-0123456789ab", TAG]
    for tag in results.tags.split():
        assert client.digest(to.tagged(tag)) == candidate.digest
    image = to.at(candidate.digest)
    (card,) = client.referrers(image, publish.RUN_CARD)
    (proof,) = client.referrers(image, publish.EVIDENCE)
    (content,) = client.manifest(to.at(card.digest)).layers
    read = RunCard.from_json(client.read_blob(to, content).decode())
    assert read.inputs["commit"] == COMMIT
    assert read.inputs["image_digest"] == candidate.digest
    (content,) = client.manifest(to.at(proof.digest)).layers
    assert json.loads(client.read_blob(to, content))["verdict"] == "proven"


def test_an_image_with_a_content_key_can_be_found_by_it(
    registry: LoopbackRegistry, client: Registry, desk: Desk, name: str
) -> None:
    key = content_key(module="kmod", commit=COMMIT, kernel=KERNEL, arch=X86_64, toolkit="sha256:" + "d" * 64)
    labels = {LABEL: str(key)}
    made = push_image(client, registry.repo(f"{name}-staging"), [layer(file("a", b"keyed"))], labels=labels)
    to = registry.repo(name)
    desk.publish(made, to)
    desk.publish(made, to, signer=f"Me (sha256:{'e' * 64})")
    found = {parsed for tag in client.tags(to) if (parsed := KeyTag.parse(tag))}
    assert found == {KeyTag(key, "unsigned"), KeyTag(key, "e" * 12)}


def test_the_same_again_changes_nothing_and_says_so(
    registry: LoopbackRegistry, client: Registry, desk: Desk, candidate: ImageRef, name: str
) -> None:
    to = registry.repo(name)
    first = desk.publish(candidate, to)
    before = client.digest(to.tagged(candidate.digest.replace(":", "-")))
    desk.said.clear()
    assert desk.publish(candidate, to, run_name="run-2", evidence=evidence(candidate, seconds=9.9)) == first
    assert desk.said == [f"already published, nothing to do: {to.at(candidate.digest)}"]
    assert client.digest(to.tagged(candidate.digest.replace(":", "-"))) == before


def test_other_inputs_for_the_same_image_are_attached_beside(
    registry: LoopbackRegistry, client: Registry, desk: Desk, candidate: ImageRef, name: str
) -> None:
    to = registry.repo(name)
    desk.publish(candidate, to)
    desk.publish(candidate, to, release="4.14.38")
    assert len(client.referrers(to.at(candidate.digest), publish.RUN_CARD)) == 2


def test_a_tag_of_another_image_is_moved_and_that_is_said(
    registry: LoopbackRegistry, client: Registry, desk: Desk, candidate: ImageRef, name: str
) -> None:
    to = registry.repo(name)
    old = push_image(client, to, [layer(file("old"))], tag=TAG)
    desk.publish(candidate, to)
    assert client.digest(to.tagged(TAG)) == candidate.digest
    assert f"moved {to.tagged(TAG)}: {old.digest} -> {candidate.digest}" in desk.said


def test_a_folder_s_digest_is_a_commit_too(
    registry: LoopbackRegistry, desk: Desk, candidate: ImageRef, name: str
) -> None:
    results = desk.publish(candidate, registry.repo(name), commit="sha256:" + "ab" * 32)
    assert results.tags.split() == [f"{TAG}-{'ab' * 6}", TAG]


@pytest.mark.parametrize(
    ("more", "kind", "exit_code"),
    [
        ({"verdict": "refused: vermagic-mismatch"}, RunFailedError, 10),
        ({"verdict": ""}, RunFailedError, 10),
        ({"verdict": "proven "}, RunFailedError, 10),
        ({"evidence": "refused"}, RunFailedError, 10),
        ({"evidence": "other"}, RunFailedError, 10),
        ({"evidence": "not evidence"}, InvalidError, 6),
        ({"commit": "../../x"}, InvalidError, 6),
    ],
)
def test_anything_but_proven_publishes_nothing(
    registry: LoopbackRegistry,
    client: Registry,
    desk: Desk,
    candidate: ImageRef,
    name: str,
    more: dict[str, str],
    kind: type[DtkpipeError],
    exit_code: int,
) -> None:
    if more.get("evidence") == "refused":
        more = {"evidence": evidence(candidate, "refused")}
    if more.get("evidence") == "other":
        more = {"evidence": evidence(candidate.at("sha256:" + "0" * 64))}
    to = registry.repo(name)
    with pytest.raises(kind) as caught:
        desk.publish(candidate, to, **more)
    assert caught.value.exit_code == exit_code
    assert client.tags(to) == ()
    assert not client.exists(to.at(candidate.digest))


def test_an_image_by_tag_is_not_published(
    registry: LoopbackRegistry, desk: Desk, candidate: ImageRef, name: str
) -> None:
    with pytest.raises(InvalidError, match="by digest"):
        desk.publish(candidate.tagged("run-1-build"), registry.repo(name), evidence="")


def test_between_two_registries_the_image_is_transferred(
    registry: LoopbackRegistry, desk: Desk, candidate: ImageRef, tmp_path: Path
) -> None:
    with running_registry(tmp_path / "other") as other:
        results = desk.publish(candidate, other.repo("org/kmod"))
        assert other.client.digest(other.repo("org/kmod").tagged(TAG)) == results.image_digest
        assert len(other.client.referrers(other.repo("org/kmod").at(results.image_digest))) == 2


# Bad days: whatever request fails, no final tag may be there


@pytest.fixture
def proxy(registry: LoopbackRegistry) -> Iterator[Proxy]:
    with proxied(registry.host) as running:
        yield running


def _full(exchange: Exchange) -> bool:
    return exchange.say(Answer(507))


def _forbidden(exchange: Exchange) -> bool:
    return exchange.say(Answer(403))


@pytest.mark.parametrize("action", [_full, _forbidden])
@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("POST", "/blobs/uploads/"),
        ("PUT", "/blobs/uploads/"),
        ("PUT", "/manifests/sha256:"),
        ("PUT", "/manifests/sha256-"),
    ],
)
def test_a_publish_that_fails_half_way_leaves_no_final_tag(
    registry: LoopbackRegistry,
    client: Registry,
    desk: Desk,
    candidate: ImageRef,
    name: str,
    proxy: Proxy,
    method: str,
    part: str,
    action: Callable[[Exchange], bool],
) -> None:
    proxy.faults.append(on(method, part, action))
    with pytest.raises(DtkpipeError) as caught:
        desk.publish(candidate, ImageRef(proxy.host, name))
    assert caught.value.exit_code in (4, 7)
    assert [tag for tag in client.tags(registry.repo(name)) if not tag.startswith("sha256-")] == []
    # And the same again, on a better day, ends right.
    proxy.faults.clear()
    assert desk.publish(candidate, ImageRef(proxy.host, name)).tags.split()[-1] == TAG
    assert len(client.referrers(registry.repo(name).at(candidate.digest))) == 2


def test_tags_are_set_after_everything_is_attached(desk: Desk, candidate: ImageRef, name: str, proxy: Proxy) -> None:
    desk.publish(candidate, ImageRef(proxy.host, name))
    puts = [one.path.rpartition("/")[2] for one in proxy.requests if one.method == "PUT" and "/manifests/" in one.path]
    first_tag = puts.index(f"{TAG}-0123456789ab")
    assert puts[first_tag:] == [f"{TAG}-0123456789ab", TAG]
    assert sum(one.startswith("sha256-") for one in puts[:first_tag]) == 2


# clean


def test_clean_removes_this_run_s_candidates_and_nobody_else_s(
    registry: LoopbackRegistry, client: Registry, desk: Desk, name: str
) -> None:
    staging = registry.repo(name)
    image = push_image(client, staging, [layer(file("same"))], tag="run-1-build")
    client.tag(image, ["run-1-sign", "run-1-b-build", "run-11-build", "kernel-6.1.0-abc", "run-1"])
    assert desk.clean(staging) == clean.Results(removed="2")
    assert set(client.tags(staging)) == {"run-1-b-build", "run-11-build", "kernel-6.1.0-abc", "run-1"}
    assert client.digest(staging.tagged("run-11-build")) == image.digest
    assert desk.clean(staging) == clean.Results(removed="0")


def test_clean_leaves_what_was_published_in_the_same_repository(
    registry: LoopbackRegistry, client: Registry, desk: Desk, name: str
) -> None:
    repo = registry.repo(name)
    image = push_image(client, repo, [layer(file("x", name.encode()))], tag="run-1-sign")
    desk.publish(image, repo)
    assert desk.clean(repo).removed == "1"
    assert client.digest(repo.tagged(TAG)) == image.digest
    assert len(client.referrers(image)) == 2


def test_a_registry_that_cannot_delete_is_said_and_no_failure(desk: Desk, tmp_path: Path) -> None:
    with running_registry(tmp_path / "fixed", delete=False) as fixed:
        image = push_image(fixed.client, fixed.repo("s"), [layer()], tag="run-1-build")
        results = desk.clean(fixed.repo("s"))
        assert "does not delete" in results.removed
        assert any("stay" in line for line in desk.said)
        assert fixed.client.digest(fixed.repo("s").tagged("run-1-build")) == image.digest


def test_a_registry_that_is_down_does_not_fail_clean(desk: Desk, proxy: Proxy, name: str) -> None:
    proxy.faults.append(on("GET", "/tags/", lambda one: one.say(Answer(500))))
    assert "fails" in desk.clean(ImageRef(proxy.host, name)).removed


def test_a_dropped_registry_is_unreachable_for_publish(
    desk: Desk, candidate: ImageRef, proxy: Proxy, name: str
) -> None:
    proxy.faults.append(on("GET", "/manifests/", lambda one: one.say(Answer(500))))
    with pytest.raises(UnreachableError):
        desk.publish(ImageRef(proxy.host, candidate.repository, digest=candidate.digest), ImageRef(proxy.host, name))
