"""Schedules up to where the cluster is asked: times, what goes along, the objects, refusals."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtkpipe.app.schedules import listed
from dtkpipe.engines.schedules import FOLDER
from dtkpipe.errors import InvalidError
from dtkpipe.values.cron import Cron
from tests.fixtures import schedules
from tests.fixtures.api import Answer, fake_api, refusal
from tests.fixtures.api import listed as items
from tests.fixtures.cli import Cli, Said
from tests.fixtures.schedules import MATRIX, modules

NIGHTLY = ("nightly", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin")


@pytest.fixture
def desk(cli: Cli) -> Cli:
    modules(cli, "one", "two")
    return cli


def create(cli: Cli, *words: str, after: tuple[str, ...] = MATRIX, engine: str = "argo") -> Said:
    return schedules.create(cli, "schedule", *words, "--engine", engine, after=after)


def rendered(cli: Cli, *after: str, engine: str = "argo") -> list[dict[str, Any]]:
    said = create(cli, *NIGHTLY, "--dry-run=client", "-o", "json", after=(*MATRIX, *after), engine=engine)
    assert said.code == 0, said.err
    found: list[dict[str, Any]] = json.loads(said.out)
    return found


def planner(objects: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The planner's container and volumes."""
    if objects[-1]["kind"] == "CronJob":
        pod = objects[-1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        return pod["containers"][0], pod["volumes"]
    (template,) = objects[1]["spec"]["templates"]
    return template["container"], template["volumes"]


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_it_starts_never_twice_and_catches_up_once(desk: Cli, engine: str) -> None:
    objects = rendered(desk, engine=engine)
    spec = objects[-1]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert 0 < spec["startingDeadlineSeconds"] < 86400
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 3)
    assert (spec.get("timeZone") or spec.get("timezone")) == "Europe/Berlin"
    assert "0 3 * * *" in (spec.get("schedule"), *spec.get("schedules", ()))
    assert "dtkpipe-planner" in json.dumps(objects)
    container, _ = planner(objects)
    assert container["args"][:6] == ["matrix", "submit", "--engine", engine, "--namespace", "here"]
    assert container["securityContext"]["runAsNonRoot"]


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_files_go_along_and_the_planner_finds_them(desk: Cli, engine: str) -> None:
    (desk.here / "lock").mkdir()
    (desk.here / "lock/4.16.yaml").write_text("a lock\n")
    pipeline = "from dtkpipe.model import Pipeline, container\na = container('a', image='x.org/y:1', argv=('true',))\n"
    (desk.here / "mine.py").write_text(f"{pipeline}mine = Pipeline('mine', 'One task', tasks=(a,))\n")
    objects = rendered(
        desk, "--lock", "lock", "--pipeline", "mine.py:mine", "--jobs", "7", "--retry-failed", engine=engine
    )
    container, volumes = planner(objects)
    (held,) = (one["configMap"] for one in volumes if "configMap" in one)
    assert held["name"] == objects[0]["metadata"]["name"]
    files = {f"{FOLDER}/{one['path']}": objects[0]["data"][one["key"]] for one in held["items"]}
    words = dict(word.split("=", 1) for word in container["args"][6:] if "=" in word)
    assert words["--modules"] == f"{FOLDER}/modules/*.yaml"
    assert {yaml.safe_load(text)["name"] for name, text in files.items() if "/modules/" in name} == {"one", "two"}
    assert files[f"{words['--lock']}/4.16.yaml"] == "a lock\n"
    assert "Pipeline('mine'" in files[words["--pipeline"].removesuffix(":mine")]
    assert (words["--jobs"], "--retry-failed" in container["args"]) == ("7", True)
    assert {"name": "schedule", "mountPath": FOLDER, "readOnly": True} in container["volumeMounts"]


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_modules_out_of_git_are_read_by_each_start(desk: Cli, engine: str) -> None:
    catalogue = "github.com/org/catalog//modules/*?ref=main"
    given = ("--modules", catalogue, *MATRIX[2:])
    said = create(desk, *NIGHTLY, "--dry-run=client", "-o", "json", after=given, engine=engine)
    assert said.code == 0, said.err
    objects = json.loads(said.out)
    container, _ = planner(objects)
    assert [word for word in container["args"] if word.startswith("--modules")] == [f"--modules={catalogue}"]
    assert not objects[0]["data"]
    local = create(desk, *NIGHTLY, after=("--modules", "file:///srv/catalog//modules/*", *MATRIX[2:]), engine=engine)
    assert (local.code, "a pod cannot read it" in local.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "after", "code", "said"),
    [
        (("n", "--cron", "61 * * * *"), MATRIX, 6, "`61 * * * *` is not a cron expression"),
        (("n", "--cron", "0 3 30 2 *"), MATRIX, 6, "is not a cron expression"),
        (("n", "--cron", "0 3 * *"), MATRIX, 6, "expected five fields"),
        (("n", "--cron", "@daily"), MATRIX, 6, "expected five fields"),
        (("n", "--cron", "0 0 3 * * *"), MATRIX, 6, "expected five fields"),
        (("n", "--cron", "0 3 L * *"), MATRIX, 6, "expected five fields"),
        (("n", "--cron", "0 3 * * 7"), MATRIX, 6, "0 is Sunday"),
        (("n", "--cron", "0 3 * * *", "--timezone", "Europe/Berln"), MATRIX, 6, "did you mean `Europe/Berlin`?"),
        (("n", "--cron", "0 3 * * *", "--timezone", "../etc/passwd"), MATRIX, 6, "there is no time zone"),
        (("N/A", "--cron", "0 3 * * *"), MATRIX, 2, "cannot be the name of a schedule"),
        (("n" * 60, "--cron", "0 3 * * *"), MATRIX, 2, "at most 52"),
        (("n", "--cron", "0 3 * * *"), (*MATRIX, "--engine", "argo"), 2, "give it before the --"),
        (("n", "--cron", "0 3 * * *"), (*MATRIX, "--sign-key", "k.pem"), 2, "keys and credentials are Secrets"),
        (("n", "--cron", "0 3 * * *"), (*MATRIX, "--jbos", "3"), 2, "did you mean `--jobs`?"),
        (("n", "--cron", "0 3 * * *"), (*MATRIX, "--graph", "http://{{x}}"), 2, "word"),
        (("n", "--cron", "0 3 * * *"), MATRIX[2:], 2, "--modules"),
        (("n", "--cron", "0 3 * * *"), ("--modules", "modules/*", "--releases", "4.16"), 2, "where images go"),
        (("n", "--cron", "0 3 * * *"), ("--modules", "x/*", *MATRIX[2:]), 9, "finds no module spec"),
        (("n", "--cron", "0 3 * * *"), MATRIX, 7, "cannot be reached"),
    ],
)  # fmt: skip
def test_bad_input_is_told(desk: Cli, words: tuple[str, ...], after: tuple[str, ...], code: int, said: str) -> None:
    answer = create(desk, *words, after=after)
    assert (answer.code, said in answer.err) == (code, True), answer.err


