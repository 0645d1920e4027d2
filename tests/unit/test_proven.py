"""Hera loses fields without a word; here that ends in an error that names the field."""

import copy
from typing import Any

import pytest

from dtkpipe.engines.argo.proven import LostFieldError, proven_object, proven_template

TEMPLATE: dict[str, Any] = {
    "name": "one",
    "container": {"image": "a.example/b:1", "command": ["x"], "securityContext": {"runAsNonRoot": True}},
    "retryStrategy": {"limit": "2"},
}
WORKFLOW: dict[str, Any] = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Workflow",
    "metadata": {"generateName": "own-"},
    "spec": {"entrypoint": "one", "arguments": {"parameters": [{"name": "ref", "value": ""}]}},
}


def changed(asked: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(asked)
    where = made
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    return made


def test_what_is_asked_comes_back_in_its_order() -> None:
    assert proven_template(TEMPLATE) is TEMPLATE
    assert list(proven_object(WORKFLOW)) == ["apiVersion", "kind", "metadata", "spec"]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("bogus",), "x", "bogus: asked for 'x', got 'nothing'"),
        (("container", "securityContext", "runAsNonRooot"), True, "container.securityContext.runAsNonRooot"),
        (("synchronization",), {"mutex": {"name": "x"}}, "synchronization.mutex"),  # the spelling of Argo 3
        (("container", "command"), "x", "container.command"),
        (("retryStrategy", "limit"), None, "retryStrategy"),
    ],
)
def test_what_would_be_lost_is_an_error(path: tuple[str, ...], value: Any, words: str) -> None:
    with pytest.raises(LostFieldError) as caught:
        proven_template(changed(TEMPLATE, *path, value=value))
    assert words in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "bogus"), "x"),
        (("spec", "parallelism"), "lots"),
        (("metadata", "labelz"), {"a": "b"}),
        (("spec", "arguments", "parameters", 0, "bogus"), "x"),
    ],
)
def test_of_whole_objects_too(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(LostFieldError):
        proven_object(changed(WORKFLOW, *path, value=value))
