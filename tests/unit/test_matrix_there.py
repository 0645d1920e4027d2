"""Cells on a cluster: which run a planner makes or joins, and what it takes its end for. The cluster is a stub."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.app.clusters import ARGO
from dtkpipe.app.clusters import Place as Namespace
from dtkpipe.app.matrix.outcome import Ended
from dtkpipe.app.matrix.plan import Asked, Place, Request
from dtkpipe.app.matrix.there import There
from dtkpipe.clients.cluster import WORKFLOW_TEMPLATES, WORKFLOWS, Object, Resource
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import ExistsError, RunUnknownError, UnreachableError
from dtkpipe.matrix.modules import MatrixModule
from dtkpipe.matrix.plan import Known, Planned
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.arch import X86_64
from dtkpipe.values.cell import Cell, State, Target
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.module import ModuleSpec
from dtkpipe.values.source import GIT, Source
from tests.fixtures.tiny import write_tiny

COMMIT = "1" * 40
OLD = "2020-01-01T00:00:00Z"


@dataclass
class Words:
    """A cluster that remembers what it is told, and nothing else."""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    watches: list[queue.Queue[tuple[str, Object]]] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    patched: list[Any] = field(default_factory=list)
    silent: int = 0
    """Requests to create that get no answer from now on."""
    host: str = "https://cluster"
    namespace: str = "here"

    def be_patient(self, seconds: float) -> None: ...

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        if resource == WORKFLOW_TEMPLATES:
            return {"metadata": {"name": name}}
        return self.objects.get((resource.plural, name))

    def list(self, resource: Resource, namespace: str = "", **_: object) -> list[Object]:
        return [one for (plural, _), one in self.objects.items() if plural == resource.plural]

    def create(self, resource: Resource, obj: Object, namespace: str = "", *, dry_run: bool = False) -> Object:
        if self.silent:
            self.silent -= 1
            raise UnreachableError("nobody there")
        name = obj["metadata"]["name"]
        if (resource.plural, name) in self.objects:
            raise ExistsError("there")
        own = {"uid": f"uid-{name}", "resourceVersion": "1", "creationTimestamp": OLD}
        made = {**obj, "metadata": {**obj["metadata"], **own}}
        self.objects[resource.plural, name] = made
        if resource == WORKFLOWS:
            self.created.append(name)
        return made

    def patch(self, resource: Resource, name: str, namespace: str, merge: Any, **_: object) -> Object:
        self.patched.append((resource.plural, merge))
        return self.objects[resource.plural, name]

    def replace(self, resource: Resource, obj: Object, namespace: str = "", **_: object) -> Object:
        self.objects[resource.plural, obj["metadata"]["name"]] = obj
        return obj

    def watch(self, resource: Resource, namespace: str = "", **_: object) -> Iterator[tuple[str, Object]]:
        mine: queue.Queue[tuple[str, Object]] = queue.Queue()
        self.watches.append(mine)
        for one in self.list(resource):
            yield "ADDED", one
        while True:
            yield mine.get()

    def tell(self, kind: str, one: Object) -> None:
        for watch in self.watches:
            watch.put((kind, one))

    def end(self, name: str, phase: str, code: int | None = None, cause: str = "", when: str = OLD) -> None:
        """Let a run end; with a code, in its task `resolve`."""
        given = [{"name": "CAUSE", "value": cause}]
        node = {
            "id": "n", "name": f"{name}.resolve", "displayName": "resolve", "templateName": "resolve", "type": "Pod",
            "phase": phase, "startedAt": when, "finishedAt": when, "boundaryID": name,
            "outputs": {"exitCode": str(code), "parameters": given},
        }  # fmt: skip
        run = self.objects["workflows", name]
        status = {"phase": phase, "startedAt": when, "finishedAt": when, "message": "the engine's words"}
        self.objects["workflows", name] = {
            **run, "status": {**status, "nodes": {"n": node} if code is not None else {}}
        }  # fmt: skip
        self.tell("MODIFIED", self.objects["workflows", name])

    def delete(self, name: str) -> None:
        self.tell("DELETED", self.objects.pop(("workflows", name)))


@dataclass
class Desk:
    words: Words
    file: Path
    there: There
    one: Planned
    known: Known

    def again(self, **more: Any) -> Desk:
        """Another planner."""
        return desk_at(self.words, self.file, **more)

    def run(self) -> Ended:
        with self.there.turn(self.one, self.known, patient=False) as run:
            assert run
            return run(self.one)

    def start(self) -> tuple[threading.Thread, list[Ended]]:
        ended: list[Ended] = []
        thread = threading.Thread(target=lambda: ended.append(self.run()), daemon=True)
        before = len(self.words.created)
        thread.start()
        deadline = time.monotonic() + 30
        while len(self.words.created) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        return thread, ended


def desk_at(words: Words, file: Path, **more: Any) -> Desk:
    spec = ModuleSpec.from_text("{apiVersion: dtkpipe/v1, name: mod, source: {repo: 'https://example.org/org/kmod'}}")
    source = Source(GIT, "https://example.org/org/kmod", COMMIT)
    repo = ImageRef.parse("registry.example.org/org/mod")
    known = Known(module=MatrixModule(spec=spec, source=source, file=file), repo=repo, commit=COMMIT)
    target = Target(kernel=Kernel("5.14.0-1.el9.x86_64"), arch=X86_64, release="4.16.0", serves="4.16.0")
    one = Planned(cell=Cell(module="mod", target=target), state=State.MISSING, reason="")
    request = Request(
        modules=["*"], releases="4.16", arches=[X86_64], variants=["std"], signer="unsigned",
        push_to="registry.example.org/org",
    )  # fmt: skip
    at = Place(
        registry=Registry(RegistryAccess()), push_to="registry.example.org/org",
        toolkit_repo="registry.example.org/org/toolkits", staging="registry.example.org/org/staging",
    )  # fmt: skip
    cluster: Any = words
    there = There(
        request=request, at=at, engine=ARGO, there=Namespace(cluster, "here"), here=file.parent,
        pipeline=str(file), **{"timeout": 600, **more},
    )  # fmt: skip
    there.check([one], Asked(known=(known,), targets=(target,)), lambda _line: None)
    return Desk(words, file, there, one, known)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return desk_at(Words(), write_tiny(tmp_path))


def test_two_planners_meet_at_one_run(desk: Desk) -> None:
    thread, first = desk.start()
    (name,) = desk.words.created
    second = desk.again()
    joined: list[Ended] = []
    other = threading.Thread(target=lambda: joined.append(second.run()), daemon=True)
    other.start()
    desk.words.end(name, "Failed", 10, "bad.c:7:1: error: 'gone' undeclared")
    thread.join(30)
    other.join(30)
    assert desk.words.created == [name]
    assert [one.code for one in (*first, *joined)] == [10, 10]
    assert first[0].when == joined[0].when, "one failure is one record"
    assert first[0].lines == ["bad.c:7:1: error: 'gone' undeclared"]


@pytest.mark.parametrize(
    ("phase", "code", "more", "runs"),
    [
        ("Succeeded", 0, {}, 2),  # and the registry still lacks it
        ("Failed", 10, {}, 1),  # told, and recorded by whoever comes first
        ("Failed", 10, {"retry_failed": True}, 2),
        ("Failed", 7, {}, 2),  # the registry did not answer
        ("Failed", 137, {}, 2),
        ("Failed", None, {}, 2),  # the engine could not run it
    ],
)
def test_what_an_earlier_run_tells(desk: Desk, phase: str, code: int | None, more: dict[str, bool], runs: int) -> None:
    thread, _ = desk.start()
    (name,) = desk.words.created
    desk.words.end(name, phase, code, "no luck")
    thread.join(30)
    again = desk.again(**more)
    if runs == 1:
        assert again.run().code == 10
    else:
        thread, ended = again.start()
        desk.words.end(f"{name}-2", "Failed", 10, "still no luck")
        thread.join(30)
        assert ended[0].lines == ["still no luck"]
    assert desk.words.created == [name, f"{name}-2"][:runs]


def test_what_the_cluster_did_is_no_code_of_the_cell(desk: Desk) -> None:
    thread, ended = desk.start()
    desk.words.end(desk.words.created[0], "Failed")
    thread.join(30)
    assert (ended[0].code, ended[0].lines) == (UnreachableError.exit_code, ["the engine's words"])


def test_a_cell_that_never_ends_is_ended(desk: Desk) -> None:
    late = desk.again(timeout=1)
    thread, ended = late.start()
    deadline = time.monotonic() + 30
    while not any(plural == "workflows" for plural, _ in desk.words.patched) and time.monotonic() < deadline:
        time.sleep(0.01)
    desk.words.end(desk.words.created[0], "Failed", 143)
    thread.join(30)
    assert (ended[0].code, ended[0].lines[0]) == (RunUnknownError.exit_code, "did not end within 1 s")
    assert ("workflows", ARGO.cancel) in desk.words.patched


def test_who_stops_leaves_the_run_going(desk: Desk) -> None:
    thread, ended = desk.start()
    desk.there.stop(hard=False)
    thread.join(30)
    assert ended[0].goes_on
    assert not [one for one in desk.words.patched if one[0] == "workflows"]


def test_a_run_that_somebody_deletes(desk: Desk) -> None:
    error: list[Exception] = []

    def work() -> None:
        try:
            desk.run()
        except RunUnknownError as raised:
            error.append(raised)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not desk.words.created and time.monotonic() < deadline:
        time.sleep(0.01)
    desk.words.delete(desk.words.created[0])
    thread.join(30)
    assert "was deleted" in str(error[0])


def test_a_cluster_that_does_not_answer_for_a_moment(desk: Desk) -> None:
    desk.words.silent = 1
    thread, ended = desk.start()
    desk.words.end(desk.words.created[0], "Succeeded", 0)
    thread.join(30)
    assert ended[0].code == 0