def test_modules_that_a_pod_cannot_build_are_refused(desk: Cli) -> None:
    (desk.here / "modules/two.yaml").write_text("apiVersion: dtkpipe/v1\nname: two\nsource: {repo: ../two}\n")
    said = create(desk, *NIGHTLY)
    assert (said.code, "a pod cannot read it" in said.err) == (2, True), said.err
    (desk.here / "modules/two.yaml").write_text("nmae: two\n")
    assert create(desk, *NIGHTLY).code == 6


def test_times_are_those_of_the_zone() -> None:
    cron = Cron.parse("30 2 * * *", "Europe/Berlin")
    assert cron.next(datetime(2026, 1, 10, 12, tzinfo=UTC)).astimezone(UTC).isoformat() == "2026-01-11T01:30:00+00:00"
    assert cron.next(datetime(2026, 7, 10, 12, tzinfo=UTC)).astimezone(UTC).isoformat() == "2026-07-11T00:30:00+00:00"
    assert Cron.parse(" 0  3 * *  MON-FRI", "UTC").expression == "0 3 * * MON-FRI"
    for never in ("0 3 31 4 *", ""):
        with pytest.raises(InvalidError):
            Cron.parse(never, "UTC")


def test_the_list_tells_the_last_outcome(tmp_path: Path) -> None:
    from dtkpipe.app.clusters import Place
    from dtkpipe.clients.cluster import Cluster

    cron = {
        "metadata": {"name": "nightly", "labels": {"dtkpipe.io/schedule": "nightly"}},
        "spec": {"schedule": "0 3 * * *", "timeZone": "Europe/Berlin", "suspend": False},
        "status": {"lastScheduleTime": "2026-01-10T02:00:00Z"},
    }
    job = {
        "metadata": {"name": "nightly-1", "creationTimestamp": "2026-01-10T02:00:00Z"},
        "status": {"conditions": [{"type": "Failed", "status": "True"}]},
    }
    pod = {
        "metadata": {"name": "p", "labels": {"batch.kubernetes.io/job-name": "nightly-1"}},
        "status": {"containerStatuses": [{"name": "planner", "state": {"terminated": {"exitCode": 10}}}]},
    }
    with fake_api() as api:
        api.give(refusal(404, "NotFound", "no such kind"), items(1, cron), items(1, job), items(1, pod), Answer(500))
        place = Place(Cluster(api.kubeconfig(tmp_path / "kubeconfig")), "here")
        (one,) = listed(place, datetime(2026, 1, 10, 12, tzinfo=UTC))
    assert (one.outcome, one.run, one.engine) == ("failed: red cells", "nightly-1", "tekton")
    assert one.next == datetime(2026, 1, 11, 2, tzinfo=UTC)
    assert one.last == datetime(2026, 1, 10, 2, tzinfo=UTC)
