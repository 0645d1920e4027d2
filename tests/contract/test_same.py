"""Both engines run the same: the same containers, graph, limits and rights, and the argv that the steps take."""

import json
import re
from dataclasses import replace

import pytest

from dtkpipe.app.compile import Wanted, compile_pipeline
from dtkpipe.cli.step import names
from dtkpipe.engines.rendered import Form
from dtkpipe.model import Pipeline, container
from dtkpipe.model.images import DEFAULTS
from dtkpipe.steps.contract import flag, parse_args
from dtkpipe.tasks import ALL
from tests.contract.compiled import ENGINES, KANIKO, OWN, PIPELINES, nodes, objects, pipeline

DIGEST = f"sha256:{'0' * 64}"
SAMPLES = {
    "arch": "x86_64",
    "commit": "1e5",
    "image": f"registry.example/org/kmod@{DIGEST}",
    "kernel": "6.1.0-53-cloud-amd64",
    "kernel-image": f"registry.example/org/kernel@{DIGEST}",
    "push-to": "registry.example/org/kmod",
    "run-name": "kmod-x7k2p",
    "staging": "registry.example/org/kmod-staging",
    "statuses": '["resolve=Succeeded","build=Failed"]',
    "toolkit": f"registry.example/org/toolkit@{DIGEST}",
}


@pytest.mark.parametrize("name", PIPELINES)
def test_the_same_nodes(name: str) -> None:
    argo, tekton = nodes("argo", name), nodes("tekton", name)
    assert list(argo) == list(tekton) == [task.name for task in pipeline(name).all_tasks]
    for task in argo:
        # Tekton repeats a task after any failure, so there our steps only repeat themselves.
        ours = argo[task].container["command"] == ["dtkpipe"]
        retries = 0 if ours else argo[task].retries
        assert replace(argo[task], retries=retries) == tekton[task]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PIPELINES)
def test_the_graph_is_the_models(engine: str, name: str) -> None:
    model = pipeline(name)
    for task in model.all_tasks:
        node = nodes(engine, name)[task.name]
        assert node.after == set(task.needs)
        assert node.always == (task in model.finally_)
        assert node.timeout == task.timeout
        variables = {one["name"]: one["value"] for one in node.containers[0]["env"]}
        if "DTKPIPE_RETRIES" in variables:
            assert variables["DTKPIPE_RETRIES"] == str(task.retries)
        assert node.retries == (0 if engine == "tekton" and "DTKPIPE_RETRIES" in variables else task.retries)
        assert node.declared == set(node.arguments)
        assert node.results == {one.name for one in task.results}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PIPELINES)
def test_the_steps_take_the_argv(engine: str, name: str) -> None:
    for task, node in nodes(engine, name).items():
        for each in node.containers:
            command = [*each["command"], *each["args"]]
            if command[:2] == ["dtkpipe", "step"]:
                _taken(task, command[2], command[3:], last=each is node.container)


def _taken(task: str, name: str, flags: list[str], *, last: bool) -> None:
    step = next(one for one in ALL if one.step == name)
    assert step.step in names()
    given, results = {}, set()
    for token in flags:
        name_of_flag, value = re.fullmatch(r"--([a-z-]+)=(.*)", token).groups()  # type: ignore[union-attr]
        if name_of_flag.startswith("result-"):
            results.add(name_of_flag)
            assert re.fullmatch(r"<result [A-Z_]+>", value)
            continue
        assert name_of_flag not in given, f"{task}: --{name_of_flag} twice"
        given[name_of_flag] = re.sub(r"<input ([^>]+)>", lambda found: SAMPLES.get(found[1], ""), value)
        if name_of_flag == "repo":
            given[name_of_flag] = "https://git.example/org/kmod"
        if name_of_flag == "verdict":
            given[name_of_flag] = "proven"
        if name_of_flag == "workload":
            given[name_of_flag] = "daemonset/kmod"
    parse_args(step.module.Args, given)
    fields = step.module.Results.__dataclass_fields__
    assert results == ({"result-cause", *(f"result-{flag(one)}" for one in fields)} if last else set())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("form", [Form.TEMPLATE, Form.INLINE])
