"""What engines say of runs becomes the run card: held against objects of real runs (tests/fixtures/engines)."""

from __future__ import annotations

import base64
import copy
import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.engines.argo import status as argo
from dtkpipe.engines.pods import seconds, trouble
from dtkpipe.engines.tekton import status as tekton
from dtkpipe.errors import UnsupportedError
from dtkpipe.values.run import CANCELLED, FAILED, OUT_OF_TIME, PENDING, RUNNING, SUCCEEDED, RunCard

SEEN = Path(__file__).resolve().parents[1] / "fixtures/engines"
ENGINES = ("argo", "tekton")
CASES = sorted((path.parent.name, path.stem) for path in SEEN.glob("*/*.json"))


def seen(engine: str, case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SEEN / engine / f"{case}.json").read_text())
    return found


def card(engine: str, case: str, *, bare: bool = False) -> RunCard:
    one = seen(engine, case)
    pods, events = ((), ()) if bare else (one["pods"], one["events"])
    if engine == "argo":
        return argo.card(one["run"], pods, events)
    return tekton.card(one["run"], one["taskRuns"], pods, events)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_went_well(engine: str) -> None:
    run = card(engine, "good")
    assert (run.engine, run.namespace, run.pipeline, run.state, run.cause) == (
        engine,
        "dev-runs",
        "tiny",
        SUCCEEDED,
        "",
    )
    assert (run.exit_code, run.inputs) == (0, {"mode": "good"})
    assert [(step.name, step.state, step.exit_code) for step in run.steps] == [
        (name, SUCCEEDED, 0) for name in ("first", "second", "third", "last")
    ]
    assert run.result("first", "WORD") == "hello"
    assert run.result("second", "ANSWER") == "bye"
    assert 0 < run.created <= run.started < run.finished
    for step in run.steps:
        assert run.created <= step.queued <= step.started <= step.finished <= run.finished
        assert step.pod.startswith(f"{run.name}-{step.name}")


def test_both_engines_tell_the_same() -> None:
    def bare(run: RunCard) -> RunCard:
        steps = tuple(
            dataclasses.replace(step, queued=0, started=0, finished=0, pod="", attempts=()) for step in run.steps
        )
        return dataclasses.replace(run, name="", engine="", created=0, started=0, finished=0, steps=steps)

    assert bare(card("argo", "good")) == bare(card("tekton", "good"))


