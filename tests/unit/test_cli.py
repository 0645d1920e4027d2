"""The command line as a whole: help, errors, exit codes, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dtkpipe.cli.application import COMMANDS, load
from dtkpipe.errors import EXIT_CODES
from tests.fixtures.cli import Cli

HELP = """\
Usage: dtkpipe [OPTIONS] COMMAND [ARGS]...

  Turn the source of a kernel module into a signed driver container, proven on
  its target kernel.

Options:
  --version             Print the version and exit
  --install-completion  Install completion for the current shell.
  --show-completion     Show completion for the current shell, to copy it or
                        customize the installation.
  -h, --help            Show this message and exit.

Run:
  submit       Build, sign, prove and publish a kernel module
  list         List runs
  describe     Show how a run goes, or went
  logs         Print the logs of a run
  wait         Wait until a run has ended, and exit as it did
  cancel       End runs
  retry        Try a run again that failed or was cancelled
  delete       Delete runs and their logs
  matrix       Build many modules for many kernels, and keep them fresh
  schedule     Submit matrices at the times of a cron expression
  trigger      Submit matrices on a push, a new release or a new kernel
  label-nodes  Label nodes with the kernel they run, so that drivers find them
  step         Run one step of a pipeline
  registry     Serve the images that local runs made

Drivers on nodes:
  deploy      Roll a driver image out to the nodes that run its kernel
  status      Show the drivers on nodes, and whether what is loaded is right
  smoke-test  Prove on every node that the loaded modules are the image's
  rollback    Put the image before back on every node

Define (offline):
  compile  Print a pipeline as the YAML of an engine
  lint     Find what is known to go wrong
  graph    Draw a pipeline
  diff     Compare a compiled pipeline with files

Releases and kernels:
  resolve   Find the toolkit and the kernel of a release
  releases  List the kernels and the releases that each of them serves
  catalog   List, refresh and check the lock of OpenShift releases

Project:
  install    Put pipelines, accounts and rights onto a cluster
  uninstall  Take off a cluster what install put there
  init       Write the dtkpipe.yaml that can be inferred from a module's
             source
  doctor     Check what this machine or a cluster lacks
  config     Show the settings and where they come from
  help       Explain a command or a topic
  version    Print the version of dtkpipe

  Topics: dtkpipe help exit-codes, dtkpipe help environment
