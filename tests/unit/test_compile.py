"""compile and diff from the command line: forms, parameters, files, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dtkpipe.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
RUN = ["--release", "debian-12", "--repo", "github.com/org/kmod", "--push-to", "quay.io/org/kmod"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the machine's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def ran(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    return (code, *capsys.readouterr())


def params(document: dict) -> dict[str, str]:
    spec = document["spec"]
    given = spec["params"] if "params" in spec else spec["arguments"]["parameters"]
    return {one["name"]: one.get("value", one.get("default")) for one in given}


@pytest.mark.parametrize(("engine", "kind"), [("argo", "Workflow"), ("tekton", "PipelineRun")])
def test_a_run(capsys: pytest.CaptureFixture[str], engine: str, kind: str) -> None:
    code, out, err = ran(capsys, "compile", "--engine", engine, "--as", "run", *RUN, "--run-name", "r1", "--hermetic")
    document = yaml.safe_load(out)
    assert code == 0
    assert (document["kind"], document["metadata"]["name"]) == (kind, "r1")
    assert params(document) == {
        "release": "debian-12",
        "repo": "github.com/org/kmod",
        "push-to": "quay.io/org/kmod",
        "staging": "quay.io/org/kmod-staging",
        "toolkit-repo": "quay.io/org/kmod-toolkits",
        "hermetic": "true",
    }
    assert "note: " in err
    assert "next: " in err


@pytest.mark.parametrize("engine", ["argo", "tekton"])
def test_parameters_of_a_template_are_its_defaults(capsys: pytest.CaptureFixture[str], engine: str) -> None:
    code, out, _ = ran(capsys, "compile", "-e", engine, "--push-to", "quay.io/org/kmod", "-p", "time-limit=300")
    given = params(list(yaml.safe_load_all(out))[-1])
    assert code == 0
    assert (given["push-to"], given["time-limit"], given["repo"]) == ("quay.io/org/kmod", "300", None)


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ran(capsys, "compile", "-e", "tekton", "-o", "json")
    document = json.loads(out)
    assert document["kind"] == "List"
    assert document["items"][-1]["kind"] == "Pipeline"
    _, out, _ = ran(capsys, "compile", "-e", "argo", "-o", "json")
    assert json.loads(out)["kind"] == "WorkflowTemplate"


def test_names(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ran(capsys, "compile", "-e", "tekton", "--pipeline", "prebuild", "-o", "name")
    assert out.splitlines()[0] == "task/prebuild-resolve"
    assert out.splitlines()[-1] == "pipeline/prebuild"


def test_certificates_and_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("-----BEGIN CERTIFICATE-----\nMAMC\nAQE=\n-----END CERTIFICATE-----\n")
    (tmp_path / "cert.der").write_bytes(b"\x30\x03\x02\x01\x01")
    (tmp_path / "ca.pem").write_text("two\nlines\n")
    for name in ("cert.pem", "cert.der"):
        argv = ("compile", "-e", "tekton", "--as", "run", *RUN, "--sign-cert", name, "--registry-ca", "ca.pem")
        given = params(yaml.safe_load(ran(capsys, *argv)[1]))
        assert (given["sign-cert"], given["registry-ca"]) == ("MAMCAQE=", "two\nlines\n")


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["-e", "argoo"], 5, "there is no engine `argoo`"),
        (["-e", "local"], 8, "the local engine runs pipelines itself"),
        (["-e", "argo", "--pipeline", "kmdo"], 5, "did you mean `kmod`?"),
        (["-e", "argo", "-p", "relese=1"], 2, "did you mean `release`?"),
        (["-e", "argo", "-p", "release"], 2, "-p takes NAME=VALUE"),
        (["-e", "argo", "--release", "1", "-p", "release=2"], 2, "`release` is given twice"),
        (["-e", "argo", "--as", "run"], 2, "needs `repo`, `push-to`"),
        (["-e", "tekton", "--as", "run", *RUN, "--ref", "$(x)"], 2, "parameter `ref` holds `$(`"),
        (["-e", "argo", "--as", "run", *RUN, "--ref", "{{x}}"], 2, "parameter `ref` holds `{{`"),
        (["-e", "tekton", "--as", "run", *RUN, "--ref", "a$$b"], 2, "parameter `ref` holds `$$`"),
        (["-e", "argo", "--as", "run", "--repo", "./kmod", "--push-to", "quay.io/a/b"], 2, "is on this machine"),
        (["-e", "argo", "--as", "run", "--repo", "x.y/kmod", "--push-to", "nothing"], 6, "not an image reference"),
        (["-e", "argo", "--run-name", "x"], 2, "a template has no run name"),
        (["-e", "argo", "--as", "run", *RUN, "--run-name", "Not_A_Name"], 2, "cannot be the name of a run"),
        (["-e", "argo", "-p", "sign-secret=../x"], 2, "takes the name of a Secret"),
        (["-e", "argo", "--check"], 2, "it needs --dir"),
        (["-e", "argo", "--runner-image", "quay.io/x/y"], 6, "can be another one tomorrow"),
        (["-e", "argo", "--strict"], 8, "argo does not do all"),
        (["-e", "argo", "--sign-cert", "nowhere.pem"], 2, "`nowhere.pem` cannot be read"),
        (["-e", "argo", "--as", "runn"], 2, "runn"),
        (["-e", "argo", "--dir", "x", "--as", "run", *RUN], 2, "leave out --as"),
        (["-e", "argo", "--dir", "x", "-o", "json"], 2, "leave out --as"),
        (["-e", "argo", "--dir", "x", "-p", "relese=1"], 2, "did you mean `release`?"),
        (["-e", "argo", "--dir", "x", "--strict"], 8, "argo does not do all"),
        (["-e", "argoo", "--dir", "x"], 5, "there is no engine `argoo`"),
        (["-e", "argo", "--dir", "/dev/null/x"], 6, "cannot be written"),
        (["-e", "argo", "-n", "x"], 2, "--namespace is for all that a cluster needs"),
        (["-e", "argo", "--openshift"], 2, "--openshift is for all that a cluster needs"),
        ([], 2, "--engine"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], argv: list[str], code: int, words: str) -> None:
    got, out, err = ran(capsys, "compile", *argv)
    assert got == code, err
    assert not out
    assert words in err
    assert "Traceback" not in err


def test_a_private_key_is_not_taken_for_a_certificate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    code, out, err = ran(capsys, "compile", "-e", "argo", "--sign-cert", "key.pem")
    assert (code, out) == (2, "")
    assert "holds a private key" in err
    assert "c2VjcmV0" not in err


def test_an_object_too_large_for_the_engine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    more = [word for n in range(10) for word in ("-p", f"p{n}={'x' * 120_000}")]
    tasks = ", ".join(
        f"container('t{n}', image='quay.io/a/b:1', argv=['x', '--', InputRef('v')], inputs={{'v': ParamRef('p{n}')}},"
        f" params=[Param(name='p{n}', description='')])"
        for n in range(10)
    )
    (tmp_path / "big.py").write_text(
        "from dtkpipe.model import InputRef, Param, ParamRef, Pipeline, container\n"
        f"big = Pipeline('big', '', [{tasks}])\n"
    )
    code, _, err = ran(capsys, "compile", "-e", "argo", "--as", "run", "--pipeline", "big.py", *more)
    assert code == 8
    assert "argo cannot hold workflow/big-" in err


def test_diff_with_one_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, out, _ = ran(capsys, "compile", "-e", "tekton", "--as", "run", *RUN)
    (tmp_path / "run.yaml").write_text(out)
    assert ran(capsys, "diff", "run.yaml", "-e", "tekton", "--as", "run", *RUN)[0] == 0
    code, out, _ = ran(capsys, "diff", "run.yaml", "-e", "tekton", "--as", "run", *RUN, "--ref", "1e5")
    assert code == 1
    assert '+  - name: ref\n+    value: "1e5"\n' in out
    assert ran(capsys, "diff", "nowhere", "-e", "tekton")[0] == 5
    assert ran(capsys, "diff", "run.yaml", "-e", "tekton", "-n", "x")[0] == 2
    assert ran(capsys, "diff", str(tmp_path), "-e", "tekton", "--as", "run")[0] == 2


@pytest.mark.parametrize(("argv", "absent"), [
    (["compile", "-e", "tekton"], {"hera", "kubernetes", "yaml"}),
    (["compile", "-e", "argo"], {"kubernetes"}),
    (["graph"], {"hera", "kubernetes", "yaml"}),
])  # fmt: skip
def test_only_what_is_needed_is_imported(argv: list[str], absent: set[str]) -> None:
    code = (
        "import sys\nfrom dtkpipe.cli.main import main\n"
        f"assert main({argv!r}) == 0\nprint(sorted({absent!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
