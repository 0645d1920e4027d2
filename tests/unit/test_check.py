"""Every problem of a pipeline is found, all at once, each with its place."""

from collections.abc import Sequence

import pytest

from dtkpipe.errors import InvalidError
from dtkpipe.model import (
    InputRef,
    Joined,
    ParamRef,
    Pipeline,
    ResultPath,
    ResultRef,
    RunName,
    Secret,
    SecretPath,
    StatusRef,
    Task,
    container,
    param,
)
from dtkpipe.model.check import check, problems

IMAGE = "registry.example/org/tool:1"
VALUE = InputRef("value")


def task(name: str = "one", argv: Sequence[object] = ("tool", Joined(("--value=", VALUE))), **more: object) -> Task:
    given = {"image": IMAGE, "inputs": {"value": "x"}, **more}
    return container(name, argv=argv, **given)  # type: ignore[arg-type]


def said(*tasks: Task, finally_: Sequence[Task] = (), name: str = "mine") -> list[str]:
    return [str(problem) for problem in problems(Pipeline(name, "", tasks, finally_))]


def test_a_good_pipeline_has_none() -> None:
    declared, value = param("level", "How much", default="1")
    first = task(results={"OUT": "what came out"}, argv=["tool", Joined(("--x=", VALUE)), ResultPath("OUT")])
    second = task("two", inputs={"value": first.out}, after=[first])
    third = task("three", inputs={"value": value}, params=[declared], env={"NAME": RunName()})
    assert not said(first, second, third, finally_=[task("last", inputs={"value": first.status})])


GIVES = task("gives", results={"OUT": ""}, argv=["tool", Joined(("--x=", VALUE)), ResultPath("OUT")])
SECRET = Secret(name="key", param="key-secret", files=("pem",))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (task("One"), "task One: a name is lower-case letters"),
        (task("x" * 60), "names of pipeline and task together"),
        (task(argv=[], inputs={}), "argv is empty"),
        (task(argv=[VALUE]), "the command (argv[0]) is a value of the run"),
        (task(inputs={"value": ParamRef("nope")}), "input value: parameter `nope` is not declared"),
        (task(inputs={"value": ResultRef("nope", "OUT")}), "needs task `nope`, which is not among"),
        (task(inputs={"value": ResultRef("gives", "NOPE")}), "task `gives` has no result `NOPE`"),
        (task(inputs={"value": StatusRef("gives")}), "can be read by finally tasks only"),
        (task(inputs={"value": InputRef("value")}), "belongs into a program's argv or env"),  # type: ignore[dict-item]
        (task(inputs={"value": "x", "idle": "y"}), "input `idle` is read by nothing"),
        (task(inputs={"value": "x", "dtkpipe-x": "y"}), "names that begin with `dtkpipe-` are taken"),
        (task(argv=["tool", Joined(("--x=", InputRef("y")))], inputs={}), "`y` is not among the task's inputs"),
        (task(argv=["tool", ResultPath("Y"), "--", VALUE]), "`Y` is not among the task's results"),
        (task(argv=["tool", SecretPath("key", "pem"), "--", VALUE]), "`key` is not among the task's secrets"),
        (task(argv=["tool", ParamRef("x"), "--", VALUE]), "must come in as an input"),
        (task(argv=["tool", VALUE]), "argument 1: a value that begins with `-` would be read as an option"),
        (task(secrets=[SECRET]), "secret `key` names parameter `key-secret`, which is not declared"),
        (task(results={"not a name": ""}), "`not a name` cannot be the name of a result"),
        (task(env={"1X": "y"}), "`1X` cannot be the name of a environment variable"),
        (task(timeout=0), "timeout is at least one second"),
        (task(image="tool"), "`tool` is not an image reference"),
        (task(image="registry.example/org/tool"), "can be another one tomorrow"),
        (task(image="registry.example/org/tool:latest"), "can be another one tomorrow"),
        (task(argv=["tool", "$(params.x)", "--", VALUE]), "argument 1: holds `$(`"),
        (task(env={"X": "{{x}}"}), "variable X: holds `{{`"),
        (task(description="a {{x}}"), "task one: holds `{{`"),
        (task(argv=["tool", Joined(("--x=$", VALUE))]), "`$` before a value"),
        (task(argv=["tool", Joined(("--x=", VALUE, "(y)"))]), "`(` behind a value"),
        (task(argv=["tool", Joined(("--x=", VALUE, VALUE))]), "two values touch each other"),
        (task(argv=["sh", "-c", Joined(("echo ", VALUE))]), "argument 2: a value inside the text of a script"),
        (task(argv=["/bin/bash", "-euc", Joined(("echo ", VALUE))]), "a value inside the text of a script"),
        (task(argv=["busybox", "sh", "-c", VALUE]), "a value inside the text of a script"),
        (task(argv=["python3.11", "-c", Joined(("print(", VALUE, ")"))]), "a value inside the text of a script"),
        (task(argv=["env", "A=1", "sh", "-c", Joined(("x ", VALUE))]), "a value inside the text of a script"),
    ],
)  # fmt: skip
def test_each_problem_is_found(wrong: Task, words: str) -> None:
    assert any(words in line for line in said(GIVES, wrong)), said(GIVES, wrong)


def test_values_beside_a_script_are_fine() -> None:
    assert not said(task(argv=["sh", "-c", 'echo "$1"', "--", VALUE]))
    assert not said(task(argv=["sh", "-c", 'echo "$TEXT"'], env={"TEXT": VALUE}))


def test_names_are_given_once() -> None:
    assert any("two tasks of this name" in line for line in said(task(), task()))


def test_a_circle_is_shown() -> None:
    first = task("one", inputs={"value": ResultRef("two", "OUT")}, results={"OUT": ""}, argv=["t", "--", VALUE])
    second = task("two", inputs={"value": ResultRef("one", "OUT")}, results={"OUT": ""}, argv=["t", "--", VALUE])
    assert any("goes in a circle: " in line and "one -> two" in line for line in said(first, second))


def test_finally_tasks_wait_for_nothing() -> None:
    uses = task("last", inputs={"value": ResultRef("gives", "OUT")})
    assert any("a finally task cannot wait for `gives`" in line for line in said(GIVES, finally_=[uses]))
    after = task("last", after=[GIVES])
    assert any("a finally task cannot wait for `gives`" in line for line in said(GIVES, finally_=[after]))
    asks = task("last", inputs={"value": StatusRef("nope")})
    assert any("reads the status of task `nope`" in line for line in said(GIVES, finally_=[asks]))


def test_two_defaults_of_one_parameter() -> None:
    one, value = param("level", "", default="1")
    two, _ = param("level", "", default="2")
    assert any(
        "disagree about the default of parameter `level`" in line
        for line in said(
            task(inputs={"value": value}, params=[one]), task("two", inputs={"value": value}, params=[two])
        )
    )


def test_lists_where_tuples_belong() -> None:
    assert any("takes tuples" in line for line in said(task(inputs={"value": Joined(["a", RunName()])})))  # type: ignore[arg-type]


def test_no_tasks_and_a_bad_name() -> None:
    assert {line.partition(": ")[2][:12] for line in said(name="Not good")} == {"a name is lo", "has no tasks"}


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        check(Pipeline("mine", "", [task("A", timeout=0), task("B", argv=[])]))
    assert caught.value.exit_code == 6
    assert len(caught.value.details) >= 4
