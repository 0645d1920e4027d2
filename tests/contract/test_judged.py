"""What we render is what the engines take: their CRDs' schemas, and their own validators."""

import json
from functools import cache
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from dtkpipe.engines.dump import dump
from dtkpipe.engines.rendered import Form
from tests.contract.compiled import ENGINES, PIPELINES, objects
from tests.golden import HERE as GOLDEN
from tests.validators import judge, source

CRDS = {
    "argo": "manifests/base/crds/full/argoproj.io_{}s.yaml",
    "tekton": "config/300-crds/300-{}.yaml",
}


@cache
def validator(engine: str, kind: str, version: str = "newest") -> Draft202012Validator:
    """The schema of a kind, strict: a field that it does not name is an error, as in `kubectl apply`."""
    text = (source(engine, version) / CRDS[engine].format(kind.lower())).read_text()
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Argo's CRDs have 60,000 lines
    versions = next(one for one in yaml.load_all(text, Loader=fast) if one)["spec"]["versions"]
    schema = next(one for one in versions if one["name"] in ("v1", "v1alpha1"))["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}
    return Draft202012Validator(_strict(schema))


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    is_object = isinstance(made.get("properties"), dict) and "type" in made
    if is_object and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if made.pop("x-kubernetes-int-or-string", None):
        made["type"] = ["integer", "string"]
    return made


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("version", ["newest", "oldest"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_schema_of_the_crd_holds(engine: str, version: str, name: str, form: Form) -> None:
    for one in objects(engine, name, form):
        problems = [
            f"{'.'.join(map(str, problem.path))}: {problem.message[:200]}"
            for problem in validator(engine, one["kind"], version).iter_errors(one)
        ]
        assert not problems


@pytest.mark.parametrize(("engine", "field"), [("argo", "templates"), ("tekton", "steps")])
def test_the_schema_finds_a_field_that_does_not_exist(engine: str, field: str) -> None:
    one = json.loads(json.dumps(objects(engine, "kmod")[0]))
    one["spec"][field][0]["bogus"] = "x"
    assert list(validator(engine, one["kind"]).iter_errors(one))


def streams(engine: str) -> list[tuple[str, str]]:
    """Everything we render, as users get it: a run of Argo's together with the template it refers to."""
    found = []
    for name in PIPELINES:
        for form in Form:
            documents = list(objects(engine, name, form))
            if engine == "argo" and form is Form.RUN:
                documents = [*objects(engine, name), *documents]
            found.append((f"{name} {form.value}", dump(documents)))
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_the_engines_validator_takes_it(engine: str) -> None:
    names, texts = zip(*streams(engine), strict=True)
    problems = {name: answer for name, answer in zip(names, judge(engine, texts), strict=True) if answer}
    assert not problems


def broken(engine: str) -> dict[str, Any]:
    """Documents with one mistake each, which schemas do not see."""
    text = dump(objects(engine, "prebuild"))
    if engine == "argo":
        return {
            "unresolved reference": text.replace("{{tasks.resolve.outputs.parameters.KERNEL}}", "{{tasks.x.y}}"),
            "result that is not declared": text.replace("parameters.KERNEL}}", "parameters.KERNELS}}"),
            "target that is no task": text.replace('target: "resolve', 'target: "resolved'),
            "cycle": text.replace("depends: resolve.Succeeded", "depends: publish.Succeeded"),
            "unknown field": text.replace("failFast: false", "failSlow: true"),
        }
    return {
        "unresolved reference": text.replace("$(tasks.resolve.results.KERNEL)", "$(tasks.x.results.KERNEL)"),
        "parameter that is not declared": text.replace("$(params.kernel)", "$(params.kernels)"),
        "cycle": text.replace("runAfter:\n    - resolve\n", "runAfter:\n    - publish\n"),
        "unknown field": text.replace("runAfter:", "runBefore:"),
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_the_engines_validator_finds_mistakes(engine: str) -> None:
    good = dump(objects(engine, "prebuild"))
    cases = broken(engine)
    assert all(text != good for text in cases.values())
    answers = judge(engine, list(cases.values()))
    unseen = [name for name, answer in zip(cases, answers, strict=True) if not answer]
    assert not unseen


def test_argo_asks_for_what_has_no_default() -> None:
    (run,) = objects("argo", "kmod", Form.RUN)
    run = {**run, "spec": {**run["spec"], "arguments": {"parameters": []}}}
    (answer,) = judge("argo", [dump([*objects("argo", "kmod"), run])])
    assert answer


def test_a_run_that_pipelines_as_code_starts() -> None:
    text = (GOLDEN / "trigger" / "pipelines-as-code.yaml").read_text()
    (one,) = yaml.safe_load_all(text)
    assert not list(validator("tekton", one["kind"]).iter_errors(one))
    assert judge("tekton", [text]) == [[]]
