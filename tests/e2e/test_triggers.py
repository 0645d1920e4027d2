"""`dtkpipe trigger` on a real cluster: calls as GitHub and GitLab send them, to all that receive them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from dtkpipe.engines.triggers import RECEIVERS
from dtkpipe.engines.triggers.bell import RECEIVER
from dtkpipe.engines.watching import bell_watcher_name
from dtkpipe.values.image import ImageRef
from tests.e2e.bells import BUSY, SECONDS, SECRET, Bells, post, ringing
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.webhooks import Call, push

every = pytest.mark.parametrize("receiver", list(RECEIVERS))


@pytest.fixture(scope="module")
def bells(
    cluster: Cluster, registry: LoopbackRegistry, git_server: GitServer, runner_image: ImageRef,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bells]:  # fmt: skip
    with ringing(cluster, registry, git_server, runner_image, tmp_path_factory.mktemp("triggers")) as made:
        yield made


@pytest.fixture
def hello(bells: Bells, receiver: str) -> Iterator[str]:
    """A trigger for one module, whose source is pushed to."""
    name = f"hello-{secrets.token_hex(2)}-{receiver}"  # what is late of one test must not ring in another
    bells.cells.modules(name, "hello")
    bells.create(name, receiver, name)
    yield name
    assert bells.trigger("delete", name).code == 0
    assert bell_watcher_name(receiver) not in bells.names("deployments"), "nobody needs it now"


@every
def test_a_push_is_built_and_its_doubles_are_not(bells: Bells, receiver: str, hello: str) -> None:
    call, url = push("github", bells.path).signed(SECRET), bells.url(receiver, hello)
    assert post(url, call) < 300
    assert bells.quiet(receiver, hello, rung=1) == "succeeded"
    assert len(bells.runs(receiver, hello)) == 1
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: post(url, call), range(200)))
    # Argo's server says so when the bell was on; the others, when they have more to do than they get done.
    assert {answer for answer in answers if answer >= 300} <= {500 if receiver == "argo" else BUSY}
    assert bells.quiet(receiver, hello, rung=2) == "succeeded"
    assert len(bells.runs(receiver, hello)) == 1, "the same commit is built once"
    bells.cells.commit()
    late = push("github", bells.path, number=7).signed(SECRET)
    early = push("github", bells.path, number=3).signed(SECRET)
    for one in (late, early, late):
        post(url, one)
    bells.cells.cluster.wait("the newest is built", lambda: len(bells.runs(receiver, hello)) == 2, SECONDS)
    assert bells.quiet(receiver, hello, rung=2) == "succeeded"
    assert len(bells.runs(receiver, hello)) == 2, "in whatever order calls come"
    assert len([one for one in bells.seen if one.startswith(hello)]) <= 8, "most of them found the bell on"
    tested = bells.trigger("test", hello, *(("--url", url) if receiver == "argo" else ()))
    assert (tested.code, f"trigger/{hello} rang" in tested.out) == (0, True), tested.err


@every
def test_what_may_not_ring_does_not(bells: Bells, receiver: str, hello: str) -> None:
    right, url = push("github", bells.path), bells.url(receiver, hello)
    silent = {
        "no signature": right,
        "a wrong signature": right.signed("guessed"),
        "another branch": push("github", bells.path, branch="topic"),
        "a fork": push("github", "mallory/source"),
        "a deleted branch": push("github", bells.path, deleted=True),
        "a pull request": replace(right, headers={"X-GitHub-Event": "pull_request"}),
        "an unknown event": replace(right, headers={"X-GitHub-Event": "sponsorship"}),
        "no event": replace(right, headers={}),
        "a name for a shell": push("github", bells.path, branch="$(reboot)`reboot`{{workflow.name}}$(uid)\"'"),
        "a name for a query": push("github", bells.path, branch='main" || true || "'),
        "10 MB of it": replace(push("github", bells.path, branch="topic"), padding=10_000_000),
        "nothing of a push in it": Call("github", {"ref": "refs/heads/main"}, {"X-GitHub-Event": "push"}),
        "another host's": push("gitlab", bells.path),
    }
    for what, call in silent.items():
        unsigned = what in ("no signature", "a wrong signature")
        post(url, call if unsigned else call.signed(SECRET))
    time.sleep(5)
    assert (bells.bell(receiver, hello), bells.planners(hello)) == (False, []), "something rang"
    assert post(url, right.signed(SECRET)) < 300
    bells.quiet(receiver, hello, rung=1)
    assert len(bells.planners(hello)) == 1


@pytest.mark.parametrize("receiver", ["argo", "tekton"])
def test_a_bell_waits_for_its_watcher(bells: Bells, receiver: str, hello: str) -> None:
    cluster, url = bells.cells.cluster, bells.url(receiver, hello)

    def watchers(number: int) -> None:
        what = (f"deployment/{bell_watcher_name(receiver)}", f"--replicas={number}")
        cluster.kubectl("-n", bells.cells.namespace, "scale", *what)
        pods = ("pods", "-l", f"{RECEIVER}={receiver}")
        cluster.wait(f"{number} pods", lambda: len(bells.names(*pods)) == number, SECONDS)
        cluster.wait(f"{number} watch", lambda: bells.listed(hello)["watched"] is bool(number), SECONDS)

    watchers(0)
    assert post(url, push("github", bells.path).signed(SECRET)) < 300
    cluster.wait("it rings", lambda: bells.bell(receiver, hello), SECONDS)
    assert f"/{bells.path}: nobody watches" in bells.trigger("list").out
    assert bells.planners(hello) == []
    watchers(1)
    assert bells.quiet(receiver, hello, rung=1) == "succeeded"
    assert len(bells.planners(hello)) == 1


@every
def test_a_catalogue_is_read_as_it_is_by_then(bells: Bells, receiver: str) -> None:
    name, cells = f"catalogue-{receiver}", bells.cells
    folder, path = cells.cli.here / name, f"{cells.namespace}/{name}"
    cells.modules(f"{name}/modules", "first")
    cells.git.serve(f"github.com/{path}", folder)
    own = (name, "--on", "catalog", "--repo", f"github.com/{path}", "--engine", receiver, *bells.secret(receiver))
    after = ("--modules", "modules/*", *cells.matrix(name)[2:], "--pipeline", "cell.py")
    made = bells.trigger("create", *own, "--runner-image", str(bells.runner), after=after)
    assert made.code == 0, made.err
    try:
        url, commit = bells.url(receiver, name), {"added": [], "modified": ["README.md"], "removed": []}
        readme = push("github", path, commits=[commit]).signed(SECRET)
        cells.cluster.wait("what has just begun to listen takes calls", lambda: post(url, readme) < 300, 60)
        cells.modules(f"{name}/modules", "second")
        cells.git.serve(f"github.com/{path}", folder)
        commit["added"] = ["modules/second.yaml"]
        post(url, push("github", path, commits=[commit]).signed(SECRET))
        assert bells.quiet(receiver, name, rung=1) == "succeeded"
        assert (len(bells.planners(name)), len(bells.runs(receiver, name))) == (1, 2)
        assert bells.listed(name)["on"] == "catalog"
    finally:
        assert bells.trigger("delete", name).code == 0


@pytest.mark.parametrize("receiver", ["argo", "tekton"])
def test_gitlab_rings_for_the_files_that_count(bells: Bells, receiver: str) -> None:
    name, cells = f"lab-{receiver}", bells.cells
    folder, path = cells.cli.here / name, f"{cells.namespace}/group/source"
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "Makefile").write_text("obj-m := a.o\n")
    cells.git.serve(f"gitlab.com/{path}", source)
    spec = f"apiVersion: dtkpipe/v1\nname: lab\nsource: {{repo: 'https://gitlab.com/{path}', ref: main}}\n"
    (folder / "lab.yaml").write_text(f"{spec}build: {{recipe: kbuild}}\n")
    own = (name, "--on", "push", "--repo", f"gitlab.com/{path}", "--path", "app/*", "--engine", receiver)
    after = (*cells.matrix(name), "--pipeline", "cell.py")
    made = bells.trigger("create", *own, *bells.secret(receiver), "--runner-image", str(bells.runner), after=after)
    assert made.code == 0, made.err
    try:
        url, readme = bells.url(receiver, name), {"added": [], "modified": ["README.md"], "removed": []}
        right = push("gitlab", path, total_commits_count=2)
        silent = (
            push("gitlab", path, commits=[readme], total_commits_count=1).signed(SECRET),
            push("gitlab", path, branch="topic", default="topic").signed(SECRET),
            push("gitlab", path, after="0" * 40).signed(SECRET),
            replace(right, headers={"X-Gitlab-Event": "Merge Request Hook"}).signed(SECRET),
            right.signed("guessed"),
            right,
        )
        for call in silent:
            post(url, call)
        time.sleep(5)
        assert (bells.bell(receiver, name), bells.planners(name)) == (False, []), "something rang"
        cut = push("gitlab", path, commits=[readme], total_commits_count=40)
        assert post(url, cut.signed(SECRET)) < 300, "of which not all is said"
        assert bells.quiet(receiver, name, rung=1) == "succeeded"
        assert post(url, right.signed(SECRET)) < 300
        assert bells.quiet(receiver, name, rung=2) == "succeeded"
        assert len(bells.runs(receiver, name)) == 1
    finally:
        assert bells.trigger("delete", name).code == 0
