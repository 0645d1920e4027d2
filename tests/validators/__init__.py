"""What judges what we write: two small Go programs around Argo's and Tekton's own validation, and ready tools.

They are built once, into the cache, by what they are built from. `python -m tests.validators` builds them now.
"""

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dtkpipe.engines.tekton.build import MIN_VERSION
from dtkpipe.resources import cache_dir

_HERE = Path(__file__).parent
_GO = (1, 26, 4)  # the newest that a go.mod here asks for
_TOOLS = {"actionlint": "github.com/rhysd/actionlint/cmd/actionlint", "kustomize": "sigs.k8s.io/kustomize/kustomize/v5"}
PROGRAMS = ("argo", "tekton", *_TOOLS)
_MODULES = {"argo": "github.com/argoproj/argo-workflows/v4", "tekton": "github.com/tektoncd/pipeline"}
_OLDEST = {
    "argo": "github.com/argoproj/argo-workflows/v3@v3.7.16",
    "tekton": f"github.com/tektoncd/pipeline@v{MIN_VERSION}",
}
_ENVIRONMENT = {"GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


@functools.cache
def go() -> str:
    """A Go that is new enough: the machine's, or the one in the virtual environment."""
    seen = []
    for program in (shutil.which("go"), f"{sys.prefix}/bin/go"):
        if not program or not Path(program).exists():
            continue
        version = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"go(\d+)\.(\d+)\.(\d+)", version)
        if found and tuple(map(int, found.groups())) >= _GO:
            return program
        seen.append(version.strip())
    fix = f"{sys.executable} -m pip install --group go"
    raise RuntimeError(
        f"Go {'.'.join(map(str, _GO))} or newer is not installed ({', '.join(seen) or 'none found'}): {fix}"
    )


def _run(arguments: Sequence[str], name: str) -> str:
    done = subprocess.run(
        [go(), *arguments], cwd=_HERE / name, capture_output=True, text=True, env={**os.environ, **_ENVIRONMENT}
    )
    if done.returncode:
        raise RuntimeError(f"go {' '.join(arguments)} in tests/validators/{name}: {done.stderr[-2000:]}")
    return done.stdout


@functools.cache
def program(name: str) -> Path:
    """One of PROGRAMS, built if it is not there. Two builds at once do no harm: the last one stays."""
    digest = hashlib.sha256()
    for file in ("go.mod", "go.sum", *([] if name in _TOOLS else ["main.go"])):
        digest.update((_HERE / name / file).read_bytes())
    target = cache_dir(os.environ) / "validators" / f"{name}-{digest.hexdigest()[:16]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f"{target.name}.{os.getpid()}")
        _run(["build", "-trimpath", "-ldflags", "-s -w", "-o", str(unfinished), _TOOLS.get(name, ".")], name)
        unfinished.rename(target)
    return target


@functools.cache
def source(engine: str, version: str) -> Path:
    """The folder of an engine's own source, which holds its CRDs: of the `newest` version, or the oldest supported."""
    if version == "newest":
        _run(["mod", "download", _MODULES[engine]], engine)
        return Path(_run(["list", "-m", "-f", "{{.Dir}}", _MODULES[engine]], engine).strip())
    return Path(json.loads(_run(["mod", "download", "-json", _OLDEST[engine]], engine))["Dir"])


def judge(engine: str, streams: Sequence[str]) -> list[list[str]]:
    """What is wrong with each YAML stream, in the engine's words; empty lists for what it would take."""
    return [json.loads(line) for line in _answers([str(program(engine))], streams)]


def read(streams: Sequence[str]) -> list[object]:
    """What Kubernetes' own YAML reader makes of each document."""
    return [json.loads(line) for line in _answers([str(program("tekton")), "read"], streams)]


def _answers(command: list[str], streams: Sequence[str]) -> list[str]:
    lines = "".join(json.dumps(stream) + "\n" for stream in streams)
    done = subprocess.run(command, input=lines, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"the validator did not run: {done.stderr}")
    answers = done.stdout.split("\n")[:-1]  # and not at the other characters that end lines for Python
    assert len(answers) == len(streams)
    return answers