def test_no_script_no_shell_no_moving_image(engine: str, name: str, form: Form) -> None:
    text = json.dumps(objects(engine, name, form))
    assert '"script"' not in text
    assert '"source"' not in text
    for task, node in nodes(engine, name).items():
        for each in node.containers:
            command = each["command"] + each["args"]
            assert not {"sh", "bash", "/bin/sh", "-c"} & set(command), task
            image = each["image"]
            assert re.search(r":[^/]+$", image), image
            assert not image.endswith(":latest")
            assert each["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PIPELINES)
def test_everything_given_is_used(engine: str, name: str) -> None:
    used = set()
    for task, node in nodes(engine, name).items():
        text = json.dumps([node.containers, node.volumes, node.nodes])
        for argument, value in node.arguments.items():
            assert f"<input {argument}>" in text, f"{task}: {argument}"
            used |= set(re.findall(r"<param ([^>]+)>", value))
        for result in node.results:
            assert f"<result {result}>" in text
    assert used == {one.name for one in pipeline(name).params}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_build_runs_where_its_toolkit_can(engine: str) -> None:
    for task, node in nodes(engine, "kmod").items():
        where = {"kubernetes.io/arch": "<input node-arch>"} if task == "build" else {}
        assert node.nodes == {"kubernetes.io/os": "linux", **where}
    assert nodes(engine, "kmod")["build"].arguments["node-arch"] == "<result resolve TOOLKIT_ARCH>"


@pytest.mark.parametrize("engine", ENGINES)
def test_rights_are_what_the_tasks_say(engine: str) -> None:
    for task, node in nodes(engine, "kmod").items():
        context = node.container["securityContext"]
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["privileged"] is False
        builds = task == "build"
        assert context["runAsNonRoot"] is not builds
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is not builds
        # The runtime's default profile forbids the user namespace that buildah works in.
        assert ("seccompProfile" in context) is not builds
        assert ("add" in context["capabilities"]) is builds
        seen = {mount["name"].removeprefix("secret-") for mount in node.container["volumeMounts"]}
        assert ("git" in seen) is builds
        sees_key = any(mount["name"] == "secret-signing-key" for mount in node.container["volumeMounts"])
        assert sees_key is (task == "sign")
    accounts = {task: node.service_account for task, node in nodes(engine, "kmod").items()}
    assert accounts.pop("build") == "dtkpipe-build"
    assert accounts.pop("deploy") == accounts.pop("rollback") == "dtkpipe-deploy"
    assert accounts.pop("smoke-test") == "dtkpipe-smoke-test"
    assert set(accounts.values()) == {"dtkpipe-task"}


BASELINE = {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
            "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}  # fmt: skip
"""What Pod Security `baseline` lets a container add: kubernetes.io/docs/concepts/security/pod-security-standards."""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PIPELINES)
def test_every_container_fits_into_a_baseline_namespace(engine: str, name: str) -> None:
    for task, node in nodes(engine, name).items():
        for each in node.containers:
            context = each["securityContext"]
            assert set(context["capabilities"].get("add", [])) <= BASELINE, task
            assert context["capabilities"]["drop"] == ["ALL"]
            assert not context["privileged"]
            assert not context["allowPrivilegeEscalation"]
            assert context.get("seccompProfile", {"type": "RuntimeDefault"}) == {"type": "RuntimeDefault"}
        assert all({"emptyDir", "secret"} & set(volume) for volume in node.volumes)


@pytest.mark.parametrize("engine", ENGINES)
def test_only_kaniko_is_root_where_it_builds(engine: str) -> None:
    node = nodes(engine, KANIKO)["build"]
    roots = [one["image"] for one in node.containers if not one["securityContext"]["runAsNonRoot"]]
    assert roots == [DEFAULTS["kaniko"]]
    prepare, kaniko, finish = node.containers
    seen = [{mount["name"] for mount in one["volumeMounts"]} for one in (prepare, kaniko)]
    assert seen == [{"workspace", "tmp", "secret-registry-auth", "secret-git"},
                    {"workspace", "tmp", "secret-registry-auth"}]  # fmt: skip
    assert all("seccompProfile" in one["securityContext"] for one in (prepare, kaniko, finish))


def test_a_run_is_the_smallest_object() -> None:
    """In Strict mode Argo takes a reference, arguments and little else of a submission."""
    (run,) = objects("argo", "kmod", Form.RUN)
    assert set(run["spec"]) == {"workflowTemplateRef", "arguments"}
    assert set(run["metadata"]) == {"generateName", "labels"}


def test_argo_decides_by_every_task() -> None:
    """Otherwise a finally task that succeeds would turn a failed run green."""
    (template,) = objects("argo", OWN)
    dag = template["spec"]["templates"][0]["dag"]
    assert dag["failFast"] is False
    assert dag["target"].split() == [task["name"] for task in dag["tasks"]]


def test_argo_retries_only_what_a_retry_can_mend() -> None:
    (template,) = objects("argo", "kmod")
    strategies = [one["retryStrategy"] for one in template["spec"]["templates"] if "retryStrategy" in one]
    assert strategies
    for strategy in strategies:
        assert strategy["expression"] == (
            "lastRetry.status == 'Error' || (lastRetry.exitCode in ['137', '143'] && "
            "!(lastRetry.message matches 'OOMKilled|deadline'))"
        )


def test_a_program_of_the_users_that_reached_nobody_is_repeated_by_argo() -> None:
    task = container("own", image="registry.example/org/own:1", argv=["own"], retries=2)
    own = Pipeline("own", "own", [task])
    (template,) = compile_pipeline(own, Wanted(engine="argo", params={})).objects
    expression = template["spec"]["templates"][1]["retryStrategy"]["expression"]
    assert expression.endswith(" || lastRetry.exitCode == '7'")
    *_, pipeline_of_tekton = compile_pipeline(own, Wanted(engine="tekton", params={})).objects
    assert pipeline_of_tekton["spec"]["tasks"][0]["retries"] == 2


def test_tekton_has_time_for_everything() -> None:
    (run,) = objects("tekton", "kmod", Form.RUN)
    seconds = {name: int(value.removesuffix("s")) for name, value in run["spec"]["timeouts"].items()}
    tasks = pipeline("kmod").tasks
    assert seconds["tasks"] == sum(task.timeout for task in tasks)  # one after the other
    assert seconds["pipeline"] == seconds["tasks"] + seconds["finally"]


@pytest.mark.parametrize("engine", ENGINES)
def test_chains_finds_the_image(engine: str) -> None:
    text = json.dumps(objects(engine, "kmod"))
    for name in ("IMAGE_URL", "IMAGE_DIGEST"):
        assert {"argo": f"tasks.publish.outputs.parameters.{name}", "tekton": f"tasks.publish.results.{name}"}[
            engine
        ] in text