"""


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help(cli: Cli, words: list[str]) -> None:
    said = cli(*words)
    assert (said.code, said.out, said.err) == (0, HELP, "")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_table_says_what_the_command_says(name: str) -> None:
    assert load(name).help.startswith(COMMANDS[name].summary)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["sumbit"], 2, "error: there is no command `sumbit`\n\nhint: did you mean `dtkpipe submit`?\n"),
        (["xyzzy"], 2, "error: there is no command `xyzzy`\n\nhint: dtkpipe --help\n"),
        (["version", "--outptu=x"], 2, "error: no such option: --outptu\n\nhint: did you mean `--output`?\n"),
        (
            ["version", "--output=x"], 2,
            (
                "error: invalid value for '-o' / '--output': 'x' is not one of 'table', 'json'\n\n"
                "hint: dtkpipe version --help\n"
            ),
        ),
        (["describe"], 2, "error: missing argument 'RUN'\n\nhint: dtkpipe describe --help\n"),
        (["describe", "x"], 5, "error: there is no run `x`\n  looked in: STATE/runs\n\nhint: dtkpipe list\n"),
        (["describe", "../x"], 5, "error: there is no run `../x`\n  looked in: STATE/runs\n\nhint: dtkpipe list\n"),
        (
            ["describe", "@latest"], 5,
            "error: there are no runs yet\n  looked in: STATE/runs\n\nhint: dtkpipe submit --help\n",
        ),
        (
            ["help", "exit-coeds"], 5,
            (
                "error: there is no help about `exit-coeds`\n  topics: exit-codes, environment\n\n"
                "hint: did you mean `exit-codes`?\n"
            ),
        ),
        (
            ["submit", "--engine=argo", "--repo=."], 6,
            (
                "error: there is no cluster to ask\n  /dev/null: Invalid kube-config. /dev/null file is empty\n\n"
                "hint: --kubeconfig FILE, or oc login\n"
            ),
        ),
        (["submit", "--engine=lokal"], 2, "error: there is no engine `lokal`\n\nhint: did you mean `local`?\n"),
        (["doctor", "--for=biuld"], 2, None),
    ],
)  # fmt: skip
def test_errors(cli: Cli, words: list[str], code: int, text: str | None) -> None:
    said = cli(*words)
    assert (said.code, said.out) == (code, "")
    assert "Traceback" not in said.err
    if text:
        assert said.err.replace(str(cli.home / "state"), "STATE") == text


def test_exit_codes_are_documented(cli: Cli) -> None:
    said = cli("help", "exit-codes")
    for code, meaning in EXIT_CODES:
        assert f"{code:4}  {meaning}\n" in said.out


def test_every_variable_is_documented(cli: Cli) -> None:
    from dtkpipe.settings import KEYS

    listed = {line.split()[0] for line in cli("help", "environment").out.splitlines()[2:]}
    assert {key.variable for key in KEYS} < listed
    assert {"DTKPIPE_CACHE", "DTKPIPE_STATE", "DTKPIPE_CONFIG", "DTKPIPE_WORK"} < listed


def test_version(cli: Cli) -> None:
    from dtkpipe import __version__

    assert cli("version").out == cli("--version").out == f"dtkpipe {__version__}\n"
    assert json.loads(cli("version", "-o", "json").out) == {"dtkpipe": __version__}


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["--help"], {"hera", "kubernetes", "rich", "pydantic", "yaml", "urllib3", "cryptography", "elftools"}),
        (["version"], {"hera", "kubernetes", "rich", "yaml", "urllib3", "cryptography", "elftools"}),
        (["step", "build", "--help"], {"hera", "kubernetes", "rich", "typer", "urllib3", "cryptography", "elftools"}),
        (["submit", "--help"], {"hera", "kubernetes", "rich", "urllib3", "cryptography", "elftools"}),
        (["list"], {"hera", "kubernetes", "rich", "urllib3", "cryptography", "elftools"}),
        (["compile", "--engine=tekton"], {"hera", "kubernetes", "rich", "urllib3", "cryptography", "elftools"}),
    ],
)
def test_nothing_heavy_is_imported_that_is_not_needed(cli: Cli, words: list[str], unwanted: set[str]) -> None:
    code = f"import sys; from dtkpipe.cli.main import main; main({words!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=cli.environ(), cwd=cli.here, capture_output=True, text=True, check=True
    )
    assert not unwanted & set(done.stderr.split())


def test_a_bug_is_written_to_a_log_and_not_to_the_screen(cli: Cli) -> None:
    code = "import sys; from dtkpipe.cli import boundary; sys.exit(boundary.guarded(lambda: 1 // 0))"
    done = subprocess.run([sys.executable, "-c", code], env=cli.environ(), capture_output=True, text=True)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    [log] = (cli.home / "state" / "logs").iterdir()
    assert f"log: {log}" in done.stderr
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        ("OSError(28, 'No space left on device', '/x')", 8, "no space left on device: /x"),
        ("PermissionError(13, 'Permission denied', '/x')", 4, "permission denied: /x"),
        ("KeyboardInterrupt()", 130, "interrupted"),
    ],
)
def test_what_the_system_refuses_is_said_in_words(cli: Cli, error: str, code: int, text: str) -> None:
    program = f"import sys; from dtkpipe.cli import boundary\ndef f(): raise {error}\nsys.exit(boundary.guarded(f))"
    done = subprocess.run([sys.executable, "-c", program], env=cli.environ(), capture_output=True, text=True)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_enough_is_no_error(cli: Cli) -> None:
    command = " ".join(cli.argv("help"))
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], env=cli.environ(), capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli: Cli, shell: str) -> None:
    # The word names the shell only when Typer does not look for one among the processes above us.
    said = cli("--show-completion", shell, env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert said.code == 0
    assert "_DTKPIPE_COMPLETE" in said.out


def test_runs_complete_from_their_folders(cli: Cli) -> None:
    (cli.home / "state/runs/hello-1").mkdir(parents=True)
    more = {"_DTKPIPE_COMPLETE": "complete_bash", "COMP_WORDS": "dtkpipe describe ", "COMP_CWORD": "2"}
    said = cli(env=more)
    assert said.out.split() == ["@latest", "hello-1"]


def test_releases_complete_from_the_catalogue(cli: Cli) -> None:
    more = {"_DTKPIPE_COMPLETE": "complete_bash", "COMP_WORDS": "dtkpipe submit --release deb", "COMP_CWORD": "3"}
    assert cli(env=more).out.split() == ["debian-12", "debian-13"]
    assert "4.14" in cli(env=more | {"COMP_WORDS": "dtkpipe submit --release 4."}).out.split()


def test_the_program_runs_as_a_script_and_as_a_module(cli: Cli) -> None:
    script = Path(sys.executable).with_name("dtkpipe")
    done = subprocess.run([script, "version"], capture_output=True, text=True, env=cli.environ())
    assert done.stdout == cli("version").out