@pytest.mark.parametrize(
    ("case", "task", "exit_code", "cause"),
    [
        ("fail", "second", 10, "it broke on purpose"),
        ("unreachable", "second", 7, "registry r does not answer"),
        ("slow", "second", OUT_OF_TIME, "did not end within its time"),
        ("oom", "second", 10, "out of memory: it may use 32Mi"),
        ("kill", "second", 10, {"argo": "was killed (SIGKILL)", "tekton": "was killed, or ended with exit code 255"}),
        ("pull", "only", {"argo": OUT_OF_TIME, "tekton": 10}, "image registry.example/no/such:1 cannot be pulled: "),
        ("secret", "only", OUT_OF_TIME, 'its pod cannot start: MountVolume.SetUp failed for volume "secret-api"'),
        ("late", "only", OUT_OF_TIME, "did not end within its time"),
        ("account", "only", 10, "the namespace has no service account `no-such-account`"),
        ("deleted", "only", 10, {"argo": "its pod was deleted", "tekton": "was killed, or ended with exit code 255"}),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_failed(engine: str, case: str, task: str, exit_code: Any, cause: Any) -> None:
    run = card(engine, case)
    told = cause[engine] if isinstance(cause, dict) else cause
    assert run.state == FAILED
    assert told in run.cause
    assert run.cause.startswith(f"{task}: ")
    assert run.exit_code == (exit_code[engine] if isinstance(exit_code, dict) else exit_code)
    step = next(step for step in run.steps if step.name == task)
    assert step.state == FAILED
    assert told in step.cause
    assert "CAUSE" not in step.results


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_task_says_itself_is_the_cause_and_the_hint(engine: str) -> None:
    run = card(engine, "fail")
    second, third, last = run.steps[1:]
    assert (second.cause, second.hint) == ("it broke on purpose", "do not do that")
    assert (run.cause, run.hint) == ("second: it broke on purpose", "do not do that")
    assert (third.state, third.cause) == (PENDING, "")
    assert last.state == SUCCEEDED


@pytest.mark.parametrize("engine", ENGINES)
def test_every_try_has_its_pod_and_its_cause(engine: str) -> None:
    run = card(engine, "unreachable")
    tries = run.steps[1].attempts
    assert [(one.state, one.exit_code, one.cause) for one in tries] == [(FAILED, 7, "registry r does not answer")] * 2
    assert tries[0].pod != tries[1].pod == run.steps[1].pod
    assert {one.pod for one in tries} <= {pod["metadata"]["name"] for pod in seen(engine, "unreachable")["pods"]}
    assert tries[0].finished <= tries[1].queued <= tries[1].started


def test_a_task_that_succeeds_when_it_is_repeated_has_succeeded() -> None:
    second = card("tekton", "flaky").steps[1]
    assert (second.state, second.cause, [one.state for one in second.attempts]) == (SUCCEEDED, "", [FAILED, SUCCEEDED])
    assert second.results == {"ANSWER": "bye"}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_was_cancelled(engine: str) -> None:
    run = card(engine, "cancel")
    assert (run.state, run.exit_code, run.cause) == (CANCELLED, 11, "somebody cancelled it")
    assert run.steps[0].state == CANCELLED


@pytest.mark.parametrize(
    ("engine", "case", "cause"),
    [
        ("argo", "missing", "the namespace has no WorkflowTemplate `wait`"),
        ("tekton", "missing", "the namespace has no Pipeline `wait`"),
        ("tekton", "no-task", "the namespace has no Task `no-such-task`"),
    ],
)
def test_a_run_that_never_began(engine: str, case: str, cause: str) -> None:
    run = card(engine, case)
    assert (run.state, run.exit_code, run.cause) == (FAILED, 10, cause)
    assert run.hint.startswith("dtkpipe install")


@pytest.mark.parametrize(
    ("engine", "case", "cause"),
    [
        ("argo", "quota", "the namespace's quota is used up: "),
        ("tekton", "quota", "the namespace's quota is used up: "),
        ("argo", "big", "no node takes its pod: 0/2 nodes are available: 2 Insufficient cpu."),
        ("argo", "config-error", "its container cannot be started: "),
    ],
)
def test_a_task_that_waits_says_for_what(engine: str, case: str, cause: str) -> None:
    run = card(engine, case)
    assert (run.state, run.exit_code) == (RUNNING, None)
    assert (run.steps[0].state, run.steps[0].started) == (PENDING, 0)
    assert run.steps[0].cause.startswith(cause)


@pytest.mark.parametrize(("engine", "case"), CASES)
def test_cards_are_whole_without_pods_too(engine: str, case: str) -> None:
    full, bare = card(engine, case), card(engine, case, bare=True)
    assert RunCard.from_json(full.to_json()) == full
    assert (bare.state, bare.exit_code, bare.finished) == (full.state, full.exit_code, full.finished)
    assert [(step.name, step.state, step.pod) for step in bare.steps] == [
        (step.name, step.state, step.pod) for step in full.steps
    ]


def test_pods_are_found_by_their_names() -> None:
    run = card("argo", "good", bare=True)
    assert {step.pod for step in run.steps} == {pod["metadata"]["name"] for pod in seen("argo", "good")["pods"]}


def test_compressed_nodes_are_read() -> None:
    run = seen("argo", "good")["run"]
    packed = copy.deepcopy(run)
    nodes = json.dumps(packed["status"].pop("nodes")).encode()
    packed["status"]["compressedNodes"] = base64.b64encode(gzip.compress(nodes)).decode()
    assert argo.card(packed) == argo.card(run)


def test_nodes_in_a_database_are_out_of_reach() -> None:
    run = seen("argo", "good")["run"]
    del run["status"]["nodes"]
    run["status"]["offloadNodeStatusVersion"] = "fnv:1"
    with pytest.raises(UnsupportedError, match="kept in Argo's database"):
        argo.card(run)


def test_a_memoized_task_is_reused() -> None:
    run = seen("argo", "good")["run"]
    node = next(node for node in run["status"]["nodes"].values() if node["displayName"] == "first")
    node["memoizationStatus"] = {"hit": True, "key": "k", "cacheName": "c"}
    assert argo.card(run).steps[0].reused


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_nobody_took_up_yet_is_pending(engine: str) -> None:
    run = seen(engine, "good")["run"]
    del run["status"]
    found = argo.card(run) if engine == "argo" else tekton.card(run)
    assert (found.state, found.exit_code, found.steps) == (PENDING, None, ())


IMAGE = f"a/b@sha256:{'0' * 64}"
DENIED = (
    f'Back-off pulling image "{IMAGE}": ErrImagePull: failed to pull and unpack image "{IMAGE}": '
    f'failed to resolve reference "{IMAGE}": pulling from host a failed with status code: 401 Unauthorized'
)
"""Longer than a cause may be, and what counts is at its end."""


def contained(kind: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{kind}Statuses": [{"name": "main", "image": "a/b:1", "state": state}]}


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (
            {"reason": "Evicted", "message": "low on memory."},
            "its pod was taken off its node (Evicted): low on memory.",
        ),
        ({"reason": "NodeLost"}, "its pod was taken off its node (NodeLost)"),
        ({"conditions": [{"reason": "Unschedulable", "message": "0/1 nodes"}]}, "no node takes its pod: 0/1 nodes"),
        (contained("container", {"waiting": {"reason": "ErrImagePull"}}), "image a/b:1 cannot be pulled: ErrImagePull"),
        (
            contained("container", {"waiting": {"reason": "ImagePullBackOff", "message": DENIED}}),
            f"image {IMAGE} cannot be pulled: pulling from host a failed with status code: 401 Unauthorized",
        ),
        (contained("initContainer", {"terminated": {"reason": "OOMKilled"}}), "out of memory"),
        (contained("container", {"terminated": {"reason": "Error", "exitCode": 1}}), ""),
        ({}, ""),
    ],
)
def test_troubles_of_pods(status: dict[str, Any], cause: str) -> None:
    assert trouble({"metadata": {"name": "p"}, "status": status}).cause == cause


@pytest.mark.parametrize(("text", "value"), [("1970-01-01T00:01:00Z", 60), ("", 0), (None, 0), ("soon", 0)])
def test_times_of_the_api(text: Any, value: float) -> None:
    assert seconds(text) == value
