"""What follows from what the user gave, and what is missing."""

import pytest

from dtkpipe.app.params import complete, known
from dtkpipe.app.pipelines import load
from dtkpipe.errors import InvalidError, UsageError
from dtkpipe.model import InputRef, Param, ParamRef, Pipeline, container

KMOD = load("kmod")
GIVEN = {"repo": "https://git.example/kmod", "push-to": "registry.example:5000/org/kmod:v1"}


def test_candidates_and_toolkits_go_beside_the_image() -> None:
    params = complete(KMOD, GIVEN)
    assert params["staging"] == "registry.example:5000/org/kmod-staging"
    assert params["toolkit-repo"] == "registry.example:5000/org/kmod-toolkits"
    assert complete(KMOD, {**GIVEN, "staging": "a.example/b"})["staging"] == "a.example/b"


def test_the_order_is_the_pipelines() -> None:
    order = [param.name for param in KMOD.params]
    assert list(known(KMOD, dict(reversed(GIVEN.items())))) == sorted(GIVEN, key=order.index)


def test_everything_missing_is_told_at_once() -> None:
    with pytest.raises(UsageError, match="needs `repo`, `push-to`"):
        complete(KMOD, {})
    with pytest.raises(UsageError, match="needs `repo`") as caught:
        complete(KMOD, {"push-to": "a.example/b"})
    assert len(caught.value.details) == 1
    with pytest.raises(UsageError, match="needs `push-to`"):
        complete(KMOD, {"repo": "x", "push-to": ""})


def test_unknown_names() -> None:
    with pytest.raises(UsageError) as caught:
        known(KMOD, {"relase": "x"})
    assert caught.value.hint == "did you mean `release`?"
    with pytest.raises(InvalidError):
        complete(KMOD, {**GIVEN, "push-to": "not a reference"})


def test_a_pipeline_without_images_needs_none() -> None:
    task = container(
        "one", image="a.example/b:1", argv=["x", "--", InputRef("v")], inputs={"v": ParamRef("v")},
        params=[Param(name="v", description="")],
    )  # fmt: skip
    assert complete(Pipeline("own", "", [task]), {"v": "1"}) == {"v": "1"}
