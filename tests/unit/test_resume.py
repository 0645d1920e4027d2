"""Runs that go on where another ended: what is taken over, and what is written in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.engines.argo import resume as argo
from dtkpipe.engines.argo import status as argo_status
from dtkpipe.engines.resume import DONE, keeps, read, written
from dtkpipe.engines.tekton import resume as tekton
from dtkpipe.engines.tekton import status as tekton_status
from dtkpipe.errors import InvalidError
from dtkpipe.values.run import SUCCEEDED

DONE_FIRST = {"first": {"WORD": "hello"}}
SEEN = Path(__file__).resolve().parents[1] / "fixtures/engines"
GRAPH = {"resolve": (), "build": ("resolve",), "sign": ("build",), "verify": ("sign", "build"), "notes": ()}


def workflow() -> dict[str, Any]:
    """A Workflow of an installed template, as `render` makes one."""
    depends = "(first.Succeeded || first.Failed) && (second.Succeeded || second.Failed)"
    tasks = [
        {"name": "first", "template": "first", "arguments": {}},
        {
            "name": "second", "template": "second", "depends": "first.Succeeded",
            "arguments": {"parameters": [{"name": "word", "value": "<{{tasks.first.outputs.parameters.WORD}}>"}]},
        },
        {
            "name": "last", "template": "last", "depends": depends,
            "arguments": {"parameters": [{"name": "how", "value": "{{tasks.first.status}} {{tasks.second.status}}"}]},
        },
    ]  # fmt: skip
    stored = {
        "entrypoint": "pipeline", "serviceAccountName": "dtkpipe-task", "workflowTemplateRef": {"name": "tiny"},
        "shutdown": "Stop",
        "arguments": {"parameters": [{"name": "mode", "value": "good"}, {"name": "more", "value": "x"}]},
        "templates": [{"name": "pipeline", "dag": {"target": "first second last", "tasks": tasks}}, {"name": "first"}],
    }  # fmt: skip
    spec = {
        "workflowTemplateRef": {"name": "tiny"}, "shutdown": "Stop",
        "arguments": {"parameters": [{"name": "mode", "value": "fail"}]},
    }  # fmt: skip
    return {"metadata": {"name": "one"}, "spec": spec, "status": {"storedWorkflowTemplateSpec": stored}}


def pipeline_run() -> dict[str, Any]:
    """A PipelineRun of an installed Pipeline, as `render` makes one."""
    pipeline = {
        "tasks": [
            {"name": "first", "taskRef": {"name": "tiny-first"}},
            {
                "name": "second", "taskRef": {"name": "tiny-second"}, "runAfter": ["first"],
                "params": [{"name": "word", "value": "<$(tasks.first.results.WORD)>"}],
            },
        ],
        "finally": [
            {
                "name": "last", "taskRef": {"name": "tiny-last"},
                "params": [{"name": "how", "value": "$(tasks.first.status) $(tasks.second.status)"}],
            }
        ],
        "results": [{"name": "WORD", "value": "$(tasks.first.results.WORD)"}],
    }  # fmt: skip
    spec = {
        "pipelineRef": {"name": "tiny"}, "status": "CancelledRunFinally", "params": [{"name": "mode", "value": "fail"}],
        "taskRunSpecs": [{"pipelineTaskName": "first"}, {"pipelineTaskName": "second"}],
    }  # fmt: skip
    return {"metadata": {"name": "one"}, "spec": spec, "status": {"pipelineSpec": pipeline}}


def test_a_fresh_spec_is_what_was_submitted() -> None:
    assert argo.fresh(workflow()) == {
        "workflowTemplateRef": {"name": "tiny"},
        "arguments": {"parameters": [{"name": "mode", "value": "fail"}]},
    }
    assert "status" not in tekton.fresh(pipeline_run())


def test_tasks_that_always_run_are_not_taken_over() -> None:
    assert argo.graph(workflow()) == tekton.graph(pipeline_run()) == {"first": (), "second": ("first",)}


def test_argo_goes_on() -> None:
    spec = argo.resumed(workflow(), DONE_FIRST)
    assert "workflowTemplateRef" not in spec
    assert "shutdown" not in spec
    assert [one["value"] for one in spec["arguments"]["parameters"]] == ["fail", "x"]
    dag = spec["templates"][0]["dag"]
    assert dag["target"] == "second last"
    second, last = dag["tasks"]
    assert second == {
        "name": "second",
        "template": "second",
        "arguments": {"parameters": [{"name": "word", "value": "<hello>"}]},
    }
    assert last["depends"] == "(second.Succeeded || second.Failed)"
    assert last["arguments"]["parameters"][0]["value"] == "Succeeded {{tasks.second.status}}"


def test_tekton_goes_on() -> None:
    spec = tekton.resumed(pipeline_run(), DONE_FIRST)
    assert "pipelineRef" not in spec
    assert "status" not in spec
    assert spec["taskRunSpecs"] == [{"pipelineTaskName": "second"}]
    pipeline = spec["pipelineSpec"]
    assert pipeline["tasks"] == [
        {"name": "second", "taskRef": {"name": "tiny-second"}, "params": [{"name": "word", "value": "<hello>"}]}
    ]
    assert pipeline["finally"][0]["params"][0]["value"] == "Succeeded $(tasks.second.status)"
    assert "results" not in pipeline


@pytest.mark.parametrize("result", ["{{workflow.name}}", "$(context.pipelineRun.name)"])
def test_a_result_is_data_and_never_an_engines_variable(result: str) -> None:
    done = {"first": {"WORD": result}}
    for resumed in (lambda: argo.resumed(workflow(), done), lambda: tekton.resumed(pipeline_run(), done)):
        with pytest.raises(InvalidError, match="cannot be resumed"):
            resumed()


@pytest.mark.parametrize(
    ("done", "lost", "kept"),
    [
        (["resolve", "build", "sign"], [], ["resolve", "build", "sign"]),
        (["resolve", "build", "sign"], ["build"], ["resolve"]),
        (["resolve", "build", "sign", "notes"], ["sign"], ["resolve", "build", "notes"]),
        (["sign"], [], []),
        ([], [], []),
    ],
)
def test_behind_a_task_that_runs_nothing_is_taken_over(done: list[str], lost: list[str], kept: list[str]) -> None:
    found = keeps(GRAPH, {name: {} for name in done}, set(lost))
    assert sorted(found) == sorted(kept)


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_what_was_taken_over_is_on_the_card(engine: str) -> None:
    one = json.loads((SEEN / engine / "good.json").read_text())
    one["run"]["metadata"].setdefault("annotations", {})[DONE] = written({"zeroth": {"KERNEL": "6.1"}})
    card = argo_status.card(one["run"]) if engine == "argo" else tekton_status.card(one["run"], one["taskRuns"])
    assert (card.steps[0].name, card.steps[0].state, card.steps[0].reused) == ("zeroth", SUCCEEDED, True)
    assert card.result("zeroth", "KERNEL") == "6.1"


@pytest.mark.parametrize("text", ["", "x", "[]", '{"a": 1}'])
def test_an_annotation_that_is_none_counts_as_none(text: str) -> None:
    assert read(text) == {}
